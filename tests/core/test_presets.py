"""Each preset does what its system is known for: seen from outside, in a whole mesh of toys.

Of PipeInfer and DSI see `test_streams.py`, of CoSine's parts the files named after them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import pytest
from harness import TARGET, Mesh, paths

from cosine.core import events as ev
from cosine.core.fusion import Guess, Step
from cosine.core.strategy import KNOBS, PRESETS
from cosine.core.timing import LineModel
from cosine.core.tree import TokenTree

EASY, HARD = 0, 1  # domains of toys: the first token of a prompt modulo 4


def batches(mesh: Mesh) -> list[ev.SendBatch]:
    return [command for command in mesh.sent if isinstance(command, ev.SendBatch)]


def plans(mesh: Mesh) -> list[ev.SendPlan]:
    return [command for command in mesh.sent if isinstance(command, ev.SendPlan)]


def drafts(mesh: Mesh) -> list[TokenTree]:
    """All trees that fusion has delivered, in their order."""
    return [event.tree.tree for event in mesh.answers if isinstance(event, ev.TreeCame)]


def ended(mesh: Mesh) -> None:
    """Lets everything come to its end; what came out is plain decoding's."""
    mesh.run()
    for text in mesh.texts.values():
        assert text.tokens == text.plain


# -- plain, vanilla


def test_plain_asks_no_drafter() -> None:
    mesh = Mesh()
    mesh.ask("r", count=6, strategy="plain")
    ended(mesh)
    assert plans(mesh) == []
    assert [len(batch.items[0].tree) for batch in batches(mesh)] == [0] * 6


def test_vanilla_verifies_one_chain_of_four_of_one_drafter() -> None:
    mesh = Mesh()
    mesh.ask("r", count=40, strategy="vanilla")
    ended(mesh)
    assert {plan.plan.items[0].drafters for plan in plans(mesh)} == {("d0",)}
    assert {tree.parents for tree in drafts(mesh)[:-1]} == {(-1, 0, 1, 2)}


# -- SpecInfer


class Merging(Mesh):
    """Remembers what every drafter said in each plan."""

    def __init__(self, drafters: Mapping[str, str]) -> None:
        self.said: dict[int, dict[str, TokenTree]] = {}
        super().__init__(drafters)

    def _candidates(self, step: Step, guesses: list[Guess]) -> None:
        for guess in guesses:
            assert guess.tree is not None
            self.said.setdefault(step.round_id, {})[step.drafter] = guess.tree
        super()._candidates(step, guesses)


def test_specinfer_lets_paths_of_all_drafters_meet_in_one_tree_that_is_verified_at_once() -> None:
    mesh = Merging({f"d{own}": f"{TARGET},own={own + 5},skill=0.75" for own in range(4)})
    mesh.ask("r", count=60, strategy="specinfer")
    ended(mesh)
    trees = {event.round_id: event.tree.tree for event in mesh.answers if isinstance(event, ev.TreeCame)}
    assert trees.keys() == mesh.said.keys()
    for round_id, tree in trees.items():
        chains = mesh.said[round_id]
        assert len(chains) == 4
        assert paths(tree).keys() == {path for chain in chains.values() for path in paths(chain)}
    verified = [batch.items[0].tree for batch in batches(mesh)][1:]
    assert [tree.parents for tree in verified[: len(trees)]] == [tree.parents for tree in trees.values()]
    shared = [node for tree in trees.values() for node in tree.proposers if node.bit_count() > 1]
    assert shared, "paths that begin alike are one path"
    assert any(tree.parents.count(-1) > 1 for tree in trees.values()), "and branch where drafters differ"


def test_specinfers_paths_together_are_accepted_further_than_any_drafters_alone() -> None:
    drafters = {f"d{own}": f"{TARGET},own={own + 5},skill=0.6" for own in range(4)}
    verdicts = []
    for crew in (drafters, *({name: source} for name, source in drafters.items())):
        mesh = Mesh(crew)
        text = mesh.ask("r", count=80, strategy="specinfer")
        ended(mesh)
        assert text.figures is not None
        verdicts.append(text.figures.round_count)
    assert verdicts[0] < min(verdicts[1:])


# -- Minions


def test_minions_vote_changes_with_the_weights_it_learns() -> None:
    """Two drafters that agree with one another and never with the target, and one that always does."""
    mesh = Mesh({"a": f"{TARGET},own=9,skill=0", "b": f"{TARGET},own=9,skill=0", "c": TARGET})
    mesh.ask("r", count=120, strategy="minions")
    ended(mesh)
    elected = [tree.proposers[0] for tree in drafts(mesh) if tree]
    assert elected[0] == 0b011, "two voices against one"
    assert elected[-1] == 0b100, "the one that is right outweighs them"
    assert all(tree.parents == tuple(range(-1, len(tree) - 1)) for tree in drafts(mesh)), "one path goes to the target"


def test_minions_verifies_the_whole_path_of_one_of_its_drafters() -> None:
    """However many nodes the paths of five that differ have together: the budget is for the one that is verified."""
    mesh = Merging({f"d{own}": f"{TARGET},own={own + 5},skill=0.5" for own in range(5)})
    mesh.ask("r", count=60, strategy="minions")
    ended(mesh)
    trees = {event.round_id: event.tree.tree for event in mesh.answers if isinstance(event, ev.TreeCame)}
    sizes = []
    for round_id, tree in trees.items():
        chains = list(mesh.said[round_id].values())
        sizes.append(len({path for chain in chains for path in paths(chain)}))
        assert paths(tree).keys() in [paths(chain).keys() for chain in chains]
    assert max(sizes) > PRESETS["minions"].node_budget


def test_minions_length_follows_the_trend_of_verification_time_per_token() -> None:
    """A drafter that is always right gets longer and longer drafts, one that never is shorter and shorter ones."""
    depths = {}
    for name, source in (("right", TARGET), ("wrong", f"{TARGET},own=9,skill=0")):
        mesh = Mesh({name: source})
        for number in range(12):
            mesh.ask(f"r{number}", (number, 7), 120, strategy="minions")
        ended(mesh)
        depths[name] = [plan.plan.items[0].depth for plan in plans(mesh)]
    assert depths["right"][0] == depths["wrong"][0] == 4
    assert max(depths["right"]) > 4
    assert min(depths["wrong"]) < 4


# -- SPIN


class Timed(Mesh):
    """Drafters take so many milliseconds per token of a step, the verifier `VERIFY_MS`; one thing at a time."""

    VERIFY_MS = 30.0

    def __init__(self, drafters: Mapping[str, tuple[str, float]]) -> None:
        self.token_ms = {name: token_ms for name, (_, token_ms) in drafters.items()}
        super().__init__({name: source for name, (source, _) in drafters.items()})

    def _draft(self, step: Step) -> None:
        self.pass_time(max(item.step_count for item in step.items) * self.token_ms[step.drafter] / 1000)
        super()._draft(step)

    def _verify(self, command: ev.SendBatch) -> None:
        self.pass_time(self.VERIFY_MS / 1000)
        super()._verify(command)


def chosen(mesh: Mesh) -> list[str]:
    """Which drafter worked on the only request, plan by plan."""
    return [item.drafters[0] for plan in plans(mesh) for item in plan.plan.items]


@pytest.mark.parametrize(("domain", "best"), [(EASY, "small"), (HARD, "large")])
def test_spins_bandit_converges_to_the_drafter_of_the_most_tokens_per_second_per_difficulty(
    domain: int, best: str
) -> None:
    """The large one is right more often everywhere; where the small one is right often enough, it is faster."""
    mesh = Timed(
        {
            "large": (f"{TARGET},own=5,skill=0.9", 8.0),
            "small": (f"{TARGET},own=6,skill=0.85,home={EASY},abroad=0.1", 2.0),
            "wrong": (f"{TARGET},own=7,skill=0", 2.0),
        }
    )
    mesh.ask("r", (domain, 7), 400, strategy="spin")
    ended(mesh)
    used = chosen(mesh)
    assert set(used[:12]) == {"large", "small", "wrong"}, "each is tried"
    late = Counter(used[len(used) // 2 :])
    assert late[best] > 0.7 * late.total(), late


def mixed(strategy: str, verify: LineModel) -> list[set[bool]]:
    """Per batch of several requests with drafts: whether long ones, short ones or both were in it."""
    mesh = Mesh()
    mesh.scheduler.pace.verify = mesh.scheduler.seats["verifier"].verify = verify
    for number in range(8):
        mesh.ask(f"r{number}", (number,) * (300 if number < 4 else 3), 24, strategy=strategy)
    lengths = {live.session_id: live.admission.prompt_length for live in mesh.scheduler._requests}
    ended(mesh)
    drafted = [[item.session_id for item in batch.items if item.tree] for batch in batches(mesh)]
    return [{lengths[session] > 100 for session in sessions} for sessions in drafted if len(sessions) > 1]


def test_spin_splits_a_ragged_batch_where_padding_costs_more_than_a_pass() -> None:
    dear = LineModel(base_ms=0.5, slope_ms=0.01, weight=1e9, kilotoken_ms=10.0)
    cheap = LineModel(base_ms=5.0, slope_ms=0.01, weight=1e9, kilotoken_ms=0.1)
    assert all(len(kinds) == 1 for kinds in mixed("spin", dear))
    assert any(len(kinds) == 2 for kinds in mixed("spin", cheap))
    assert any(len(kinds) == 2 for kinds in mixed("spin:batching=continuous", dear))


# -- all

SOURCES = {
    "plain": "autoregressive decoding",
    "vanilla": "arXiv 2302.01318: K = {depth}",
    "specinfer": "arXiv 2305.09781: .* {node_budget} nodes, depth {depth}",
    "minions": "arXiv 2402.15678: .* at most {depth} here",
    "pipeinfer": "arXiv 2407.11798: micro-batches of {depth} .* cutoff {value_min}",
    "dsi": "arXiv 2405.14105: .* lookahead {depth}, at most {verifiers} targets",
    "spin": "arXiv 2503.15921: .* pipeline of {groups}; drafts of {depth} tokens",
    "cosine": "arXiv 2503.10325: .* depth to {depth}, a first round of {first_count} drafters and later "
    "{drafter_count}, {node_budget} nodes",
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_row_names_its_source_and_the_parameters_it_has(name: str) -> None:
    row = PRESETS[name]
    assert re.search(SOURCES[name].format_map({knob: getattr(row, knob) for knob in KNOBS}), row.source)
