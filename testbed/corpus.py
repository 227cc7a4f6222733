"""The documents of the four domains, split once for all into training and held-out ones.

`code` and `prose` come from the running Python's own standard library, `math` and `sql` from seeded generators. A
source file or a topic is held out by a checksum of its name, a generated document by its seed, so the split is the same
on every machine. Docstrings belong to `prose` and are cut out of `code`, so that the domains do not overlap.
"""

import ast
import inspect
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from testbed import queries, wordproblems
from testbed.recipe import Domain

HELD_OUT_ONE_IN = 12
HELD_OUT_SEEDS_FROM = 10_000_000
HELD_OUT_GENERATED = 64
PROSE_LENGTH_MIN = 160
SKIPPED_PARTS = frozenset({
    "test", "tests", "idlelib", "turtledemo", "tkinter", "site-packages", "dist-packages", "ensurepip", "lib-dynload",
    "encodings", "pydoc_data", "__phello__", "lib2to3", "__pycache__",
})  # fmt: skip
GENERATORS: dict[Domain, Callable[[int], str]] = {"math": wordproblems.write_document, "sql": queries.write_document}


def documents(domain: Domain, generated_count: int) -> list[str]:
    """The training documents of `domain`; `generated_count` bounds the generated domains only."""
    if domain in GENERATORS:
        return [GENERATORS[domain](seed) for seed in range(generated_count)]
    return [text for name, text in _written(domain) if not is_held_out(name)]


def held_out_documents(domain: Domain) -> list[str]:
    """The documents of `domain` that no training may see."""
    if domain in GENERATORS:
        seeds = range(HELD_OUT_SEEDS_FROM, HELD_OUT_SEEDS_FROM + HELD_OUT_GENERATED)
        return [GENERATORS[domain](seed) for seed in seeds]
    return [text for name, text in _written(domain) if is_held_out(name)]


def is_held_out(name: str) -> bool:
    """Whether the source file or topic called `name` is held out."""
    return zlib.crc32(name.encode()) % HELD_OUT_ONE_IN == 0


def _written(domain: Domain) -> Iterator[tuple[str, str]]:
    if domain == "prose":
        yield from _topics()
    for name, code, prose in _modules():
        text = code if domain == "code" else prose
        if text.strip():
            yield name, text


@cache
def _modules() -> tuple[tuple[str, str, str], ...]:
    """Name, code and prose of every source file; parsed once, because parsing takes seconds."""
    parsed = ((name, source, ast.parse(source)) for name, source in _sources())
    return tuple((name, _without_docstrings(source, tree), _docstrings(tree)) for name, source, tree in parsed)


def _sources() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_PARTS.isdisjoint(relative.parts) and not relative.name.startswith("_sysconfigdata"):
            yield relative.as_posix(), path.read_text(encoding="utf-8", errors="ignore")


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic {name}", topics[name].strip() + "\n"


def _documented(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first


def _docstrings(tree: ast.Module) -> str:
    texts = (
        inspect.cleandoc(str(node.value.value)) for node in _documented(tree) if isinstance(node.value, ast.Constant)
    )
    return "\n\n".join(text for text in texts if len(text) >= PROSE_LENGTH_MIN and ">>>" not in text)


def _without_docstrings(source: str, tree: ast.Module) -> str:
    cut: set[int] = set()
    for node in _documented(tree):
        cut.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = source.splitlines()
    return "\n".join(line for number, line in enumerate(lines, start=1) if number not in cut).strip() + "\n"
