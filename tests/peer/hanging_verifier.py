"""`python hanging_verifier.py loading|passes FLAG...`: a verifier of a toy that hangs as it loads, or at a token.

It says so on standard output, and never goes on. As in the first process of a container, SIGTERM does nothing until
somebody handles it.
"""

from __future__ import annotations

import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from cosine.engine.base import Segment
from cosine.engine.toy import ToyEngine, ToyLogits
from cosine.peer import model_service

HANGS_AT = 13


def hang(*_: Any) -> NoReturn:
    print("hangs", flush=True)
    while True:
        threading.Event().wait()


def main() -> None:
    where, *flags = sys.argv[1:]
    whole = ToyEngine.forward

    def forward(engine: ToyEngine, segments: Sequence[Segment], *rest: Any) -> ToyLogits:
        return hang() if HANGS_AT in segments[0].token_ids else whole(engine, segments, *rest)

    if where == "loading":
        model_service.open_engine = hang  # type: ignore[assignment,attr-defined]  # stands in for it
    else:
        ToyEngine.forward = forward  # type: ignore[assignment,method-assign]  # stands in for it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.argv = ["services.verifier", "--model=toy", *flags]
    runpy.run_module("services.verifier", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
