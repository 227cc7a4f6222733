"""Logs: every line is one JSON object that says when and from which peer, whoever wrote it."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from cosine.rpc.errors import internal
from cosine.rpc.telemetry import setup_logging

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What has been written, after a set-up as a service's; all is as before at the end."""
    root, written = logging.getLogger(), io.StringIO()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()
    monkeypatch.setattr(sys, "stderr", written)
    setup_logging("info")
    setup_logging("info", service="verifier", peer="v")
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**before)
    logging.captureWarnings(False)


def test_a_line_of_the_standard_librarys_loggers_is_like_any_other(lines: Lines) -> None:
    structlog.get_logger().warning("ours", count=3)
    logging.getLogger("some.library").warning("theirs %s", 3, extra={"count": 3})
    ours, theirs = lines()
    assert theirs.pop("logger") == "some.library"
    theirs.pop("message", None)  # of the handler that pytest adds
    assert ours.keys() == theirs.keys() == {"event", "level", "timestamp", "service", "peer", "count"}
    assert (theirs["event"], theirs["level"], theirs["count"]) == ("theirs 3", "warning", 3)


def test_a_traceback_is_part_of_its_line(lines: Lines) -> None:
    try:
        raise ValueError("at the bottom")
    except ValueError as caught:
        error = internal(caught, "Verify")
    (line,) = lines()
    assert (line["error_id"], line["where"], line["peer"]) == (error.details["error_id"], "Verify", "v")
    assert "ValueError: at the bottom" in line["exception"]


def test_a_line_from_another_thread_names_the_peer_too(lines: Lines) -> None:
    thread = threading.Thread(target=lambda: structlog.get_logger().info("from the engine"))
    thread.start()
    thread.join()
    assert [(line["event"], line["peer"]) for line in lines()] == [("from the engine", "v")]


def test_libraries_are_heard_when_it_matters_and_once(lines: Lines) -> None:
    logger = logging.getLogger("some.library")
    for level in (logging.DEBUG, logging.INFO, logging.ERROR):
        logger.log(level, "said")
    assert [line["level"] for line in lines()] == ["error"]


def test_what_json_cannot_hold_is_written_as_text(lines: Lines) -> None:
    structlog.get_logger().info("odd", value=1j)
    assert lines()[0]["value"] == "1j"
