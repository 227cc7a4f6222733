"""Greetings: what a peer says of itself arrives, and what makes no sense is not believed."""

from __future__ import annotations

import math

import pytest

from cosine.core.errors import Mismatch
from cosine.core.processors import UNKNOWN, Processor
from cosine.rpc import hello
from cosine.rpc.hello import Bounds, Identity, from_proto, pass_times, processor_of, to_proto
from cosine.v1.fusion_pb2 import DrafterEntry
from cosine.v1.types_pb2 import Hello
from cosine.v1.types_pb2 import Processor as ProcessorMessage

BOUNDS = Bounds(credits=3, sessions_max=4, batch_max=5, tree_nodes_max=6, tokens_max=7)
PROCESSOR = Processor("cpu:0-7@machine", cores=7, threads=2)
DRAFTER = Identity("drafter", "d", 9, "toy", "ab", 257, BOUNDS, base_ms=0.5, row_ms=0.0, processor=PROCESSOR)


def sent(identity: Identity) -> Hello:
    """The greeting as it comes off the wire."""
    return Hello.FromString(to_proto(identity).SerializeToString())


def test_an_identity_survives_the_way_through_a_hello() -> None:
    assert from_proto(sent(DRAFTER), "drafter") == DRAFTER


def test_a_pass_that_nobody_measured_stays_unknown() -> None:
    assert from_proto(sent(Identity("fusion", "f", 1)), "fusion") == Identity("fusion", "f", 1)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0, None])
@pytest.mark.parametrize("kind", [Hello, DrafterEntry])
def test_a_time_that_is_none_is_not_believed(kind: type[Hello] | type[DrafterEntry], wrong: float | None) -> None:
    assert pass_times(kind(base_ms=1.0, row_ms=wrong)) == (None, None)
    assert pass_times(kind(base_ms=wrong, row_ms=1.0)) == (None, None)
    assert pass_times(kind(base_ms=1.0, row_ms=0.0)) == (1.0, 0.0)


def test_a_processor_has_at_least_one_core_and_one_thread() -> None:
    assert processor_of(Hello(processor=ProcessorMessage(name="gpu"))) == Processor("gpu", 1, 1)
    assert processor_of(DrafterEntry()) is UNKNOWN


def test_a_peer_of_another_role_or_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Mismatch, match="expected a verifier"):
        from_proto(sent(DRAFTER), "verifier")
    greeting = sent(DRAFTER)
    monkeypatch.setattr(hello, "PROTOCOL_VERSION", 2)
    with pytest.raises(Mismatch, match="version 1, this one 2"):
        from_proto(greeting, "drafter")
