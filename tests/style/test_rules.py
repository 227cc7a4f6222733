"""Every rule finds a violation made for it, and none in this repository."""

from __future__ import annotations

from pathlib import Path

import pytest
import rules
from rules import ROOT, Source

SOURCES = rules.python_sources()

# Machines whose table of events is their subject; each is one line away from being cut again.
LONGER_FILES: dict[str, int] = {}
TEST_LINES_MAX = 600


def source(path: str, text: str) -> Source:
    return Source(path, text)


def test_sources_are_found() -> None:
    assert {"cosine/core/tree.py", "tests/style/rules.py"} <= {source.path for source in SOURCES}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cosine/core/tree.py", "from cosine.rpc.server import Server"),
        ("cosine/rpc/server.py", "def late():\n    import cosine.peer.links"),
        ("cosine/engine/toy.py", "from cosine.store.registry import Registry"),
        ("cosine/client/client.py", "from cosine.peer import links"),
        ("services/fusion/service.py", "from services.scheduler.convert import plan"),
        ("cosine/cli/demo.py", "from services.gateway import settings"),
        ("cosine/core/plan.py", "from cosine import rpc"),
    ],
)
def test_an_import_from_above_or_from_a_neighbour_is_found(path: str, text: str) -> None:
    assert rules.upward_imports(source(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cosine/core/tree.py", "from cosine.core.errors import BadRequest"),
        ("cosine/engine/toy.py", "from cosine.text.tokenizer import fingerprint"),
        ("services/fusion/service.py", "from services.fusion.convert import plan\nimport cosine.rpc.server"),
    ],
)
def test_an_import_from_below_or_from_the_own_package_is_fine(path: str, text: str) -> None:
    assert not rules.upward_imports(source(path, text))


def test_imports_run_downward_only() -> None:
    assert not [line for source in SOURCES for line in rules.upward_imports(source)]


def test_a_package_without_a_floor_is_found() -> None:
    assert rules.unknown_packages([source("cosine/cellar/wine.py", "")]) == ["cosine.cellar has no floor"]


def test_every_package_has_its_floor() -> None:
    assert not rules.unknown_packages(SOURCES)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cosine/rpc/server.py", "import torch"),
        ("services/verifier/service.py", "from transformers import AutoModel"),
        ("cosine/core/tree.py", "import grpc"),
        ("cosine/engine/toy.py", "import grpc.aio"),
        ("services/gateway/relay.py", "import redis.asyncio"),
        ("cosine/core/timing.py", "import time"),
        ("cosine/core/noise.py", "from random import random"),
        ("cosine/core/noise.py", "import scipy"),
    ],
)
def test_a_foreign_package_outside_its_home_is_found(path: str, text: str) -> None:
    assert rules.foreign_imports(source(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cosine/engine/hf/slots.py", "import torch"),
        ("cosine/core/tree.py", "import heapq\nimport numpy.typing\nfrom cosine.core.errors import Full"),
        ("services/gateway/relay.py", "import grpc"),
        ("testbed/training.py", "import torch"),
    ],
)
def test_a_foreign_package_at_home_is_fine(path: str, text: str) -> None:
    assert not rules.foreign_imports(source(path, text))


def test_foreign_packages_stay_at_home_and_the_core_touches_no_world() -> None:
    assert not [line for source in SOURCES for line in rules.foreign_imports(source)]


def test_a_function_that_does_not_fit_a_screen_is_found() -> None:
    body = "    pass\n" * 60
    assert rules.long_functions(source("a.py", f"async def f():\n{body}"))
    assert not rules.long_functions(source("a.py", f"def f():\n{body[9:]}"))


def test_every_function_fits_a_screen() -> None:
    assert not [line for source in SOURCES for line in rules.long_functions(source)]


def test_a_file_of_more_than_one_subject_is_found() -> None:
    assert rules.long_file(source("a.py", "\n" * 401))
    assert not rules.long_file(source("a.py", "\n" * 400))


def test_every_file_has_one_subject() -> None:
    assert not [line for source in SOURCES for line in rules.long_file(source, _lines_max(source.path))]


def _lines_max(path: str) -> int:
    return LONGER_FILES.get(path, TEST_LINES_MAX if path.startswith("tests/") else rules.FILE_LINES_MAX)


def test_a_longer_file_that_has_become_short_loses_its_exception() -> None:
    assert not [source.path for source in SOURCES if source.path in LONGER_FILES and not rules.long_file(source)]


def test_a_module_without_docstring_is_found() -> None:
    assert rules.missing_docstring(source("a.py", "import ast"))
    assert not rules.missing_docstring(source("a.py", '"""Says it."""'))


def test_every_module_says_what_it_does() -> None:
    assert not [line for source in SOURCES for line in rules.missing_docstring(source)]


@pytest.mark.parametrize("path", ["cosine/utils.py", "cosine/rpc/stream_helpers.py", "common/a.py", "a/manager.yaml"])
def test_a_name_that_says_nothing_is_found(path: str) -> None:
    assert rules.banned_name(path)


def test_every_file_is_named_after_what_it_does() -> None:
    paths = [path.relative_to(ROOT).as_posix() for path in rules.listed_files()]
    assert not [line for path in paths for line in rules.banned_name(path)]


def test_test_modules_of_one_name_are_found() -> None:
    assert rules.clashing_names(["tests/a/peers.py", "tests/b/peers.py"]) == ["tests/a/peers.py and tests/b/peers.py"]
    assert not rules.clashing_names(["tests/a/conftest.py", "tests/b/conftest.py", "cosine/a/x.py", "tests/b/x.py"])


def test_no_two_test_modules_share_a_name() -> None:
    assert not rules.clashing_names(source.path for source in SOURCES)


@pytest.mark.parametrize("text", ["see /{}ork/main/a.py", "cd /{}oot/x", "ask {}elper-3", "fixes {}ssue #12"])
def test_a_trace_of_one_machine_or_one_way_of_working_is_found(text: str) -> None:
    assert any(rules.forbidden_text("a.md", text.format(letter)) for letter in "wrhi")


def test_a_path_inside_the_repository_is_no_trace() -> None:
    assert not rules.forbidden_text("a.md", "`artwork/main.svg`, $HOME/root/x and a networked/root/file")


def test_no_text_carries_a_trace_of_one_machine_or_one_way_of_working() -> None:
    found = []
    for path in rules.listed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += rules.forbidden_text(path.relative_to(ROOT).as_posix(), text)
    assert not found


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `title`, and more\n```sh\n# no heading\n```\n")
    good = "[a](page.md) [b](page.md#a-title-and-more) [c](#a-title-and-more) [d](https://example.org/x#y)"
    assert not rules.dead_links("page.md", good, tmp_path)
    for bad in ("[a](other.md)", "[b](page.md#title)", "[c](#no-heading)"):
        assert len(rules.dead_links("page.md", bad, tmp_path)) == 1


def test_every_link_between_pages_leads_somewhere() -> None:
    dead: list[str] = []
    for path in rules.listed_files():
        if path.suffix == ".md":
            dead += rules.dead_links(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    assert not dead
