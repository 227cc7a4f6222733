"""How many threads one operation may use: a number of the process that each thread takes over on its own."""

from __future__ import annotations

import contextlib

import torch


def use_threads(count: int) -> None:
    """`count` threads inside an operation, one operation at a time; call it on the thread that will run the model."""
    torch.set_num_threads(count)
    with contextlib.suppress(RuntimeError):  # settable once, before the first parallel work; later calls change nothing
        torch.set_num_interop_threads(1)
