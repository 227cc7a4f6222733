"""`cosine up` before and after it runs: what cannot work is one line, and nothing is left that is not true."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cosine.cli import checks
from cosine.cli.__main__ import main
from cosine.cli.checks import check_engine, check_models, check_redis
from cosine.cli.keeper import Peer
from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.cli.up import Reporter
from cosine.core.errors import BadRequest, Mismatch, Unavailable

TOY = ("up", "--target=toy", "--gateway=127.0.0.1:0")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which `cosine up` ends, before any process was started."""
    assert main([*TOY, *words]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1, shown.err
    assert shown.out == ""
    return shown.err


@pytest.mark.parametrize("device", ["foo", "cuda:", "cuda:x", "CPU", ""])
def test_a_device_of_no_known_name_is_refused_before_the_start(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused([f"--device={device}"], capsys).startswith(f"DEVICE: --device {device!r} is no device; take auto")


def test_a_drafter_device_of_no_known_name_is_refused_before_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["--drafter-device=gpu"], capsys).startswith("DEVICE: --drafter-device 'gpu' is no device")


def test_a_ready_file_that_is_a_folder_is_refused_before_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused([f"--ready-file={tmp_path}"], capsys) == (
        f"USAGE: --ready-file: {tmp_path} is a folder; name a file\n"
    )


@pytest.mark.parametrize("folder", ["/proc", "/absent"])
def test_a_ready_file_that_cannot_be_written_is_refused_before_the_start(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused([f"--ready-file={folder}/ready.json"], capsys).startswith("USAGE: --ready-file: ")


def test_logs_that_cannot_be_written_are_refused_before_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "logs", Path("/proc")):
        said = refused([f"--log-dir={folder}"], capsys)
        assert said.startswith(f"LOG_DIR: logs cannot be written into {folder} (")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("cosine.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert main(["up"]) == 2
    assert capsys.readouterr().err == (
        "EXTRA_MISSING: `cosine up` needs pydantic, which this Python lacks; pip install 'cosine-mesh[mesh,engine]' "
        "(without extras, cosine-mesh is the client alone)\n"
    )


def test_our_own_missing_module_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cosine.cli.peers", raising=False)
    monkeypatch.setitem(sys.modules, "cosine.cli.address", None)
    with pytest.raises(ModuleNotFoundError):
        main(["peers"])


def test_models_need_the_engine_and_toys_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    check_engine(MeshSpec(target="toy", drafters={"a": "toy:seed=2"}))
    with pytest.raises(Mismatch, match=r"need torch, .*cosine-mesh\[mesh,engine\]"):
        check_engine(MeshSpec(target="toy", drafters={"a": "folder"}))


def test_a_model_that_only_the_hub_may_have_is_announced_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def hub(source: str) -> Any:
        assert said == [f"target: there is no folder {source!r}; asking the Hugging Face hub, which may take a while"]
        raise Unavailable("HUB_UNREACHABLE", "the hub does not answer")

    monkeypatch.setattr(checks, "load_tokenizer", hub)
    with pytest.raises(Unavailable, match="target: the hub does not answer"):
        check_models(MeshSpec(target="nobody/nothing"), said.append)


async def test_a_redis_that_is_not_there_is_no_matter_of_running_requests() -> None:
    with pytest.raises(Unavailable) as caught:
        await check_redis(MeshSpec(target="toy", redis="redis://127.0.0.1:1"))
    assert "no Redis answers at redis://127.0.0.1:1; check --redis" in caught.value.message
    assert "running requests" not in caught.value.message


def test_a_stale_ready_file_is_gone_before_a_mesh_that_never_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready_file, mesh_file = tmp_path / "ready.json", tmp_path / "mesh.yaml"
    ready_file.write_text("{}")
    mesh_file.write_text("options: {verifier: {pace: fast}}\n")
    assert main([*TOY, f"--ready-file={ready_file}", f"--mesh-file={mesh_file}", f"--log-dir={tmp_path}"]) == 2
    assert "pace 'fast'" in capsys.readouterr().err
    assert not ready_file.exists()


def test_a_ready_file_of_a_mesh_that_runs_stays_where_a_second_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready_file = tmp_path / "ready.json"
    ready_file.write_text("{}")
    assert refused([f"--ready-file={ready_file}", "--pace=fast"], capsys).startswith("PACE")
    assert ready_file.exists()


class Running(Mesh):
    """A mesh of one peer that serves."""

    peers = [Peer("gateway", "gateway", "gateway.log", "serving", "127.0.0.1:1", 7)]  # noqa: RUF012

    def peer(self, peer_id: str) -> Peer:
        return self.peers[0]


def test_a_ready_file_that_cannot_be_written_is_logged_and_written_when_it_can_be_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mesh, ready_file = Running(MeshSpec(target="toy"), tmp_path), tmp_path / "run" / "ready.json"
    reporter = Reporter(mesh, ready_file)
    reporter.all_ready()
    reporter.note(mesh.peers[0])
    assert [line.partition(":")[0] for line in caplog.messages] == ["the ready file cannot be kept true"] * 2
    ready_file.parent.mkdir()
    reporter.note(mesh.peers[0])
    assert [peer["pid"] for peer in json.loads(ready_file.read_text())["peers"]] == [7]
    tmp_path.joinpath("run").rename(tmp_path / "gone")
    tmp_path.joinpath("run").touch()
    reporter.close()
    assert len(caplog.messages) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_standard_output_that_cannot_be_written_is_logged_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = Running(MeshSpec(target="toy"), tmp_path)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        reporter = Reporter(mesh, None)
        reporter.note(mesh.peers[0])
        reporter.all_ready()
    (said,) = caplog.messages
    assert said.startswith("standard output cannot be written, nothing more is said there: ")


async def test_the_temporary_log_folder_of_a_mesh_that_cannot_start_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    wrong = Mesh(MeshSpec(target="toy", gateway="127.0.0.1:0", options={"verifier": {"pace": "fast"}}))
    with pytest.raises(BadRequest):
        await wrong.__aenter__()
    assert (wrong.log_dir / "verifier.log").exists()


async def test_the_temporary_log_folder_of_a_start_that_is_interrupted_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begun = asyncio.Event()
    mesh = Mesh(MeshSpec(target="toy", gateway="127.0.0.1:0"), on_change=lambda _: begun.set())
    start = asyncio.create_task(mesh.__aenter__())
    await begun.wait()
    assert mesh.log_dir.exists()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not mesh.log_dir.exists()
