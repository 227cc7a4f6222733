"""A simulated verifier is a real one whose target is the recording, and it will not take a wrong context for text."""

from dataclasses import fields

import pytest

from cosine.core.events import BatchItem, SessionVerdict
from cosine.core.tree import EMPTY, TokenTree, chain
from cosine.engine.verifying import Status, VerifyItem, verify
from cosine.sim.clock import Clock
from cosine.sim.device import Device, Job
from cosine.sim.verifier import Verifier, WrongText
from tests.sim.parks import VERIFIER, library
from tests.sim.recorded_engine import RecordedEngine


class Pair:
    """The same verifier twice: simulated, and through the engine."""

    def __init__(self, may_guess: bool = False) -> None:
        self.simulated = Verifier(library(), VERIFIER, 64, may_guess)
        self.engine = RecordedEngine(library(), None)

    def judge(self, *items: BatchItem) -> list[tuple[int, ...]]:
        """Both judge; the committed tokens, once all is compared."""
        self.engine.passes.clear()
        verdicts = verify(self.engine, [_verify_item(item) for item in items])
        run = self.simulated.compute(items)
        for word, verdict in zip(run.results, verdicts, strict=True):
            assert word.missed == (verdict.status is Status.CACHE_MISS)
            assert (word.token_ids, word.nodes) == (verdict.token_ids, verdict.nodes)
            assert word.cached_length == verdict.cached_length
            assert word.judged_nodes == verdict.judged_nodes
        if not any(word.missed for word in run.results):
            took_ms = sum(VERIFIER.forward_ms(rows, cached) for rows, cached in self.engine.passes)
            assert run.seconds * 1000 == pytest.approx(took_ms)
        return [word.token_ids for word in run.results]


def _verify_item(item: BatchItem) -> VerifyItem:
    return VerifyItem(**{field.name: getattr(item, field.name) for field in fields(VerifyItem)})


def item(number: int, end: int, tree: TokenTree = EMPTY, base: int = 0, judge: bool = False) -> BatchItem:
    """The context of a text up to `end` tokens behind its prompt, with a tree below it."""
    script = library().scripts[number]
    return BatchItem(f"s{number}", base, script.token_ids[base : script.prompt_length + end], tree, judge=judge)


def truth(number: int, start: int, end: int) -> tuple[int, ...]:
    """Tokens of a text, counted from its prompt's end."""
    script = library().scripts[number]
    return script.token_ids[script.prompt_length + start : script.prompt_length + end]


def test_without_a_tree_it_commits_the_next_token_of_the_text() -> None:
    assert Pair().judge(item(3, 0), item(20, 6)) == [truth(3, 0, 1), truth(20, 6, 7)]


def test_it_commits_the_path_of_the_tree_that_is_the_text_and_one_token_more() -> None:
    right = truth(3, 1, 5)
    wrong = (right[1] + 1) % 2048
    tree = TokenTree((wrong, *right, wrong), (-1, -1, 1, 2, 3, 1))
    pair = Pair()
    assert pair.judge(item(3, 1, tree, judge=True)) == [truth(3, 1, 6)]
    base = library().scripts[3].prompt_length + 5
    assert pair.judge(item(3, 6, chain(truth(3, 6, 8)), base)) == [truth(3, 6, 9)]


def test_it_misses_what_it_was_never_sent() -> None:
    assert Pair().judge(item(3, 4, base=7)) == [()]


def test_a_part_of_the_context_is_read_and_nothing_picked() -> None:
    part = BatchItem("s3", 0, library().scripts[3].token_ids[:40], prefill_only=True)
    (word,) = Verifier(library(), VERIFIER, 64, False).compute([part]).results
    assert (word.token_ids, word.cached_length) == ((), 40)


def test_a_context_that_is_not_the_text_is_an_error() -> None:
    script = library().scripts[3]
    wrong = (script.token_ids[script.prompt_length] + 1) % 2048
    told = BatchItem("s3", 0, (*script.prompt, wrong))
    with pytest.raises(WrongText, match="s3"):
        Verifier(library(), VERIFIER, 64, False).compute([told])
    (word,) = Verifier(library(), VERIFIER, 64, True).compute([told]).results
    assert len(word.token_ids) == 1


def test_a_cancelled_item_leaves_no_older_guess_beyond_its_base() -> None:
    script = library().scripts[3]
    verifier = Verifier(library(), VERIFIER, 64, True)
    verifier.compute([item(3, 2, chain([1, 2, 3]))])
    verifier.compute([BatchItem("s3", script.prompt_length, (*truth(3, 0, 2), 9, 9, 9))])
    (word,) = verifier.give_up([BatchItem("s3", script.prompt_length + 1, truth(3, 1, 3))])
    assert (word.missed, word.cached_length) == (True, script.prompt_length + 1)


def test_nodes_of_a_cancelled_pass_count_as_verified_where_it_had_begun() -> None:
    clock, verifier = Clock(), Verifier(library(), VERIFIER, 64, False)
    device = Device(clock, verifier.compute, verifier.give_up, verifier.close)
    answers: list[SessionVerdict] = []
    for work_id, tree in ((1, chain([1, 2, 3])), (2, chain([4, 5]))):
        asked = [item(3, 1, tree)]
        device.add(Job("scheduler", work_id, frozenset({"s3"}), asked, lambda words, _seconds: answers.extend(words)))
    device.cancel("scheduler", (1, 2))
    while clock.step():
        pass
    assert [word.missed for word in answers] == [True, True]
    assert verifier.verified_count == 3
