"""Shared knowledge in Redis: everybody's changes arrive once, whoever writes meanwhile, and losing it harms nobody."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from cosine.core.errors import Unavailable
from cosine.core.knowledge import PATH, Changes, Knowledge, Shared, merged
from cosine.core.routing import Credit
from cosine.store.connection import Store
from cosine.store.knowledge import KnowledgeExchange, SharedKnowledge, decode, encode

ABOUT_SQL, ABOUT_LOVE = tuple(range(100, 160)), tuple(range(900, 960))


def taught(writer: str, good: str = "coder", count: int = 1) -> Knowledge:
    """A scheduler's knowledge after some requests about SQL."""
    knowledge = Knowledge(writer)
    for _ in range(count):
        priors = knowledge.priors(ABOUT_SQL)
        priors.note(good, Credit(8, 8))
        priors.note_hit_rate(3, 5)
    return knowledge


def tries(shared: Shared, tally: str) -> float:
    return sum(cluster.tallies[tally].tries for cluster in shared.clusters.values() if tally in cluster.tallies)


async def test_what_one_scheduler_learned_another_one_starts_from(store: Store) -> None:
    one, other = taught("a", count=5), Knowledge("b")
    await KnowledgeExchange(SharedKnowledge(store), one).exchange()
    await KnowledgeExchange(SharedKnowledge(store), other).exchange()
    assert other.priors(ABOUT_SQL).prior("coder") > 0.8
    assert other.priors(ABOUT_SQL).prior("coder") == pytest.approx(one.priors(ABOUT_SQL).prior("coder"), rel=0.01)


async def test_meshes_in_one_redis_know_nothing_of_each_other(store: Store) -> None:
    elsewhere = Store(store.url, "another-mesh")
    await SharedKnowledge(store).exchange(taught("a").take_changes(0.0))
    assert not (await SharedKnowledge(elsewhere).exchange(Knowledge("b").take_changes(0.0))).clusters
    await elsewhere.close()


async def test_changes_of_many_at_once_all_count(store: Store) -> None:
    exchanges = [KnowledgeExchange(SharedKnowledge(store), taught(f"s{number}")) for number in range(6)]
    await asyncio.gather(*(exchange.exchange() for exchange in exchanges))
    for exchange in exchanges:
        await exchange.exchange()
    shared = await SharedKnowledge(store).exchange(Knowledge("reader").take_changes(0.0))
    assert tries(shared, "coder") == pytest.approx(6 * 8, rel=0.01)
    assert tries(shared, PATH) == pytest.approx(6 * 4, rel=0.01)


async def test_changes_that_come_again_because_the_answer_was_lost_count_once(store: Store) -> None:
    knowledge = taught("a")
    await SharedKnowledge(store).exchange(knowledge.take_changes(0.0))
    shared = await SharedKnowledge(store).exchange(knowledge.take_changes(1.0))
    assert tries(shared, "coder") == pytest.approx(8, rel=0.01)


async def test_what_redis_lost_is_put_back(store: Store) -> None:
    exchange = KnowledgeExchange(SharedKnowledge(store), taught("a", count=5))
    await exchange.exchange()
    await store.client.flushall()
    await exchange.exchange()
    shared = await SharedKnowledge(store).exchange(Knowledge("b").take_changes(0.0))
    assert tries(shared, "coder") == pytest.approx(5 * 8, rel=0.01)


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"\xff", b"[1]", b'{"names":[],"clusters":{"a":1},"taken":{},"epoch":""}']
)
async def test_what_cannot_be_read_is_begun_anew(store: Store, damage: bytes) -> None:
    await store.client.set(store.key("knowledge", "1"), damage)
    with capture_logs() as logs:
        shared = await SharedKnowledge(store).exchange(taught("a").take_changes(0.0))
    assert tries(shared, "coder") == 8
    assert ["begun anew" in line["event"] for line in logs] == [True] * bool(damage)
    assert decode(await store.client.get(store.key("knowledge", "1"))) is not None


async def test_the_key_expires_unless_somebody_asks(store: Store) -> None:
    key = store.key("knowledge", "1")
    shared, knowledge = SharedKnowledge(store, ttl_s=1000), taught("a")
    knowledge.absorb(await shared.exchange(knowledge.take_changes(0.0)))
    assert 900 < await store.client.ttl(key) <= 1000
    await store.client.expire(key, 10)
    await shared.exchange(knowledge.take_changes(0.0))
    assert 900 < await store.client.ttl(key) <= 1000


async def test_the_key_is_bounded_whatever_is_asked(store: Store) -> None:
    knowledge = Knowledge("a")
    for kind in range(300):
        priors = knowledge.priors(range(1000 * kind, 1000 * kind + 300))
        for drafter in range(100):
            priors.note(f"a-drafter-with-a-long-name-{drafter}", Credit(1, 3))
    await SharedKnowledge(store).exchange(knowledge.take_changes(0.0))
    assert 100_000 < await store.client.strlen(store.key("knowledge", "1")) < 400_000


def test_what_is_written_is_read_the_same() -> None:
    shared = merged(None, taught("a", count=3).take_changes(0.0), 5.0)
    again = decode(encode(shared))
    assert again is not None
    assert (again.epoch, again.time, again.taken) == (shared.epoch, shared.time, shared.taken)
    assert list(again.clusters) == list(shared.clusters)
    for name, cluster in shared.clusters.items():
        assert again.clusters[name].total == pytest.approx(cluster.total, abs=1e-6)
        assert again.clusters[name].tallies == cluster.tallies
        assert again.clusters[name].prompt_count == cluster.prompt_count


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", '"x"', "null", "[]"])
def test_amounts_that_are_none_are_refused(value: str) -> None:
    shared = encode(Shared("e", 7.0))
    assert decode(shared) == Shared("e", 7.0)
    assert decode(shared.replace(b"7.0", value.encode())) is None


async def test_where_others_write_all_the_time_it_is_tried_again_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedKnowledge(store)

    async def outrun(**_: object) -> int:
        return 0

    monkeypatch.setattr(shared, "_write", outrun)
    with pytest.raises(Unavailable, match="try again"):
        await shared.exchange(taught("a").take_changes(0.0))


class Flaky(SharedKnowledge):
    """Away while it is told to be."""

    away = True

    async def exchange(self, changes: Changes) -> Shared:
        if self.away:
            raise Unavailable("STORE_UNREACHABLE", "away")
        return await super().exchange(changes)


async def test_an_outage_is_said_once_and_costs_nothing_that_was_learned(store: Store) -> None:
    knowledge, shared = taught("a"), Flaky(store)
    exchange = KnowledgeExchange(shared, knowledge)
    for _outage in range(2):
        shared.away = True
        with capture_logs() as logs:
            for _ in range(3):
                await exchange.exchange()
                knowledge.priors(ABOUT_LOVE).note("poet", Credit(1, 1))
        assert knowledge.priors(ABOUT_LOVE).prior("poet") > 0.6
        assert ["each scheduler uses its own" in line["event"] for line in logs] == [True]
        shared.away = False
        await exchange.exchange()
        await exchange.exchange()
    found = await SharedKnowledge(store).exchange(Knowledge("b").take_changes(0.0))
    assert tries(found, "poet") == pytest.approx(6, rel=0.01)
    assert tries(found, "coder") == pytest.approx(8, rel=0.01)


async def test_a_redis_that_is_not_there_disturbs_nobody() -> None:
    nowhere = Store("redis://127.0.0.1:1")
    knowledge = taught("a")
    await KnowledgeExchange(SharedKnowledge(nowhere), knowledge).exchange()
    assert knowledge.priors(ABOUT_SQL).prior("coder") > 0.7
    await nowhere.close()


async def test_a_key_of_another_kind_disturbs_nobody(store: Store) -> None:
    await store.client.rpush(store.key("knowledge", "1"), "x")
    knowledge = taught("a")
    await KnowledgeExchange(SharedKnowledge(store), knowledge).exchange()
    assert knowledge.priors(ABOUT_SQL).prior("coder") > 0.7


class Heard(SharedKnowledge):
    """Says when something was exchanged."""

    def __init__(self, store: Store, news: asyncio.Event) -> None:
        super().__init__(store)
        self._news = news

    async def exchange(self, changes: Changes) -> Shared:
        shared = await super().exchange(changes)
        self._news.set()
        return shared


async def test_schedulers_exchange_for_ever(store: Store) -> None:
    one, other, news = taught("a"), Knowledge("b"), asyncio.Event()

    async def until(knowledge: Knowledge, cluster_count: int) -> None:
        while knowledge.cluster_count != cluster_count:
            news.clear()
            await news.wait()

    running = [
        asyncio.create_task(KnowledgeExchange(Heard(store, news), knowledge, pause_s=0.001).run())
        for knowledge in (one, other)
    ]
    async with asyncio.timeout(10):
        await until(other, 1)
        other.priors(ABOUT_LOVE).note("poet", Credit(9, 9))
        await until(one, 2)
    for task in running:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
