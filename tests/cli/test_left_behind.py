"""What a mesh leaves behind when it is interrupted, and what becomes of a peer whose log cannot be written."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from process_table import DEADLINE_S, Up, Watch

from cosine.cli import supervisor
from cosine.cli.keeper import Keeper, Peer
from cosine.cli.meshfile import MeshSpec
from cosine.cli.roster import STORE, Plan, environment
from cosine.cli.supervisor import Mesh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="handles of processes and /dev/full are Linux's")

MUTE = "import threading; threading.Event().wait()"
TALKS = """import json
print("hello", flush=True)
print(json.dumps({"ready": {"address": "127.0.0.1:4321"}}), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the mesh and its peers."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    return place


@pytest.fixture
def booting(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    """A mesh with a store, whose only other peer never serves."""
    (tmp_path / "mute.py").write_text(MUTE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(supervisor, "roster", lambda _: [Plan("gateway", "gateway", "mute", "127.0.0.1:0")])
    return Mesh(MeshSpec(target="toy", gateway="127.0.0.1:0"))


def names(place: Path) -> list[str]:
    """What is in a folder."""
    return os.listdir(place)


def store_serves(mesh: Mesh) -> bool:
    return any(peer.role == STORE.role and peer.is_serving for peer in mesh.peers)


async def test_the_store_of_a_start_that_is_interrupted_tidies_up_before_it_ends(booting: Mesh, folder: Path) -> None:
    left: list[list[Path]] = []

    def note(peer: Peer) -> None:
        if (peer.role, peer.state) == (STORE.role, "stopped"):
            left.append(list(folder.glob("cosine-store-*/*")))

    booting.on_change = note
    start = asyncio.create_task(booting.__aenter__())
    await booting.wait_for(store_serves)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert left == [[]]
    assert names(folder) == []


async def test_the_folder_of_a_store_that_was_killed_goes_with_the_mesh(booting: Mesh, folder: Path) -> None:
    start = asyncio.create_task(booting.__aenter__())
    await booting.wait_for(store_serves)
    booting.kill("store")
    await booting.restarted("store")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert names(folder) == []


async def test_a_start_that_fails_leaves_its_logs_and_no_other_folder(
    booting: Mesh, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "mute.py").write_text("import sys; sys.exit(2)")
    with pytest.raises(Exception, match="ended with status 2"):
        await booting.__aenter__()
    assert names(folder) == [booting.log_dir.name]
    assert (booting.log_dir / "gateway.log").exists()


def test_a_second_signal_ends_a_mesh_that_drains_and_leaves_nothing(tmp_path: Path) -> None:
    up = Up(tmp_path, flags=["--grace-s=300"], names_log_dir=False)
    pids = {peer["role"]: peer["pid"] for peer in up.ready["peers"]}
    os.kill(pids["scheduler"], signal.SIGSTOP)  # it will not drain
    with Watch(up.pids) as everything, Watch([pids["gateway"]]) as first:
        up.process.send_signal(signal.SIGINT)
        assert first.left() == []  # so the signal was heard
        up.process.send_signal(signal.SIGINT)
        assert everything.left() == []
    up.process.communicate(timeout=DEADLINE_S)
    assert up.process.returncode == 130
    assert names(tmp_path) == []


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the keeper has logged; asyncio may add that a process had ended when it was told to."""
    return [record.getMessage() for record in caplog.records if record.name == Keeper.__module__]


def keeper_of(tmp_path: Path, lives: int) -> tuple[Keeper, list[Peer]]:
    """A keeper that stops when its peer serves in its last life, and what it tells."""
    (tmp_path / "actor.py").write_text(TALKS)
    variables = environment(1, "") | {"PYTHONPATH": str(tmp_path)}
    seen: list[Peer] = []

    def note(peer: Peer) -> None:
        seen.append(peer)
        if peer.is_serving and peer.restart_count == lives - 1:
            keeper.stop()

    keeper = Keeper(Plan("drafter", "x", "actor", "127.0.0.1:0"), variables, tmp_path / "logs", note)
    return keeper, seen


async def test_a_peer_serves_though_a_line_cannot_be_written_to_its_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "drafter-x.log").symlink_to("/dev/full")
    keeper, seen = keeper_of(tmp_path, lives=1)
    await keeper.run()
    assert [peer.state for peer in seen] == ["starting", "serving", "stopped"]
    assert logged(caplog) == ["a line of x is lost: [Errno 28] No space left on device"]


async def test_a_peer_serves_again_though_the_folder_of_its_log_has_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, seen = keeper_of(tmp_path, lives=2)
    await keeper.run()
    assert [peer.state for peer in seen] == ["starting", "serving", "down", "starting", "serving", "stopped"]
    assert [line.partition(":")[0] for line in logged(caplog)] == ["what x writes is lost"] * 2
