"""Any peer may be lost at any moment: the text stays the target's own, and what can go on goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from generations import PATIENCE_S, Asking, Generation, eventually, generating, matches, speculates
from plain import DRAFTERS, TARGET, plain
from processes import free_address, metrics, service

from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient, Client
from cosine.client.persistence import RetryPolicy
from cosine.core.errors import Unavailable
from cosine.store.embedded import EmbeddedServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACE = {"pace": "4", "drafter_pace": "1"}
TOKENS = 300
BEFORE = 30  # tokens every request has when the loss comes
LONG = {"max_new_tokens": 1000, "ignore_eos": True}
ONCE = RetryPolicy(tries_max=0, full_tries_max=0)  # every error reaches the test
HEARTBEAT_S = 1.0
GONE_S = 1.0
DRAFT_DEADLINE_S = 2.0
BATCH_DEADLINE_S = 5.0
SILENCE_S = 15.0  # a peer that says nothing for so long is given up
NOISE_S = 2.0  # what a busy machine may add
WAYS = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"strategy": "specinfer", "temperature": 0.7},
    {"strategy": "plain"},
)
FIGURES = {
    "gateway": "cosine_gateway_running_requests",
    "scheduler": "cosine_scheduler_live_requests",
    "fusion": "cosine_fusion_sessions",
}


@pytest.fixture(scope="module")
def store_address() -> str:
    """Where the store of this module's mesh is, whichever process it is."""
    return free_address()


@pytest.fixture(scope="module")
def store(store_address: str) -> Iterator[list[EmbeddedServer]]:
    """The running store, as the only entry of a list; a test may replace it."""
    servers = [EmbeddedServer(int(store_address.rpartition(":")[2]))]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Where the light services show their metrics."""
    return {role: free_address() for role in FIGURES}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(store: list[EmbeddedServer], pages: dict[str, str]) -> AsyncIterator[Mesh]:
    """Slow enough that a loss falls into the middle of every text."""
    options: dict[Any, Any] = {role: {"metrics_listen": page} for role, page in pages.items()}
    spec = MeshSpec(
        target=TARGET, drafters=DRAFTERS, gateway="127.0.0.1:0", redis=store[0].url, options=options, **PACE
    )
    async with Mesh(spec) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(mesh: Mesh) -> AsyncIterator[AsyncClient]:
    """A client that bears nothing."""
    async with AsyncClient(mesh.gateway_address, retry=ONCE) as opened:
        yield opened


def requests(count: int = len(WAYS), tokens: int = TOKENS) -> list[tuple[str, dict[str, Any]]]:
    """Long requests, each in another way."""
    fixed = {"max_new_tokens": tokens, "ignore_eos": True}
    return [(f"Loss {index}. ", {**fixed, **WAYS[index % len(WAYS)], "seed": index}) for index in range(count)]


async def in_the_middle(generations: list[Generation], tokens: int = BEFORE) -> None:
    """Waits until every generation has tokens, and none has all."""
    for generation in generations:
        await generation.reaches(tokens)
    assert_in_the_middle(generations)


def assert_in_the_middle(generations: list[Generation]) -> None:
    for generation in generations:
        assert generation.running
        assert 0 < generation.token_count < generation.options["max_new_tokens"]


async def assert_plain(generations: list[Generation]) -> None:
    """Every text is complete and plain decoding's."""
    for generation in generations:
        reference = {key: value for key, value in generation.options.items() if key != "strategy"}
        assert matches(await generation.completion(), plain(generation.prompt, **reference))


@contextmanager
def only_these_restart(mesh: Mesh, *peer_ids: str) -> Iterator[None]:
    """A loss is nobody else's."""
    before = {peer.peer_id: peer.restart_count for peer in mesh.peers}
    yield
    restarted = {peer.peer_id for peer in mesh.peers if peer.restart_count > before[peer.peer_id]}
    assert restarted == set(peer_ids)


async def test_the_default_strategy_drafts_where_drafting_pays(client: AsyncClient) -> None:
    completion = await Asking(client).one("Worth it. ", max_new_tokens=TOKENS, ignore_eos=True)
    assert completion.speculation.accepted_token_count > 0
    assert completion.speculation.round_count < TOKENS


@pytest.mark.parametrize("lost", [("d0",), tuple(DRAFTERS), ("fusion",), ("verifier",), ("scheduler",)], ids="+".join)
async def test_a_killed_peer_changes_no_text_and_shows_no_error(
    mesh: Mesh, client: AsyncClient, lost: tuple[str, ...]
) -> None:
    await speculates(client, *DRAFTERS)
    with only_these_restart(mesh, *lost):
        async with generating(client, *requests()) as generations:
            await in_the_middle(generations)
            pids = {peer_id: mesh.kill(peer_id) for peer_id in lost}
            assert_in_the_middle(generations)
            await assert_plain(generations)
        for peer_id, pid in pids.items():
            await mesh.restarted(peer_id, pid)
        await speculates(client, *DRAFTERS)


@pytest.mark.parametrize("peer_id", ["d0", "fusion", "verifier"])
async def test_a_peer_that_is_told_to_stop_ends_in_order_and_changes_no_text(
    mesh: Mesh, client: AsyncClient, peer_id: str
) -> None:
    await speculates(client, *DRAFTERS)
    with only_these_restart(mesh, peer_id):
        async with generating(client, *requests()) as generations:
            await in_the_middle(generations)
            pid = mesh.kill(peer_id, signal.SIGTERM)
            assert_in_the_middle(generations)
            await assert_plain(generations)
        await mesh.restarted(peer_id, pid)
        await speculates(client, *DRAFTERS)
    lines = [json.loads(line) for line in log_of(mesh, peer_id).splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines if line["event"] in ("draining", "stopped")] == ["draining", "stopped"]


async def test_the_same_peer_may_be_lost_again_and_again(mesh: Mesh, client: AsyncClient) -> None:
    async with generating(client, *requests(tokens=900)) as generations:
        await in_the_middle(generations)
        for peer_id in ("verifier", "fusion"):
            seen = [generation.token_count for generation in generations]
            with only_these_restart(mesh, peer_id):
                assert_in_the_middle(generations)
                await mesh.restarted(peer_id, mesh.kill(peer_id))
                for generation, count in zip(generations, seen, strict=True):
                    await generation.reaches(count + 20)
        await assert_plain(generations)


async def test_a_lost_gateway_that_comes_back_is_resumed_at(mesh: Mesh) -> None:
    patient = RetryPolicy(tries_max=100)  # how long a process takes to start is not the subject
    async with (
        AsyncClient(mesh.gateway_address, retry=patient) as client,
        generating(client, *requests()) as generations,
    ):
        await in_the_middle(generations)
        with only_these_restart(mesh, "gateway"):
            pid = mesh.kill("gateway")
            assert_in_the_middle(generations)
            await assert_plain(generations)
            await mesh.restarted("gateway", pid)


async def test_the_other_gateway_takes_over_from_a_lost_one(mesh: Mesh, pages: dict[str, str]) -> None:
    page = free_address()
    flags = ("--model", TARGET, "--peer-id", "gateway-2", "--metrics-listen", page)

    async def counted() -> bool:
        return (await metrics(page))["cosine_gateway_requests_total"] >= len(generations)

    async with (
        service("gateway", *flags, redis_url=mesh.redis_url) as (address, second_pid),
        AsyncClient(mesh.gateway_address, address) as client,
        generating(client, *requests()) as generations,
    ):
        await in_the_middle(generations)
        first_pid = mesh.peer("gateway").pid
        chose_first = (await metrics(pages["gateway"]))[FIGURES["gateway"]] > 0
        with only_these_restart(mesh, *(["gateway"] if chose_first else [])):
            os.kill(first_pid if chose_first else second_pid, signal.SIGKILL)
            assert_in_the_middle(generations)
            await assert_plain(generations)
            if chose_first:
                await eventually(counted, "the heir has counted them")
                await mesh.restarted("gateway", first_pid)


async def test_without_its_store_the_mesh_finishes_what_runs_and_refuses_what_is_new(
    mesh: Mesh, client: AsyncClient, store: list[EmbeddedServer], store_address: str
) -> None:
    with only_these_restart(mesh):
        await loses_its_store(client, store, store_address)
        await comes_back(mesh, client, store, store_address)


async def loses_its_store(client: AsyncClient, store: list[EmbeddedServer], store_address: str) -> None:
    async with generating(client, *requests(tokens=450)) as generations:
        await in_the_middle(generations)
        store.pop().close()
        assert_in_the_middle(generations)
        with pytest.raises(Unavailable) as caught:
            await client.complete("New. ", max_new_tokens=5)
        assert caught.value.reason == "STORE_UNREACHABLE"
        assert store_address in caught.value.message
        assert "running requests go on" in caught.value.message
        assert caught.value.retry_delay_ms > 0
        await assert_plain(generations)


async def comes_back(mesh: Mesh, client: AsyncClient, store: list[EmbeddedServer], store_address: str) -> None:
    store.append(EmbeddedServer(int(store_address.rpartition(":")[2])))

    async def serves() -> bool:
        try:
            await client.complete("New. ", max_new_tokens=5)
        except Unavailable:
            return False
        return True

    async def knows_all_peers() -> bool:
        serving = {peer.peer_id for peer in await client.peers() if peer.state == "serving"}
        return serving >= {peer.peer_id for peer in mesh.peers}

    await eventually(serves, "new requests are taken again")
    await eventually(knows_all_peers, "all peers are registered again")


def log_of(mesh: Mesh, peer_id: str) -> str:
    return Path(mesh.peer(peer_id).log_path).read_text()


# -- clients that leave


async def freed(mesh: Mesh, client: AsyncClient, pages: dict[str, str], left_at: float) -> None:
    """Every service has let go within a second; drafters and verifiers tell so with their next heartbeat."""

    async def light_services() -> bool:
        figures = [(await metrics(pages[role]))[name] for role, name in FIGURES.items()]
        return figures == [0.0, 0.0, 0.0]

    async def all_peers() -> bool:
        return {peer.load for peer in await client.peers()} == {0}

    for condition, within_s in ((light_services, GONE_S), (all_peers, GONE_S + HEARTBEAT_S)):
        await eventually(condition, "all slots are free", left_at + within_s + NOISE_S - time.monotonic())


async def test_a_closed_generation_frees_its_slots_everywhere(
    mesh: Mesh, client: AsyncClient, pages: dict[str, str]
) -> None:
    async with aclosing(client.generate("Leaving. ", **LONG)) as chunks:  # type: ignore[arg-type]  # a dict of keywords has one type of values
        count = 0
        async for chunk in chunks:
            count += len(chunk.token_ids)
            if count >= BEFORE:
                break
    await freed(mesh, client, pages, time.monotonic())


async def test_a_cancelled_generation_frees_its_slots_everywhere(
    mesh: Mesh, client: AsyncClient, pages: dict[str, str]
) -> None:
    async with generating(client, *(("Leaving. ", {**LONG, **way}) for way in WAYS)) as generations:
        await in_the_middle(generations)
    await freed(mesh, client, pages, time.monotonic())


async def test_breaking_out_of_the_synchronous_client_frees_its_slots_everywhere(
    mesh: Mesh, client: AsyncClient, pages: dict[str, str]
) -> None:
    def break_off() -> None:
        with Client(mesh.gateway_address) as synchronous:
            count = 0
            for chunk in synchronous.generate("Leaving. ", **LONG):  # type: ignore[arg-type]  # a dict of keywords has one type of values
                count += len(chunk.token_ids)
                if count >= BEFORE:
                    break

    await asyncio.to_thread(break_off)
    await freed(mesh, client, pages, time.monotonic())


async def test_a_client_whose_deadline_passes_frees_its_slots_everywhere(
    mesh: Mesh, client: AsyncClient, pages: dict[str, str]
) -> None:
    options = {**LONG, "strategy": "plain", "timeout": 3.0}
    async with generating(client, ("Late. ", options)) as (generation,):
        await generation.reaches(BEFORE)
        assert generation.running
        await asyncio.wait([generation.task], timeout=PATIENCE_S)
        assert type(generation.task.exception()).__name__ == "Expired"
    await freed(mesh, client, pages, time.monotonic())


# -- peers that stand still


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """The process lives, holds its connections and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_drafter_that_stands_still_costs_its_deadline_and_no_more(mesh: Mesh, client: AsyncClient) -> None:
    await speculates(client, *DRAFTERS)
    async with generating(client, *requests(tokens=400)) as generations:
        await in_the_middle(generations)
        with standing_still(mesh.peer("d0").pid):
            seen = [len(generation.gaps) for generation in generations]
            await assert_plain(generations)
        for generation, count in zip(generations, seen, strict=True):
            assert max(generation.gaps[count:], default=0.0) < DRAFT_DEADLINE_S + NOISE_S


async def test_a_gateway_that_stands_still_does_not_hold_up_the_requests_of_another(tmp_path: Path) -> None:
    spec = MeshSpec(target=TARGET, gateway="127.0.0.1:0")
    flags = ("--model", TARGET, "--peer-id", "frozen")
    long = [("Frozen. ", {**LONG, "max_new_tokens": 500, "strategy": "plain", "seed": index}) for index in range(32)]
    async with (
        Mesh(spec, tmp_path) as mesh,
        service("gateway", *flags, redis_url=mesh.redis_url) as (address, pid),
        AsyncClient(address) as frozen,
        AsyncClient(mesh.gateway_address, retry=ONCE) as client,
        generating(frozen, *long) as stuck,
    ):
        await in_the_middle(stuck, 1)

        async def forgotten() -> bool:
            await Asking(client).one("Beside it. ", max_new_tokens=20, temperature=1.0, seed=1)
            loads = {peer.peer_id: peer.load for peer in await client.peers()}
            return loads["scheduler"] <= 1

        with standing_still(pid):
            await eventually(forgotten, "the frozen gateway's requests are done or dropped")
        await assert_plain(stuck)
        assert "link down" not in log_of(mesh, "scheduler")


@asynccontextmanager
async def two_verifiers() -> AsyncIterator[tuple[Mesh, AsyncClient]]:
    """A mesh that can do without one of its verifiers."""
    spec = MeshSpec(target=TARGET, drafters={"d0": DRAFTERS["d0"]}, gateway="127.0.0.1:0", verifiers=2, **PACE)
    spec = spec.model_copy(update={"options": {"scheduler": {"batch_deadline_s": BATCH_DEADLINE_S}}})
    async with Mesh(spec) as mesh, AsyncClient(mesh.gateway_address, retry=ONCE) as client:
        await Asking(client).one("Up. ", max_new_tokens=5)
        yield mesh, client


async def test_the_other_verifier_takes_over_from_a_lost_one() -> None:
    async with two_verifiers() as (mesh, client), generating(client, *requests()) as generations:
        await in_the_middle(generations)
        with only_these_restart(mesh, "verifier"):
            pid = mesh.kill("verifier")
            for generation in generations:
                await generation.reaches(generation.token_count + 10)
            assert mesh.peer("verifier").restart_count == 0, "it took over before the lost one was back"
            await assert_plain(generations)
            await mesh.restarted("verifier", pid)


async def test_the_other_verifier_takes_over_from_one_that_stands_still() -> None:
    async with two_verifiers() as (mesh, client), generating(client, *requests(8)) as generations:
        await in_the_middle(generations)
        with standing_still(mesh.peer("verifier").pid):
            async with asyncio.timeout(SILENCE_S + NOISE_S):
                await assert_plain(generations)
