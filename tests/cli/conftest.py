"""One `cosine up` with toy models, shared by the tests that only talk to a mesh."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from process_table import Up


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"))
    yield running
    running.end(signal.SIGINT)
