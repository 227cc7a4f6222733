"""A request's figures count every token that was drafted for it: what was not accepted was wasted."""

from __future__ import annotations

import pytest
from harness import Mesh

from cosine.core import events as ev
from cosine.core.strategy import PRESETS

STRATEGIES = sorted({*PRESETS} - {"plain"})


class Watched(Mesh):
    """A mesh in which trees that reach a scheduler that holds their request are counted, and those that it sends on."""

    drafted_count = 0
    sent_count = 0

    def tell(self, event: ev.Event) -> None:
        if isinstance(event, ev.TreeCame) and self.scheduler._requests.session(event.tree.session_id) is not None:
            self.drafted_count += len(event.tree.tree)
        before = len(self.sent)
        super().tell(event)
        for command in self.sent[before:]:
            if isinstance(command, ev.SendBatch):
                self.sent_count += sum(len(item.tree) for item in command.items)

    def run_drafting_first(self) -> None:
        """Until all texts are over; verifiers are told and answer only where nothing else is under way."""
        while not all(text.over for text in self.texts.values()):
            waiting = [link for link, queue in self.links.items() if queue]
            drafting = [link for link in waiting if not set(link) & set(self.verifiers)]
            self.deliver((drafting or waiting)[0])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("skill", [0.0, 0.9])
def test_whatever_becomes_of_a_drafted_token_it_is_counted_once(strategy: str, skill: float) -> None:
    mesh = Watched({"d0": f"toy:seed=1,own=9,skill={skill}"}, verifiers=("v1", "v2"))
    text = mesh.ask("r", count=40, strategy=strategy)
    mesh.run_drafting_first()
    assert text.tokens == text.plain
    assert text.figures is not None
    assert text.figures.drafted_token_count == mesh.drafted_count > 0
    assert (text.figures.accepted_token_count > 0) == (skill > 0)


@pytest.mark.parametrize("strategy", ["pipeinfer:value_min=0", "dsi"])
def test_stretches_given_up_and_drafts_refuted_before_they_were_sent_are_wasted_too(strategy: str) -> None:
    mesh = Watched({"d0": "toy:seed=1,own=9,skill=0"}, verifiers=("v1", "v2"))
    text = mesh.ask("r", count=30, strategy=strategy)
    mesh.run_drafting_first()
    assert text.figures is not None
    assert text.figures.accepted_token_count == 0
    assert text.figures.drafted_token_count > mesh.sent_count > 0, "what is refuted is given up wherever it is"
