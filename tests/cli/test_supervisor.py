"""The supervisor: peers come back where they were, bad input ends the start with its message, nothing outlives it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from process_table import DRAFTERS, TARGET, Up, Watch, alive

from cosine.cli.keeper import Keeper, Peer
from cosine.cli.meshfile import MeshSpec
from cosine.cli.roster import Plan, environment
from cosine.cli.supervisor import Mesh
from cosine.client.async_client import AsyncClient
from cosine.core.errors import BadRequest, MeshError

READY = """import json, sys
print(json.dumps({"ready": {"address": sys.argv[sys.argv.index("--listen") + 1].replace(":0", ":4321")}}), flush=True)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[Mesh]:
    spec = MeshSpec(target=TARGET, drafters=DRAFTERS, gateway="127.0.0.1:0", grace_s=5)
    async with Mesh(spec) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_all_peers_serve_and_generate(mesh: Mesh) -> None:
    roles = sorted(peer.role for peer in mesh.peers if peer.is_serving)
    assert roles == ["drafter", "drafter", "fusion", "gateway", "scheduler", "store", "verifier"]
    async with AsyncClient(mesh.gateway_address) as client:
        texts = [await client.complete("A mesh", strategy=name, max_new_tokens=24) for name in ("plain", "cosine")]
    assert texts[0].token_ids == texts[1].token_ids
    assert len(texts[0].token_ids) == 24


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("peer_id", ["near", "store", "gateway"])
async def test_a_killed_peer_is_started_again_at_its_address(mesh: Mesh, peer_id: str) -> None:
    before = mesh.peer(peer_id)
    assert mesh.kill(peer_id) == before.pid
    after = await mesh.restarted(peer_id)
    assert after.address == before.address
    assert after.pid != before.pid
    assert after.restart_count == before.restart_count + 1
    async with AsyncClient(mesh.gateway_address) as client:
        assert len((await client.complete("A mesh", max_new_tokens=8)).token_ids) == 8


async def test_bad_input_to_one_peer_ends_the_start_with_its_message(tmp_path: Path) -> None:
    pids: set[int] = set()
    spec = MeshSpec(target="toy", gateway="127.0.0.1:0", options={"verifier": {"pace": "fast"}})
    mesh = Mesh(spec, tmp_path, lambda peer: pids.add(peer.pid))
    with pytest.raises(BadRequest, match="verifier verifier: pace 'fast' is not"):
        await mesh.__aenter__()
    assert all((peer.state, peer.pid) == ("stopped", 0) for peer in mesh.peers)
    assert alive(pids) == []


def keeper_of(tmp_path: Path, program: str, seen: list[Peer]) -> Keeper:
    (tmp_path / "actor.py").write_text(program)
    variables = environment(1, "") | {"PYTHONPATH": str(tmp_path)}
    return Keeper(Plan("drafter", "x", "actor", "127.0.0.1:0"), variables, tmp_path, seen.append)


async def test_a_peer_that_crashes_at_start_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path, "import sys; print('no memory left', file=sys.stderr); sys.exit(7)", [])
    with pytest.raises(MeshError, match="ended with status 7") as caught:
        await keeper.run()
    assert caught.value.message.count("no memory left") == 3


async def test_bad_input_is_told_in_the_peers_own_words(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path, "import sys; sys.exit(print('MODEL_DAMAGED: try again', file=sys.stderr) or 2)", [])
    with pytest.raises(BadRequest) as caught:
        await keeper.run()
    assert (caught.value.reason, caught.value.message) == ("MODEL_DAMAGED", "drafter x: try again")


async def test_a_peer_that_ends_after_serving_starts_again_on_the_same_port(tmp_path: Path) -> None:
    seen: list[Peer] = []
    keeper = keeper_of(tmp_path, "print('hello')\n" + READY + "sys.exit(2)", seen)

    def note(peer: Peer) -> None:
        seen.append(peer)
        if peer.restart_count == 2:
            keeper.stop()

    keeper.on_change = note
    await keeper.run()
    assert [peer.state for peer in seen] == [*["starting", "serving", "down"] * 2, "starting", "serving", "stopped"]
    assert {peer.address for peer in seen if peer.is_serving} == {"127.0.0.1:4321"}
    assert "hello" in (tmp_path / "drafter-x.log").read_text()


async def test_a_peer_that_does_not_drain_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, threading\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "threading.Event().wait()"
    )
    seen: list[Peer] = []
    keeper = keeper_of(tmp_path, deaf, seen)

    def note(peer: Peer) -> None:
        seen.append(peer)
        if peer.is_serving:
            keeper.stop()
            keeper.kill()

    keeper.on_change = note
    await keeper.run()
    assert seen[-1].state == "stopped"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word of a parent's end is Linux's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_no_process_outlives_the_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    up = Up(tmp_path, names_log_dir=False)
    log_dir = Path(up.ready["log_dir"])
    assert log_dir.parent == tmp_path
    assert (log_dir / "gateway.log").exists()
    assert up.end(number) == []
    assert up.process.returncode == (0 if number == signal.SIGINT else -signal.SIGKILL)
    assert (tmp_path / "ready.json").exists() == log_dir.exists() == (number == signal.SIGKILL)


def test_a_watch_tells_who_is_left() -> None:
    with Watch([]) as watch:
        assert watch.left() == []
