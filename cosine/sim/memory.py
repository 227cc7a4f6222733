"""How much memory a machine's state takes: everything that can be reached from it, each thing once.

It walks as the garbage collector does. Code is left out, and so is what belongs to the interpreter. Small numbers are
shared by all of Python, so tokens count as the eight bytes of a place in their list.
"""

from __future__ import annotations

import gc
import sys
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType

CODE = (type, FunctionType, BuiltinFunctionType, ModuleType, Enum)


def held_bytes(root: object, apart_from: tuple[type, ...] = ()) -> int:
    """Bytes of `root` and all that it holds, but for what only things of some types hold."""
    seen = {id(root)}
    level: list[object] = [root]
    left_out = (*CODE, *apart_from)
    total = 0
    while level:
        total += sum(map(sys.getsizeof, level))
        below = gc.get_referents(*level)
        level = []
        for thing in below:
            if id(thing) not in seen and not isinstance(thing, left_out):
                seen.add(id(thing))
                level.append(thing)
    return total
