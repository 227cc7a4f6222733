"""Routing on what the test bed's models really guessed: mixed domains, no labels, on the drafters' recorded guesses.

A round is played with trees of the chosen drafters' chains, three candidates wide and eight deep, against the recorded
text; a request starts at each of several places of every text. Confidences are drafters' own, and raw. The oracle knows
each text's domain and takes the pair of drafters that is best there, in hindsight and from the start. Rounds in which
routing still asks more than two drafters count for neither. With priors a request starts from what the requests before
it taught of its kind, else it knows nothing but its own verdicts.

`python -m tests.sim.recorded_routing` prints what each score finds.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import fmean

import numpy as np

from cosine.core.acceptance import walk
from cosine.core.events import SessionVerdict
from cosine.core.knowledge import Knowledge
from cosine.core.routing import Route, Score, SharedScores, judge
from cosine.core.tree import ROOT, Grower, TokenTree, children, merge
from cosine.sim.recording import Recording, Variant, read_recording
from tests.sim.parks import RECORDINGS

DEPTH, WIDTH = 8, 3
TEAM, FIRST_TEAM = 2, 5
STARTS = (0, 16, 32, 48)
LENGTH = 80
SETTLED = 3
SEEDS = (0, 1, 2)
SHIFT = 5  # tokens by which another seed's requests start later


@dataclass(frozen=True)
class Stretch:
    """A part of a recorded text, as one request: rows `first` to `end` of the recording."""

    domain: str
    prompt: tuple[int, ...]
    truth: tuple[int, ...]
    first: int
    end: int


@dataclass(frozen=True)
class Setting:
    """`joint` leaves routing only the trees' confidences; another seed is another order, and other places."""

    variant: Variant
    score: Score
    joint: bool = False
    priors: bool = False
    seed: int = 0


@cache
def recorded(variant: Variant) -> Recording:
    """The shipped recording."""
    return read_recording(RECORDINGS, variant)


def stretches(recording: Recording, seed: int = 0) -> list[Stretch]:
    """All requests, domains mixed."""
    truth = tuple(token for text in recording.texts for token in text.token_ids)
    found = []
    for text in recording.texts:
        for start in [start + SHIFT * seed for start in STARTS]:
            prompt, first = text.prompt + text.token_ids[:start], text.first_row + start
            end = min(first + LENGTH, text.first_row + len(text.token_ids))
            found.append(Stretch(text.domain, prompt, truth, first, end))
    random.Random(1 + seed).shuffle(found)
    return found


def draft(recording: Recording, drafter: int, bit: int, stretch: Stretch, row: int) -> TokenTree:
    """A drafter's tree from a row on: its chain as far as that stays on the text, with its first wrong token, and its
    next best candidates beside every token. Nothing below a wrong token can matter."""
    grower, tip = Grower(), ROOT
    for at in range(row, min(row + DEPTH, stretch.end - 1)):
        tokens, confidences = recording.token_ids[drafter, at, :WIDTH], recording.confidences[drafter, at, :WIDTH]
        nodes = [
            grower.add(tip, int(token), float(sure), 1 << bit) for token, sure in zip(tokens, confidences, strict=True)
        ]
        if tokens[0] != stretch.truth[at]:
            break
        tip = nodes[0]
    return grower.tree()


def verify(recording: Recording, team: Sequence[int], tree: TokenTree, stretch: Stretch, row: int) -> SessionVerdict:
    """The verdict, with the recorded agreements: they are known of each drafter's first choice."""
    taken = walk(tree, lambda _, path: stretch.truth[row + len(path)])
    kids, agreements = children(tree), dict[int, float]()
    for at, place in enumerate((ROOT, *taken.nodes)):
        for drafter in team:
            node = kids.get(place, {}).get(int(recording.token_ids[drafter, row + at, 0]))
            if node is not None:
                agreements[node] = float(recording.cosines[drafter, row + at])
    return SessionVerdict(
        "s", taken.token_ids, taken.nodes, judged_nodes=tuple(agreements), agreements=tuple(agreements.values())
    )


def committed_count(recording: Recording, team: Sequence[int], stretch: Stretch, row: int) -> int:
    """How many tokens a round commits, without growing its tree."""
    truth = np.array(stretch.truth[row : min(row + DEPTH, stretch.end - 1)], dtype=np.uint16)
    longest = 0
    for drafter in team:
        guesses = recording.token_ids[drafter, row : row + len(truth), :WIDTH]
        run = int(np.append(guesses[:, 0] != truth, True).argmax())
        longest = max(longest, run + (run < len(truth) and truth[run] in guesses[run]))
    return longest + 1


@dataclass
class Outcome:
    """Tokens and rounds by domain, and whether each request's specialist took part in its settled rounds."""

    tokens: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    rounds: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    at_home: list[bool] = field(default_factory=list)

    def length(self, domain: str) -> float:
        """Tokens per verdict."""
        return self.tokens[domain] / self.rounds[domain]

    @property
    def share_at_home(self) -> float:
        """Of the requests, those whose specialist is chosen after `SETTLED` rounds."""
        return sum(self.at_home) / len(self.at_home)


def with_opinions(trees: Sequence[TokenTree], merged: TokenTree) -> TokenTree:
    """The merged tree with what each drafter itself thought of each node."""
    kids, said = children(merged), [list[float]() for _ in range(len(merged))]
    for tree in trees:
        place = {ROOT: ROOT}
        for node, (parent, token) in enumerate(zip(tree.parents, tree.token_ids, strict=True)):
            place[node] = kids[place[parent]][token]
            said[place[node]].append(tree.confidences[node])
    return replace(merged, opinions=tuple(map(tuple, said)))


def rounds(setting: Setting, route: Route, stretch: Stretch) -> Iterator[tuple[tuple[str, ...], int]]:
    """Who drafted in each round of a request, and how many tokens that committed."""
    recording, row = recorded(setting.variant), stretch.first
    while row < stretch.end - 1:
        names = route.choose(recording.drafters, TEAM, FIRST_TEAM)
        team = [recording.drafters.index(name) for name in names]
        trees = [draft(recording, drafter, bit, stretch, row) for bit, drafter in enumerate(team)]
        tree = merge(trees) if setting.joint else with_opinions(trees, merge(trees))
        verdict = verify(recording, team, tree, stretch, row)
        assert len(verdict.token_ids) == committed_count(recording, team, stretch, row)
        route.note(judge(setting.score, names, tree, verdict), len(verdict.token_ids))
        row += len(verdict.token_ids)
        yield names, len(verdict.token_ids)


@cache
def routed(setting: Setting) -> Outcome:
    """All requests under routing, one after the other."""
    outcome, knowledge = Outcome(), Knowledge()
    for stretch in stretches(recorded(setting.variant), setting.seed):
        route = Route(knowledge.priors(stretch.prompt) if setting.priors else SharedScores())
        played = list(rounds(setting, route, stretch))
        for team, committed in played:
            if len(team) == TEAM:
                outcome.tokens[stretch.domain] += committed
                outcome.rounds[stretch.domain] += 1
        outcome.at_home.append(stretch.domain in played[SETTLED][0])
    return outcome


@cache
def oracle(variant: Variant, seed: int = 0) -> dict[str, float]:
    """By domain, the tokens per verdict of the pair that is best there."""
    recording, best = recorded(variant), dict[str, float]()
    for team in itertools.combinations(range(len(recording.drafters)), TEAM):
        outcome = Outcome()
        for stretch in stretches(recording, seed):
            row = stretch.first
            while row < stretch.end - 1:
                committed = committed_count(recording, team, stretch, row)
                outcome.tokens[stretch.domain] += committed
                outcome.rounds[stretch.domain] += 1
                row += committed
        best |= {domain: max(best.get(domain, 0.0), outcome.length(domain)) for domain in outcome.tokens}
    return best


def share_of_oracle(setting: Setting) -> float:
    """Rounds that the oracle needs for the same tokens, over those that routing needed."""
    best, outcome = oracle(setting.variant, setting.seed), routed(setting)
    needed = sum(tokens / best[domain] for domain, tokens in outcome.tokens.items())
    return needed / sum(outcome.rounds.values())


def main() -> None:
    """Prints, of each score, how many requests have found their specialist and how far drafts are accepted: means over
    the seeds, in brackets the least and the most."""
    print("| drafts | score | priors | specialist after 3 rounds | tokens per verdict, of an oracle's |")
    print("|---|---|---|---|---|")
    forms = [
        ("hits", Score.HITS, False),
        ("harmonic", Score.HARMONIC, False),
        ("harmonic, joint", Score.HARMONIC, True),
    ]
    for variant, priors in itertools.product((Variant.GREEDY, Variant.SHARED), (False, True)):
        for name, score, joint in forms:
            settings = [Setting(variant, score, joint, priors, seed) for seed in SEEDS]
            homes = [routed(setting).share_at_home for setting in settings]
            shares = [share_of_oracle(setting) for setting in settings]
            cells = (variant.value, name, "yes" if priors else "no", _spread(homes), _spread(shares))
            print(f"| {' | '.join(cells)} |", flush=True)


def _spread(shares: Sequence[float]) -> str:
    return f"{100 * fmean(shares):.1f} % ({100 * min(shares):.1f}-{100 * max(shares):.1f})"


if __name__ == "__main__":
    main()
