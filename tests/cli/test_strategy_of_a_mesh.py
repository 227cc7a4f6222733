"""A strategy that a mesh cannot follow is refused before anything is started, from a flag as from a mesh file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cosine.cli.__main__ import main
from cosine.cli.checks import check_strategy
from cosine.cli.meshfile import MeshSpec
from cosine.core.strategy import PRESETS

TOY = "toy:seed=1"
DRAFTERS = {"code": f"{TOY},own=2", "math": f"{TOY},own=3"}

REFUSED = {
    "magic": "there is no strategy 'magic'",
    "cosine:colour=red": "there is no knob 'colour'",
    "cosine:choice=best": "none, first, all, routed, bandit",
    "cosine:depth=99": "0 to 64",
    "vanilla:verifiers=2": "at least as many runs",
    "cosine:cut=largest,length=fixed": "give both or neither",
    "dsi": "TOO_FEW_VERIFIERS: strategy 'dsi' needs 2 verifiers",
    "pipeinfer:verifiers=3": "needs 3 verifiers for one request and the mesh has 1",
    "cosine:drafter_count=3": "TOO_FEW_DRAFTERS: ",
    "cosine:first_count=5": "needs 5 drafters for one request and the mesh has 2",
    "vanilla:drafter=cod": "UNKNOWN_DRAFTER: strategy 'vanilla:drafter=cod' takes drafter 'cod'",
}


@pytest.mark.parametrize("strategy", REFUSED)
@pytest.mark.parametrize("from_file", [False, True])
def test_it_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: str, from_file: bool
) -> None:
    path = tmp_path / "mesh.yaml"
    drafters = "".join(f'  {name}: "{source}"\n' for name, source in DRAFTERS.items())
    path.write_text(f'target: "{TOY}"\ndrafters:\n{drafters}' + from_file * f'strategy: "{strategy}"\n')
    words = [] if from_file else ["--strategy", strategy]
    assert main(["up", "--mesh-file", str(path), "--gateway", "127.0.0.1:0", *words]) == 2
    printed = capsys.readouterr()
    assert REFUSED[strategy] in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("strategy", [*PRESETS, "vanilla:drafter=code", "cosine:drafter_count=2,first_count=2"])
def test_what_the_mesh_can_follow_is_accepted(strategy: str) -> None:
    check_strategy(MeshSpec(target=TOY, drafters=DRAFTERS, strategy=strategy, verifiers=2))


@pytest.mark.parametrize(
    ("drafters", "strategy"),
    [
        ({}, "cosine"),
        ({}, "plain"),
        ({"a": TOY}, "specinfer"),
        ({"a": TOY}, f"vanilla:drafter={TOY}"),
    ],
)
def test_a_preset_takes_as_many_drafters_as_there_are(drafters: dict[str, Any], strategy: str) -> None:
    check_strategy(MeshSpec(target=TOY, drafters=drafters, strategy=strategy))
