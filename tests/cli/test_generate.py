"""`cosine generate` and `cosine peers` against a running mesh: text, figures, and one clear line for every mistake."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from process_table import PROJECT_ROOT, Up, environment

from cosine.cli.__main__ import main


def generate(up: Up, *words: str) -> int:
    return main(["generate", "--address", up.address, *words])


def test_text_streams_to_standard_output(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(up, "hello", "--max-new-tokens", "12", "--stats") == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("\n")
    assert len(shown.out) > 1
    assert "12 tokens in" in shown.err
    assert "ended by length" in shown.err


def test_json_holds_text_tokens_and_figures(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    sampling = [
        "--temperature=0.8",
        "--seed=7",
        "--top-k=50",
        "--top-p=0.9",
        "--min-p=0.01",
        "--repetition-penalty=1.1",
    ]
    assert generate(up, "hello", "--max-new-tokens=10", *sampling, "--logprobs=2", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["token_ids"]) == len(shown["logprobs"]) == 10
    assert shown["finish_reason"] == "length"
    assert shown["usage"] == {"prompt_token_count": 5, "output_token_count": 10}
    assert shown["seed"] == 7
    assert shown["speculation"]["acceptance_length"] >= 1


def test_every_strategy_writes_the_same_text(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    texts = set()
    for strategy in ("plain", "vanilla", "specinfer", "cosine"):
        assert (
            generate(up, "hello", "--max-new-tokens=16", "--temperature=1", "--seed=3", f"--strategy={strategy}") == 0
        )
        texts.add(capsys.readouterr().out)
    assert len(texts) == 1


def test_a_prompt_comes_from_standard_input(
    up: Up, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate(up, "hello", "--max-new-tokens=8") == 0
    direct = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello"))
    assert generate(up, "-", "--max-new-tokens=8") == 0
    assert capsys.readouterr().out == direct


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x", "--strategy=nope"], "UNKNOWN_STRATEGY"),
        (["x", "--temperature=hot"], "USAGE: argument --temperature"),
        (["x", "--temperature=-1"], "PARAMETER_OUT_OF_RANGE: temperature"),
        (["x", "--top-k=-1"], "BAD_OPTION: top_k is -1; it must be a whole number from 0"),
        (["x", "--top-k=0"], "PARAMETER_OUT_OF_RANGE: top_k is 0; it must be 1 or more, or absent"),
        (["x", "--seed=-1"], "BAD_OPTION: seed is -1; it must be a whole number from 0 to 18446744073709551615"),
        (["x", "--timeout=0"], "BAD_OPTION: timeout is 0.0; it must be a number of seconds above 0"),
        (["x", "--max-new-tokens=100000"], "max_new_tokens"),
        (["x", "--logprobs=2"], "USAGE: --logprobs"),
        ([], "USAGE: the following arguments are required: prompt"),
    ],
)
def test_wrong_input_is_one_line_and_status_two(
    up: Up, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(up, *words) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_without_a_mesh_it_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "x", "--address", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("NO_GATEWAY: no gateway answers at 127.0.0.1:1; start a mesh")


def test_peers_are_listed_as_a_table_and_as_json(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peers", "--address", up.address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["role", "peer", "model", "address", "state", "load", "pass_ms", "learned_ms"]
    assert [line.split()[1] for line in lines[1:]] == ["far", "near", "fusion", "gateway", "scheduler", "verifier"]
    assert main(["peers", "--address", up.address, "--json"]) == 0
    peers = json.loads(capsys.readouterr().out)
    started = {peer["peer_id"]: peer["address"] for peer in up.ready["peers"] if peer["role"] != "store"}
    assert {peer["peer_id"]: peer["address"] for peer in peers} == started


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
@pytest.mark.parametrize(
    "words", [["generate", "hello", "--max-new-tokens=4"], ["peers"], ["peers", "--json"]], ids=str
)
def test_an_output_that_cannot_be_written_is_one_line_and_status_one(
    up: Up, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main([*words, "--address", up.address]) == 1
    assert capsys.readouterr().err == (
        "OS_ERROR: [Errno 28] No space left on device; if that is the output, send it elsewhere\n"
    )


@pytest.mark.parametrize("command", [["generate", "x"], ["peers"]], ids=" ".join)
@pytest.mark.parametrize("address", ["", "gateway", "gateway:443x"])
def test_an_address_without_host_or_port_is_one_line_before_anything_is_dialled(
    command: list[str], address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--address", address]) == 2
    assert capfd.readouterr().err == f"ADDRESS: {address!r} is not HOST:PORT, for example 127.0.0.1:50050\n"


def test_up_announces_every_peer_and_the_ready_file_names_them(up: Up) -> None:
    ready = {line.split()[1] for line in up.lines if " ready at " in line}
    assert ready == {"store", "gateway", "scheduler", "fusion", "near", "far", "verifier"}
    assert {peer["peer_id"] for peer in up.ready["peers"]} == ready
    assert up.ready["pid"] == up.process.pid


def test_up_on_an_occupied_port_is_one_line_and_status_two(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--target", "toy", "--gateway", up.address]) == 2
    assert capsys.readouterr().err.startswith(f"ADDRESS_IN_USE: the gateway cannot listen on {up.address}")


def test_a_mesh_that_runs_already_on_a_redis_is_not_started_twice(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--target", "toy", "--gateway", "127.0.0.1:0", "--redis", up.ready["redis"]]) == 2
    assert capsys.readouterr().err.startswith("MESH_RUNS: mesh 'mesh' has a fusion 'fusion' at")


@pytest.mark.parametrize("words", [["nope"], ["up", "--drafter", "code"], ["up", "--mesh-file", "absent.yaml"]])
def test_a_wrong_command_line_is_one_line_and_status_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_names_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert all(name in capsys.readouterr().out or name for name in ("up", "generate", "peers"))


def test_generate_imports_only_what_it_needs() -> None:
    heavy = "{'torch', 'transformers', 'pydantic', 'tokenizers', 'redis', 'rich', 'yaml'}"
    program = (
        f"import sys, cosine.cli.__main__, cosine.cli.generate; sys.exit(sorted({heavy} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
