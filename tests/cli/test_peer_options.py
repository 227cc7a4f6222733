"""Options of single peers: they reach that peer alone, win over its role's, and name no stranger."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosine.cli.meshfile import MeshSpec, read_spec
from cosine.cli.roster import roster
from cosine.core.errors import BadRequest

TOY = "toy:seed=1"


def test_options_of_a_peer_win_over_those_of_its_role() -> None:
    spec = MeshSpec(
        target=TOY,
        drafters={"a": f"{TOY},own=2", "b": f"{TOY},own=3"},
        verifiers=2,
        drafter_pace="5",
        options={"drafter": {"link": "1"}},
        peer_options={"b": {"pace": "7,0.5", "link": "2"}, "verifier-2": {"pace": "40"}},
    )
    plans = {plan.peer_id: set(plan.arguments) for plan in roster(spec)}
    assert {"--pace=5", "--link=1"} <= plans["a"]
    assert {"--pace=7,0.5", "--link=2"} <= plans["b"]
    assert "--pace=40" in plans["verifier-2"]
    assert not any(argument.startswith("--pace") for argument in plans["verifier"])


@pytest.mark.parametrize("name", ["c", "verifier-0", "store"])
def test_options_of_a_stranger_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(f"target: {TOY}\ndrafters: {{a: {TOY}}}\npeer_options: {{{name}: {{pace: 1}}}}\n")
    with pytest.raises(BadRequest) as refused:
        read_spec(path, {})
    assert f"{path}: peer_options" in refused.value.message
    assert name in refused.value.message
