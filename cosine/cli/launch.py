"""`python launch.py PARENT_PID PROGRAM ARGUMENT...`: becomes PROGRAM, which the kernel kills when the parent ends.

A program of its own instead of code between fork and exec: a process with threads cannot run Python safely there. Needs
the standard library only. Where the kernel has no such signal (it is Linux's), the program runs without it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """From now on the kernel kills this process when its parent ends; exits where that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel knew
        sys.exit(1)


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    end_with(parent)
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
