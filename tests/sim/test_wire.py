"""Messages take their time on the wire, and are as large as the real ones."""

import pytest

from cosine.core import events as ev
from cosine.core.plan import DraftItem, Guess, Step
from cosine.core.sampling import GREEDY
from cosine.core.tree import EMPTY, TokenTree
from cosine.rpc.convert import status_to_proto, tree_to_proto
from cosine.sim import wire
from cosine.sim.clock import Clock
from cosine.sim.profile import Link
from cosine.sim.wire import Wire
from cosine.v1 import drafter_pb2, verifier_pb2
from services.fusion.convert import step_to_proto
from services.scheduler.convert import batch_to_proto

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TREE = TokenTree(tuple(range(1000, 1020)), tuple(range(-1, 19)), (0.5,) * 20, (1,) * 20)
SESSION = "scheduler-1-12345"
SHAPES = [(1, 1, EMPTY), (1, 5, TREE), (16, 3, TREE), (16, 80, EMPTY)]


def test_messages_take_turns_and_keep_their_order() -> None:
    clock, arrived = Clock(), []
    line = Wire(clock, Link(latency_ms=5.0, mbps=8.0))  # a byte per microsecond
    for size in (1000, 3000, 10):
        line.send(size, lambda size=size: arrived.append((clock.now, size)))
    while clock.step():
        pass
    assert [size for _, size in arrived] == [1000, 3000, 10]
    assert [time for time, _ in arrived] == pytest.approx([0.006, 0.009, 0.00901])


@pytest.mark.parametrize(("count", "length", "tree"), SHAPES)
def test_steps_and_their_answers_are_as_large_as_real_ones(count: int, length: int, tree: TokenTree) -> None:
    tokens = tuple(range(1000, 1000 + length))
    items = (DraftItem(SESSION, 300, tokens, 4, 2, 2, GREEDY, 0.1, tree),) * count
    real = step_to_proto(Step("drafter", 4711, items, 42), TRACE).ByteSize()
    assert wire.step_bytes(items) == pytest.approx(real, rel=0.15)
    result = drafter_pb2.DraftResult(
        session_id=SESSION, status=status_to_proto("OK"), cached_length=303, tree=tree_to_proto(TREE)
    )
    candidates = drafter_pb2.DraftCandidates(step_id=4711, forward_us=3000, results=[result] * count)
    answer = drafter_pb2.DraftResponse(candidates=candidates)
    assert wire.candidates_bytes([Guess(SESSION, TREE)] * count) == pytest.approx(answer.ByteSize(), rel=0.15)


@pytest.mark.parametrize(("count", "length", "tree"), SHAPES)
def test_batches_and_verdicts_are_as_large_as_real_ones(count: int, length: int, tree: TokenTree) -> None:
    tokens = tuple(range(1000, 1000 + length))
    items = (ev.BatchItem(SESSION, 300, tokens, TokenTree(tree.token_ids, tree.parents)),) * count
    real = batch_to_proto(ev.SendBatch("verifier", 4711, items), TRACE).ByteSize()
    assert wire.batch_bytes(items) == pytest.approx(real, rel=0.2)
    nodes = tuple(range(4))
    verdict = verifier_pb2.Verdict(
        session_id=SESSION,
        status=status_to_proto("OK"),
        committed_token_ids=tokens[:5],
        accepted_nodes=nodes,
        cached_length=310,
    )
    answer = verifier_pb2.VerifyResponse(
        verdicts=verifier_pb2.VerdictBatch(batch_id=4711, forward_us=20_000, verdicts=[verdict] * count)
    )
    told = [ev.SessionVerdict(SESSION, tokens[:5], nodes, 310)] * count
    assert wire.verdicts_bytes(told) == pytest.approx(answer.ByteSize(), rel=0.3)
