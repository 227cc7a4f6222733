"""How a command of the benchmarks ends, whether it returns or argparse ends it."""

from __future__ import annotations

from collections.abc import Callable


def status_of(main: Callable[[list[str]], int], *words: str) -> int:
    """The exit status."""
    try:
        return main([*words])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
