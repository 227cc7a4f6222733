"""Mesh files and flags: what they may say, and that what cannot work is refused in one clear line before the start."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from cosine.cli import roster as rosters
from cosine.cli.checks import check, check_free, check_models, check_redis
from cosine.cli.meshfile import MeshSpec, parse_drafters, read_spec, read_testbed
from cosine.cli.roster import environment, roster
from cosine.core.errors import BadRequest, MeshError, Mismatch, NotFound, Unavailable

TOY = "toy:seed=1"


def written(folder: Path, text: str) -> Path:
    path = folder / "mesh.yaml"
    path.write_text(text)
    return path


def model_folder(folder: Path, words: list[str]) -> str:
    """A folder that looks like a model as far as anyone looks before the start."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    vocabulary = {word: index for index, word in enumerate(words)}
    Tokenizer(models.WordLevel(vocabulary, unk_token=words[0])).save(str(folder / "tokenizer.json"))
    return str(folder)


def test_a_file_and_flags_make_one_mesh_and_flags_win(tmp_path: Path) -> None:
    path = written(tmp_path, f"target: {TOY}\ndrafters: {{code: {TOY}}}\nstrategy: plain\nverifiers: 2\n")
    spec = read_spec(path, {"strategy": "specinfer", "sessions": "8"})
    assert (spec.strategy, spec.verifiers, spec.sessions) == ("specinfer", 2, 8)
    assert spec.drafters == {"code": TOY}


def test_the_redis_of_the_environment_counts_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSINE_REDIS_URL", "redis://env")
    assert read_spec(None, {"target": TOY}).redis == "redis://env"
    assert read_spec(written(tmp_path, f"target: {TOY}\nredis: redis://file\n"), {}).redis == "redis://file"


def test_models_beside_the_file_are_found(tmp_path: Path) -> None:
    model_folder(tmp_path / "big", ["a", "b"])
    assert read_spec(written(tmp_path, "target: big\n"), {}).target == str(tmp_path / "big")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("target: toy\ndrafer: {a: toy}\n", ["UNKNOWN_KEY", "mesh.yaml: drafer", "drafters"]),
        ("target: toy\nsessions: 257\n", ["mesh.yaml: sessions", "256"]),
        ("target: toy\noptions: {router: {x: 1}}\n", ["mesh.yaml: options.router"]),
        (
            "target: toy\noptions: {gateway: {waitng_max: 8}}\n",
            ["mesh.yaml: options: gateway.waitng_max", "waiting_max"],
        ),
        (
            "target: toy\noptions: {fusion: {help: true}}\n",
            ["mesh.yaml: options: fusion.help", "of a fusion", "listen"],
        ),
        (
            "target: toy\ndrafters: {a: toy}\npeer_options: {a: {pase: 5}}\n",
            ["mesh.yaml: peer_options: a.pase is no flag of a drafter", "pace"],
        ),
        ("target: toy\nverifiers: 0\n", ["mesh.yaml: verifiers", "greater than or equal to 1"]),
        ("target: toy\nstrategy: nope\n", ["mesh.yaml: strategy", "nope", "cosine"]),
        ("target: toy\ndtype: int4\n", ["mesh.yaml: dtype", "bfloat16"]),
        ("target: toy\ngateway: 50050\n", ["mesh.yaml: gateway"]),
        ("target: toy\ngateway: '127.0.0.1:\u00b2'\n", ["mesh.yaml: gateway", "'127.0.0.1:\u00b2' is not HOST:PORT"]),
        ("target: toy\ngateway: '127.0.0.1:65536'\n", ["mesh.yaml: gateway", "'127.0.0.1:65536' is not HOST:PORT"]),
        ("target: toy\ndrafters: {a: toy, a: toy}\n", ["mesh.yaml", "'a' comes twice", "line 2"]),
        ("target: toy\ndrafters: {gateway: toy}\n", ["mesh.yaml: drafters", "'gateway' cannot name a drafter"]),
        ("drafters: {a: toy}\n", ["NO_TARGET", "--target"]),
        ("- target\n", ["mesh.yaml", "mapping"]),
        ("target: [\n", ["mesh.yaml", "line"]),
    ],
)
def test_a_wrong_file_is_refused_naming_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        read_spec(written(tmp_path, text), {})
    line = f"{caught.value.reason}: {caught.value.message}"
    assert all(word in line for word in words), line
    assert "\n" not in line


def test_a_wrong_flag_is_named_as_a_flag(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"--drafter-threads: .*integer"):
        read_spec(None, {"target": TOY, "drafter_threads": "two"})


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"mesh\.yaml"):
        read_spec(tmp_path / "mesh.yaml", {})


@pytest.mark.parametrize(
    ("pairs", "words"), [(["code"], "NAME=MODEL"), (["=toy"], "NAME=MODEL"), (["a=toy", "a=toy:seed=2"], "named 'a'")]
)
def test_wrong_drafter_flags_are_refused(pairs: list[str], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        parse_drafters(pairs)


def test_without_a_target_the_test_bed_runs(tmp_path: Path) -> None:
    for name in ("target", "drafter-code", "drafter-math"):
        model_folder(tmp_path / name, ["a", "b"])
    found = read_testbed(tmp_path)
    assert found["target"] == str(tmp_path / "target")
    assert list(found["drafters"]) == ["code", "math"]


def test_a_missing_test_bed_says_how_to_name_models(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--target and --drafter"):
        read_testbed(tmp_path)


def test_a_drafter_with_other_tokens_is_refused_naming_both_fingerprints(tmp_path: Path) -> None:
    target, drafter = model_folder(tmp_path / "t", ["a", "b"]), model_folder(tmp_path / "d", ["a", "c"])
    with pytest.raises(Mismatch) as caught:
        check_models(MeshSpec(target=target, drafters={"odd": drafter}))
    fingerprints = (caught.value.details["target"][:16], caught.value.details["drafter"][:16])
    assert fingerprints[0] != fingerprints[1]
    assert all(word in caught.value.message for word in ("'odd'", *fingerprints))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"target": "./absent"}, "target: there is no folder './absent'"),
        ({"target": TOY, "drafters": {"a": "testbed/absent"}}, "drafter 'a': there is no folder"),
        ({"target": "testbed"}, "target: folder 'testbed' holds no config.json"),
        ({"target": "toy:sed=1"}, "target: .*seed"),
    ],
)
def test_a_model_that_is_not_there_is_refused_at_once(
    spec: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(MeshError, match=words):
        check_models(MeshSpec(**spec))


def test_an_occupied_gateway_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BadRequest, match=f"cannot listen on {address}.*--gateway"):
            check_free(address)
    check_free(address)


async def test_a_redis_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(Unavailable) as caught:
        await check_redis(MeshSpec(target=TOY, redis="redis://:secret@127.0.0.1:1"))
    assert "127.0.0.1:1" in caught.value.message
    assert "secret" not in caught.value.message


async def test_a_wrong_pace_is_refused_before_anything_starts() -> None:
    with pytest.raises(BadRequest, match="fast"):
        await check(MeshSpec(target=TOY, pace="fast", gateway="127.0.0.1:0"))


def test_every_peer_gets_its_flags() -> None:
    spec = MeshSpec(target=TOY, drafters={"a": f"{TOY},own=2"}, verifiers=2, options={"gateway": {"waiting_max": 8}})
    plans = {plan.peer_id: plan for plan in roster(spec)}
    assert list(plans) == ["gateway", "scheduler", "fusion", "a", "verifier", "verifier-2"]
    assert {"--waiting-max=8", "--default-strategy=cosine"} <= set(plans["gateway"].arguments)
    assert f"--model={TOY},own=2" in plans["a"].arguments
    assert "127.0.0.1:0" in plans["a"].order("", {}).arguments
    assert "127.0.0.1:7" in plans["a"].order("127.0.0.1:7", {}).arguments  # a restarted peer keeps its port


def test_drafters_may_sit_on_the_cpu_beside_a_target_on_a_gpu() -> None:
    spec = MeshSpec(target="big", drafters={"a": "small"}, device="cuda:1", drafter_device="cpu")
    plans = {plan.peer_id: plan.arguments for plan in roster(spec)}
    assert {"--device=cuda:1", "--dtype=auto"} <= set(plans["verifier"])
    assert {"--device=cpu", "--dtype=auto"} <= set(plans["a"])


@pytest.mark.parametrize("has_driver", [False, True])
def test_which_device_there_is_and_what_it_computes_in_is_left_to_the_peers(
    has_driver: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver's file is no GPU that answers, and no torch that could use one."""
    spec = MeshSpec(target="big", drafters={"a": "small"})
    monkeypatch.setattr(Path, "exists", lambda _: has_driver)
    plans = {plan.peer_id: plan.arguments for plan in roster(spec)}
    for peer in ("verifier", "a"):
        assert {"--device=auto", "--dtype=auto"} <= set(plans[peer])


def test_a_switch_is_turned_on_or_off_as_services_want_it() -> None:
    spec = MeshSpec(target=TOY, drafters={"a": TOY, "b": TOY}, options={"drafter": {"run_ahead": True}})
    off = spec.model_copy(update={"peer_options": {"b": {"run_ahead": False}}})
    arguments = {plan.peer_id: plan.arguments for plan in roster(off)}
    assert "--run-ahead" in arguments["a"]
    assert "--no-run-ahead" in arguments["b"]


def test_threads_are_explicit_and_foreign_settings_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSINE_LISTEN", "0.0.0.0:1")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    variables = environment(3, "redis://:secret@host")
    assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "3"
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"
    assert variables["TOKENIZERS_PARALLELISM"] == "false"
    assert variables["COSINE_REDIS_URL"] == "redis://:secret@host"
    assert "COSINE_LISTEN" not in variables


def test_threads_are_shared_among_the_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert rosters.verifier_threads(MeshSpec(target="model", verifiers=2)) == 4
    assert rosters.verifier_threads(MeshSpec(target="model", threads=3)) == 3
    assert rosters.verifier_threads(MeshSpec(target=TOY)) == 1


def test_a_spec_survives_its_own_json() -> None:
    spec = MeshSpec(target=TOY, drafters={"a": TOY})
    assert MeshSpec(**json.loads(spec.model_dump_json())) == spec
