"""The process around the embedded store: what ends it, and what does not."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Self

import pytest

from cosine.cli import embedded_store

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Server:
    """A server whose process is stopped, or has ended, right after its start; who asks is then told to stop."""

    url = "redis://127.0.0.1:1"

    def __init__(self, is_stopped: bool) -> None:
        self.is_stopped = is_stopped
        self.asked_count = 0

    @property
    def is_running(self) -> bool:
        self.asked_count += 1
        signal.raise_signal(signal.SIGCHLD if self.asked_count == 1 else signal.SIGTERM)
        return self.is_stopped

    def __enter__(self) -> Self:
        signal.raise_signal(signal.SIGCHLD)
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of this process, put back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("is_stopped", "asked_count"), [(True, 2), (False, 1)], ids=["stopped", "ended"])
def test_it_ends_with_its_server_and_not_where_that_is_merely_stopped(
    monkeypatch: pytest.MonkeyPatch, is_stopped: bool, asked_count: int
) -> None:
    server = Server(is_stopped)
    monkeypatch.setattr(embedded_store, "EmbeddedServer", lambda port: server)
    monkeypatch.setattr(sys, "argv", ["embedded_store"])
    assert embedded_store.main() == 0
    assert server.asked_count == asked_count
