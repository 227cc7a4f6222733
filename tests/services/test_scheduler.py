"""The scheduler's shell without a network: which workers it uses, and what it sends them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from kept_messages import Link
from structlog.testing import capture_logs

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.rpc.hello import Bounds, Identity
from cosine.v1 import verifier_pb2
from services.scheduler import convert
from services.scheduler.service import SchedulerServicer

GATEWAY = Identity("gateway", "g", 1, model_id="m", tokenizer_fingerprint="a" * 64, vocab_size=250)
VERIFIER = Identity("verifier", "v", 2, model_id="m", tokenizer_fingerprint="a" * 64, vocab_size=257)
OTHER_WEIGHTS = replace(VERIFIER, peer_id="other", model_id="n")
OTHER_TOKENS = replace(VERIFIER, peer_id="foreign", tokenizer_fingerprint="b" * 64)


class Shell:
    """A scheduler whose verifiers and gateways are objects."""

    def __init__(self) -> None:
        self.core = Scheduler(SchedulerConfig())
        self.servicer = SchedulerServicer(Identity("scheduler", "s", 3), self.core, cast(Any, None))
        self.links: dict[str, Any] = {}
        self.request_count = 0

    def comes(self, peer: Identity) -> Link:
        link = Link(peer)
        self.links[peer.peer_id] = link
        self.servicer.verifier_up(cast(Any, link), peer)
        return link

    def leaves(self, peer: Identity) -> None:
        self.servicer.verifier_down(peer.peer_id, self.links.pop(peer.peer_id))

    def attaches(self, gateway: Identity = GATEWAY) -> None:
        self.servicer.attach(gateway, cast(Any, Link(gateway)))

    def request(self, strategy: str = "plain") -> None:
        self.request_count += 1
        name = f"r{self.request_count}"
        self.servicer.handle(ev.RequestCame(ev.Admission(name, 1, "g", (1, 2, 3), 3, 100, strategy=strategy)))

    @property
    def used(self) -> set[str]:
        return set(self.core.seats)


@pytest.fixture
async def shell() -> Shell:
    return Shell()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield cast(list[Any], lines)


def left_out(logs: list[Any]) -> list[tuple[str, str, str]]:
    """Who the log says is left out, the model it has, and the model that was expected."""
    named = [line for line in logs if line["event"] == "verifier left out"]
    return [(line["verifier"], line["model_id"], line["expected_model_id"]) for line in named]


async def test_verifiers_of_one_model_are_all_used(shell: Shell) -> None:
    shell.comes(VERIFIER)
    shell.comes(replace(VERIFIER, peer_id="twin", incarnation=9))
    shell.attaches()
    assert shell.used == {"v", "twin"}


async def test_a_verifier_with_other_weights_is_never_sent_work_and_both_models_are_named(
    shell: Shell, logs: list[Any]
) -> None:
    first, other = shell.comes(VERIFIER), shell.comes(OTHER_WEIGHTS)
    shell.attaches()
    for _ in range(4):
        shell.request()
    assert first.batches
    assert (shell.used, other.sent) == ({"v"}, [])
    assert left_out(logs) == [("other", "n", "m")]


async def test_a_verifier_with_another_tokenizer_is_left_out_and_both_fingerprints_are_named(
    shell: Shell, logs: list[Any]
) -> None:
    shell.comes(VERIFIER)
    shell.comes(OTHER_TOKENS)
    assert shell.used == {"v"}
    (line,) = [line for line in logs if line["event"] == "verifier left out"]
    assert (line["tokenizer"], line["expected_tokenizer"], line["expected_from"]) == ("b" * 16, "a" * 16, "v")


async def test_the_gateways_tokenizer_decides_however_late_it_comes(shell: Shell, logs: list[Any]) -> None:
    shell.comes(OTHER_TOKENS)
    shell.comes(VERIFIER)
    assert shell.used == {"foreign"}
    shell.attaches()
    assert shell.used == {"v"}
    assert left_out(logs)[-1][0] == "foreign"


async def test_no_verifier_is_used_where_none_speaks_the_gateways_tokenizer(shell: Shell, logs: list[Any]) -> None:
    shell.attaches()
    shell.comes(OTHER_TOKENS)
    assert shell.used == set()
    assert left_out(logs) == [("foreign", "m", "m")]


async def test_schedulers_that_met_the_verifiers_in_another_order_use_the_same(shell: Shell) -> None:
    shell.comes(OTHER_WEIGHTS)
    shell.comes(VERIFIER)
    shell.attaches()
    assert shell.used == {"v"}
    second = Shell()
    second.attaches()
    second.comes(OTHER_WEIGHTS)
    second.comes(VERIFIER)
    assert second.used == {"v"}


async def test_a_gateway_may_read_the_tokenizer_from_a_folder_of_another_name(shell: Shell) -> None:
    shell.attaches(replace(GATEWAY, model_id="tokenizer-only"))
    shell.comes(VERIFIER)
    shell.comes(OTHER_WEIGHTS)
    assert shell.used == {"v"}


async def test_a_target_that_is_gone_is_not_replaced_by_another(shell: Shell) -> None:
    shell.attaches()
    shell.comes(VERIFIER)
    shell.leaves(VERIFIER)
    shell.comes(OTHER_WEIGHTS)
    assert shell.used == set()
    shell.comes(VERIFIER)
    assert shell.used == {"v"}


async def test_a_verifier_that_comes_back_with_other_weights_is_used_no_more(shell: Shell) -> None:
    shell.attaches()
    shell.comes(VERIFIER)
    shell.comes(replace(VERIFIER, incarnation=9, model_id="n"))
    assert shell.used == set()


async def test_a_verifier_is_named_again_when_it_comes_again(shell: Shell, logs: list[Any]) -> None:
    shell.comes(VERIFIER)
    for _ in range(2):
        shell.comes(OTHER_WEIGHTS)
        shell.attaches()
        shell.leaves(OTHER_WEIGHTS)
    assert [name for name, _, _ in left_out(logs)] == ["other", "other"]


@pytest.mark.parametrize(("batch_max", "seated"), [(3, 3), (256, 8)])
def test_a_verifier_that_takes_few_sessions_in_one_message_holds_no_more(batch_max: int, seated: int) -> None:
    peer = replace(VERIFIER, bounds=Bounds(sessions_max=8, batch_max=batch_max))
    assert convert.verifier_facts(peer, batch_rows_max=256).sessions_max == seated


def judged(batch: verifier_pb2.VerifyBatch) -> verifier_pb2.VerdictBatch:
    """One token for every session whose context is complete."""
    return verifier_pb2.VerdictBatch(
        batch_id=batch.batch_id,
        verdicts=[
            verifier_pb2.Verdict(
                session_id=item.session_id,
                committed_token_ids=[] if item.prefill_only else [7],
                cached_length=item.base_length + len(item.append_token_ids),
            )
            for item in batch.items
        ],
    )


async def test_what_is_published_of_each_verifiers_passes_is_its_own(shell: Shell) -> None:
    fast, slow = (
        replace(VERIFIER, peer_id=name, base_ms=ms, row_ms=0.5) for name, ms in (("fast", 5.0), ("slow", 500.0))
    )
    links = [shell.comes(fast), shell.comes(slow)]
    shell.attaches()
    assert shell.servicer.learned() == (), "nothing has been seen of them yet"
    for _ in range(2):
        shell.request()
    for link in links:
        shell.servicer.verdicts_came(link.peer.peer_id, judged(link.batches[0]))
    first, second = shell.servicer.learned()
    assert (first.peer_id, second.peer_id) == ("fast", "slow")
    assert first.base_ms < 50.0 < second.base_ms
    for told in (first, second):
        its = shell.core.seats[told.peer_id].verify
        assert (told.base_ms, told.row_ms, told.kilotoken_ms) == (its.base_ms, its.slope_ms, its.kilotoken_ms)


async def test_many_streamed_requests_ask_fusion_for_no_more_than_it_takes(shell: Shell) -> None:
    verifier = shell.comes(replace(VERIFIER, bounds=Bounds(sessions_max=8)))
    shell.attaches()
    fusion = Link(Identity("fusion", "f", 4, bounds=Bounds(credits=2)))
    shell.servicer.fusion_up(cast(Any, fusion), fusion.peer)
    drafter = Identity("drafter", "d", 5, model_id="d", tokenizer_fingerprint="a" * 64, vocab_size=257)
    shell.servicer.drafters_changed("f", (drafter,))
    for _ in range(6):
        shell.request("pipeinfer")
    for count in range(12):
        shell.servicer.verdicts_came("v", judged(verifier.batches[count]))
    assert len([message for message in fusion.sent if message.HasField("plan")]) == 2
    assert shell.servicer.load == 6
