"""A real fusion between a scheduler and drafters that do what each test tells them to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from cosine.core.errors import BadRequest
from cosine.core.tree import CONFIDENCE_MAX, prune
from cosine.peer.links import Links
from cosine.rpc import hello
from cosine.rpc.errors import Borders, from_rpc_error
from cosine.rpc.hello import Bounds, Identity
from cosine.rpc.server import server_options
from cosine.rpc.streams import Credits, Outbox, accept
from cosine.store.registry import PeerRecord
from cosine.v1 import drafter_pb2, fusion_pb2, types_pb2
from cosine.v1.drafter_pb2_grpc import (
    DrafterServiceServicer,
    DrafterServiceStub,
    add_DrafterServiceServicer_to_server,
)
from cosine.v1.fusion_pb2_grpc import FusionServiceStub, add_FusionServiceServicer_to_server
from services.fusion.convert import guess_from_proto
from services.fusion.service import FusionServicer

PATIENCE_S = 20.0
LONG_MS, SHORT_MS = 60_000, 50
CREDITS = 2
MERGED = fusion_pb2.COOPERATION_MERGED


class Drafter(DrafterServiceServicer):
    """Keeps every step until a test says that it is answered. Counts credits as every drafter does."""

    def __init__(self, name: str) -> None:
        self.identity = Identity(
            "drafter", name, 7, vocab_size=257, bounds=Bounds(credits=CREDITS), base_ms=0.5, row_ms=0.25
        )
        self.steps: asyncio.Queue[drafter_pb2.DraftStep] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def Draft(self, request_iterator: Any, context: Any) -> None:
        await accept(context, self.identity, "fusion", drafter_pb2.DraftResponse, self._open)

    def _open(self, _peer: Identity, outbox: Outbox) -> Drafter:
        self.outbox = outbox
        self.credits = Credits(CREDITS)
        return self

    def on_message(self, message: drafter_pb2.DraftRequest) -> None:
        if message.HasField("step"):
            self.credits.take()
            self.steps.put_nowait(message.step)

    def on_closed(self) -> None:
        self.closed.set()

    async def step(self) -> drafter_pb2.DraftStep:
        """The next step that came."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.steps.get()

    def answer(self, step: drafter_pb2.DraftStep, token: int = 5, confidences: Sequence[float] = (0.5,)) -> None:
        """Guesses one token for every session of a step."""
        tree = types_pb2.TokenTree(token_ids=[token], parents=[-1], confidences=confidences)
        status = types_pb2.ITEM_STATUS_OK
        results = [drafter_pb2.DraftResult(session_id=item.session_id, status=status, tree=tree) for item in step.items]
        self.credits.give_back()
        self.outbox.send(
            drafter_pb2.DraftResponse(candidates=drafter_pb2.DraftCandidates(step_id=step.step_id, results=results))
        )


class Mesh:
    """Fusion, its drafters and one scheduler's stream."""

    def __init__(self, servicer: FusionServicer, links: Links, drafters: dict[str, Drafter], call: Any) -> None:
        self.servicer = servicer
        self.links = links
        self.drafters = drafters
        self.call = call
        self.entries: list[fusion_pb2.DrafterEntry] = []

    async def plan(self, round_id: int, deadline_ms: int = LONG_MS, **more: Any) -> None:
        """Asks for one token of a session of its own."""
        item = fusion_pb2.PlanItem(
            session_id=f"s{round_id}", append_token_ids=[1, 2], drafters=self.drafters, depth=1, width=1, node_budget=8
        )
        plan = fusion_pb2.DraftPlan(
            **{"round_id": round_id, "cooperation": MERGED, "items": [item], "deadline_ms": deadline_ms, **more}
        )
        await self.call.write(fusion_pb2.FuseRequest(plan=plan))

    async def read(self) -> fusion_pb2.FuseResponse:
        async with asyncio.timeout(PATIENCE_S):
            response: fusion_pb2.FuseResponse = await self.call.read()
        return response

    async def trees(self) -> tuple[int, list[int]]:
        """Round id and tokens of the next plan that is done."""
        while not (response := await self.read()).HasField("trees"):
            pass
        (result,) = response.trees.results
        return response.trees.round_id, list(result.tree.token_ids)

    async def complete(self) -> None:
        """Waits until fusion has all drafters."""
        while len(self.entries) < len(self.drafters):
            await self.names()

    async def names(self) -> set[str]:
        """Drafters for new plans, as fusion tells next."""
        while not (response := await self.read()).HasField("drafters"):
            pass
        self.entries = list(response.drafters.drafters)
        return {entry.peer_id for entry in self.entries}


async def served(server: grpc.aio.Server) -> str:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return f"127.0.0.1:{port}"


@asynccontextmanager
async def running(*names: str) -> AsyncIterator[Mesh]:
    """A mesh whose fusion knows all its drafters."""
    identity = Identity("fusion", "fusion")
    servicer = FusionServicer(identity, 64)
    links = Links("drafter", identity, lambda link: DrafterServiceStub(link).Draft, drafter_pb2.DraftRequest, servicer)
    drafters = {name: Drafter(name) for name in names}
    servers = [grpc.aio.server(options=server_options(1 << 20), interceptors=[Borders()]) for _ in (0, *names)]
    add_FusionServiceServicer_to_server(servicer, servers[0])
    for server, drafter in zip(servers[1:], drafters.values(), strict=True):
        add_DrafterServiceServicer_to_server(drafter, server)
    addresses = [await served(server) for server in servers]
    records = [PeerRecord("drafter", *peer, 7) for peer in zip(names, addresses[1:], strict=True)]

    async def views() -> AsyncIterator[tuple[PeerRecord, ...]]:
        yield tuple(records)
        await asyncio.Event().wait()

    following = asyncio.create_task(links.follow(views()))
    try:
        async with grpc.aio.insecure_channel(addresses[0]) as channel:
            call = FusionServiceStub(channel).Fuse()
            await call.write(fusion_pb2.FuseRequest(hello=hello.to_proto(Identity("scheduler", "s"))))
            mesh = Mesh(servicer, links, drafters, call)
            await mesh.complete()
            yield mesh
            call.cancel()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        for server in servers:
            await server.stop(None)


async def test_a_drafter_is_never_sent_more_steps_than_it_has_credits() -> None:
    async with running("d") as mesh:
        drafter = mesh.drafters["d"]
        for round_id in range(1, 6):
            await mesh.plan(round_id)
        held = [await drafter.step() for _ in range(CREDITS)]
        done = []
        for _ in range(5):
            drafter.answer(held.pop(0))
            done.append(await mesh.trees())
            if len(done) + len(held) < 5:
                held.append(await drafter.step())
        assert done == [(round_id, [5]) for round_id in range(1, 6)]
        assert not drafter.closed.is_set()


async def test_rounds_go_without_a_drafter_that_stands_still_and_find_it_again() -> None:
    async with running("frozen", "quick") as mesh:
        frozen, quick = mesh.drafters["frozen"], mesh.drafters["quick"]
        for round_id in (1, 2):
            await mesh.plan(round_id)
            quick.answer(await quick.step(), token=round_id)
        for round_id in (3, 4):
            await mesh.plan(round_id, SHORT_MS)
            quick.answer(await quick.step(), token=round_id)
            over, tokens = await mesh.trees()
            assert over == round_id
            assert 9 not in tokens
        for _ in range(CREDITS):
            step = await frozen.step()
            frozen.answer(step, token=9)
        done = dict([await mesh.trees(), await mesh.trees()])
        assert {round_id: set(tokens) for round_id, tokens in done.items()} == {1: {1, 9}, 2: {2, 9}}
        await mesh.plan(5)
        quick.answer(await quick.step(), token=5)
        frozen.answer(await frozen.step(), token=6)
        assert (await mesh.trees())[0] == 5, "what waited for rounds that are over was never sent"
        assert frozen.steps.empty()
        assert not frozen.closed.is_set()


async def test_the_scheduler_is_told_how_long_drafters_passes_take() -> None:
    async with running("d") as mesh:
        (entry,) = mesh.entries
        assert (entry.peer_id, entry.base_ms, entry.row_ms) == ("d", 0.5, 0.25)


@pytest.mark.parametrize("cooperation", [fusion_pb2.COOPERATION_UNSPECIFIED, 99])
async def test_a_plan_without_a_known_cooperation_is_refused_by_name(cooperation: int) -> None:
    async with running("d") as mesh:
        await mesh.plan(1, cooperation=cooperation)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await mesh.trees()
        error = from_rpc_error(caught.value)
        assert isinstance(error, BadRequest)
        assert (caught.value.code(), error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "COOPERATION")
        assert error.details == {"field": "cooperation", "value": str(cooperation)}
        assert "COOPERATION_SINGLE" in error.message


@pytest.mark.parametrize("confidences", [[], [math.nan], [-0.1], [1.5], [math.inf], [0.5, 0.5]])
async def test_a_guess_without_sound_confidences_costs_its_drafter_the_link_and_nobody_else_anything(
    confidences: list[float],
) -> None:
    async with running("wrong", "right") as mesh:
        wrong, right = mesh.drafters["wrong"], mesh.drafters["right"]
        await mesh.plan(1)
        right.answer(await right.step(), token=6)
        wrong.answer(await wrong.step(), token=5, confidences=confidences)
        assert await mesh.trees() == (1, [6])
        assert await mesh.names() == {"right"}
        assert await mesh.names() == {"right", "wrong"}, "it is dialled again"
        await mesh.plan(2)
        right.answer(await right.step(), token=6)
        wrong.answer(await wrong.step(), token=5)
        over, tokens = await mesh.trees()
        assert (over, set(tokens)) == (2, {5, 6})


async def test_a_drafter_that_drains_answers_what_it_was_asked_and_is_asked_nothing_new() -> None:
    async with running("leaves", "stays") as mesh:
        leaves, stays = mesh.drafters["leaves"], mesh.drafters["stays"]
        await mesh.plan(1)
        step = await leaves.step()
        (link,) = [link for link in mesh.links if link.peer is not None and link.peer.peer_id == "leaves"]
        mesh.servicer.on_draining(link)
        assert await mesh.names() == {"stays"}
        await mesh.plan(2)
        stays.answer(await stays.step(), token=6)
        leaves.answer(step, token=5)
        over, tokens = await mesh.trees()
        assert (over, set(tokens)) == (1, {5, 6})
        stays.answer(await stays.step(), token=6)
        assert await mesh.trees() == (2, [6])
        assert leaves.steps.empty()


async def test_fusion_that_drains_answers_its_plans_and_those_that_come_too_late_at_once() -> None:
    async with running("d") as mesh:
        drafter = mesh.drafters["d"]
        await mesh.plan(1)
        step = await drafter.step()
        draining = asyncio.create_task(mesh.servicer.drain())
        assert await mesh.names() == set()
        await mesh.plan(2)
        while not (response := await mesh.read()).HasField("trees"):
            pass
        assert (response.trees.round_id, len(response.trees.results)) == (2, 0)
        assert not draining.done()
        drafter.answer(step)
        async with asyncio.timeout(PATIENCE_S):
            await draining
        assert await mesh.trees() == (1, [5])
        assert drafter.steps.empty()


def test_a_confidence_that_rounding_took_above_one_is_one() -> None:
    """No node may be worth more than its parent, which would then be pruned from above it."""
    said = types_pb2.TokenTree(token_ids=[1, 2, 3], parents=[-1, 0, -1], confidences=[0.5, 1.000005, 0.1])
    assert 1.0 < said.confidences[1] <= CONFIDENCE_MAX
    result = drafter_pb2.DraftResult(session_id="s", status=types_pb2.ITEM_STATUS_OK, tree=said)
    tree = guess_from_proto(result, 257).tree
    assert tree is not None
    assert tree.confidences == (0.5, 1.0, pytest.approx(0.1))
    assert prune(tree, 1).token_ids == (1,)
