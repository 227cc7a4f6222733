"""Verifiers that hold texts of different lengths: a request sits where all of its text has room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from harness import LIMITS, TARGET, Mesh, Text, plain_text, toy

from cosine.core import events as ev

SMALL, LARGE = 32, 512
PROMPT = tuple(range(20))
STRATEGIES = ["plain", "cosine", "pipeinfer", "dsi:verifiers=1"]


class Uneven(Mesh):
    """A mesh whose verifiers hold so many tokens of one text each, and have so many places."""

    def __init__(self, lengths: Mapping[str, int], seats: int = 16) -> None:
        self.lengths = lengths
        super().__init__(verifiers=tuple(lengths), seats=seats)

    def return_verifier(self, name: str) -> None:
        self._cut(name)
        self.verifiers[name] = toy(TARGET, replace(LIMITS, tokens_max=self.lengths[name]))
        self.tell(ev.VerifierUp(ev.VerifierFacts(name, sessions_max=self._seats, tokens_max=self.lengths[name])))

    def used(self) -> set[str]:
        """Verifiers that were sent anything."""
        return {command.verifier for command in self.sent if isinstance(command, ev.SendBatch)}

    def ask_long(self, name: str, strategy: str = "plain") -> Text:
        """A request whose text only a large verifier holds."""
        return self.ask(name, PROMPT, SMALL, strategy=strategy)

    def ask_short(self, name: str, strategy: str = "plain") -> Text:
        """A request whose text every verifier holds to the last token."""
        return self.ask(name, PROMPT, SMALL - len(PROMPT), strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_text_goes_to_a_verifier_that_holds_the_whole_of_it(strategy: str) -> None:
    mesh = Uneven({"small": SMALL, "large": LARGE})
    texts = [mesh.ask_long(f"r{number}", strategy) for number in range(4)]
    mesh.run()
    assert [text.tokens for text in texts] == [text.plain for text in texts]
    assert mesh.used() == {"large"}


def test_a_text_that_has_just_room_takes_the_least_occupied_verifier() -> None:
    mesh = Uneven({"small": SMALL, "large": LARGE})
    texts = [mesh.ask_short(f"r{number}") for number in range(4)]
    mesh.run()
    assert [text.tokens for text in texts] == [text.plain for text in texts]
    assert mesh.used() == {"small", "large"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_text_whose_verifier_is_lost_waits_for_one_that_can_finish_it(strategy: str) -> None:
    mesh = Uneven({"small": SMALL, "large": LARGE, "other": LARGE}, seats=1)
    first, second = mesh.ask_long("r", strategy), mesh.ask_long("s", strategy)
    while len(first.tokens) < 4:
        mesh.deliver_oldest()
    mesh.lose_verifier("large")
    mesh.run()
    assert [text.tokens for text in (first, second)] == [text.plain for text in (first, second)]
    assert "small" not in mesh.used()


def test_who_waits_for_a_large_verifier_keeps_nobody_from_a_small_one() -> None:
    mesh = Uneven({"small": SMALL, "large": LARGE}, seats=1)
    mesh.ask_long("r")
    mesh.ask_long("s")
    short = mesh.ask_short("t")
    while not short.over:
        mesh.deliver_oldest()
    assert [text.over for text in mesh.texts.values()] == [False, False, True]
    mesh.run()
    assert [text.tokens for text in mesh.texts.values()] == [text.plain for text in mesh.texts.values()]


def test_a_text_that_is_too_long_for_all_goes_to_those_that_hold_the_most() -> None:
    """It may end at a stop token before it is too long."""
    mesh = Uneven({"small": SMALL, "medium": 2 * SMALL})
    text = mesh.ask("r", PROMPT, LARGE, stop=[plain_text(PROMPT, SMALL)[-1]])
    mesh.run()
    assert text.finish == "stop_token"
    assert mesh.used() == {"medium"}
