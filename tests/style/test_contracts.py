"""The wire's contracts are commented, stable and generated; the SDK stays light."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rules import ROOT

BUF = Path(sys.executable).with_name("buf")
HEAVY = ("torch", "transformers", "redis", "pydantic", "pydantic_settings", "structlog", "kubernetes")


def buf(*arguments: str | Path) -> str:
    """What buf complains of."""
    done = subprocess.run([BUF, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the contracts to spoil."""
    return Path(shutil.copytree(ROOT / "protos", tmp_path / "protos"))


def spoil(protos: Path, old: str, new: str) -> None:
    path = protos / "cosine/v1/types.proto"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_every_element_of_the_wire_is_commented_and_named_by_the_rules() -> None:
    assert not buf("lint", "protos")


def test_an_uncommented_element_would_be_found(protos: Path) -> None:
    (protos / "cosine/v1/bare.proto").write_text('syntax = "proto3";\npackage cosine.v1;\nmessage Bare {}\n')
    assert "comment" in buf("lint", protos)


def test_the_wire_keeps_what_it_promised() -> None:
    assert not buf("breaking", "protos", "--against", "protos/baseline.binpb")


def test_a_broken_promise_would_be_found(protos: Path) -> None:
    spoil(protos, "\nmessage ", "\nmessage Other")
    assert buf("breaking", protos, "--against", "protos/baseline.binpb")


def test_the_generated_code_is_fresh() -> None:
    command = [sys.executable, ROOT / "scripts/generate_protos.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def loaded_by(statement: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_heavy_import_would_be_found() -> None:
    assert "pydantic" in loaded_by("import pydantic")


def test_the_sdk_brings_no_torch_no_redis_and_no_settings() -> None:
    assert not loaded_by("import cosine; cosine.Client")


def test_the_core_brings_nothing_but_numpy() -> None:
    assert not loaded_by("import cosine.core.scheduler, cosine.core.fusion, cosine.core.intake")
