"""What drafters thought of their tokens crosses from fusion to the scheduler unchanged, and only where it is wanted."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cosine.core import events as ev
from cosine.core.errors import BadRequest
from cosine.core.plan import Cooperation, DraftedTree, DraftPlan, PlanItem
from cosine.core.tree import EMPTY, ROOT, TokenTree
from cosine.v1 import fusion_pb2
from services.fusion.convert import plan_from_proto, trees_to_proto
from services.scheduler import convert

VOCAB = 257
BARE = TokenTree((5, 6, 7), (ROOT, ROOT, 0), (0.5, 0.25, 0.75), (0b101, 0b10, 0))
TOLD = TokenTree(BARE.token_ids, BARE.parents, BARE.confidences, BARE.proposers, ((0.5, 0.125), (1.0,), ()))


def sent(tree: TokenTree) -> fusion_pb2.DraftedTrees:
    """What a scheduler reads of fusion's answer."""
    wire = trees_to_proto(3, (DraftedTree("s", 2, tree),)).SerializeToString()
    return fusion_pb2.FuseResponse.FromString(wire).trees


def came(message: fusion_pb2.DraftedTrees) -> TokenTree:
    event, _ = convert.trees_from_proto(message, VOCAB)
    assert isinstance(event, ev.TreeCame)
    return event.tree.tree


@pytest.mark.parametrize("wish", [False, True])
def test_a_plans_wish_for_opinions_reaches_fusion(wish: bool) -> None:
    plan = DraftPlan(3, Cooperation.FUSED, (PlanItem("s", 0, (1, 2), ("a",), 3),), opinions=wish)
    wire = convert.plan_to_proto(ev.SendPlan("fusion", plan), "").SerializeToString()
    assert plan_from_proto(fusion_pb2.DraftPlan.FromString(wire), 3).opinions is wish


def test_opinions_reach_the_scheduler_each_with_its_node_and_proposer() -> None:
    assert came(sent(TOLD)) == TOLD


def test_a_tree_that_nobody_has_an_opinion_on_is_the_message_that_it_was() -> None:
    bare = sent(BARE)
    assert "opinions" not in {field.name for field, _ in bare.results[0].ListFields()}
    assert came(bare) == BARE
    assert came(sent(EMPTY)) == EMPTY
    said = sent(TOLD)
    said.results[0].ClearField("opinions")
    assert said == bare, "nothing else of it says so"


def test_a_plan_that_wants_no_opinions_says_nothing_of_them() -> None:
    plan = DraftPlan(3, Cooperation.FUSED, (PlanItem("s", 0, (1, 2), ("a",), 3),))
    message = convert.plan_to_proto(ev.SendPlan("fusion", plan), "")
    assert "opinions" not in {field.name for field, _ in message.ListFields()}


@pytest.mark.parametrize(
    ("opinions", "tree", "reason"),
    [
        ([0.5, 0.5], {}, "TREE_MALFORMED"),
        ([0.5] * 4, {}, "TREE_MALFORMED"),
        ([0.5], {"token_ids": [], "parents": [], "confidences": [], "proposers": []}, "TREE_MALFORMED"),
        ([0.5, 1.01, 0.5], {}, "CONFIDENCE"),
        ([0.5, 0.5, -0.01], {}, "CONFIDENCE"),
        ([math.nan, 0.5, 0.5], {}, "CONFIDENCE"),
        ([math.inf, 0.5, 0.5], {}, "CONFIDENCE"),
    ],
)
def test_opinions_that_are_not_the_proposers_are_refused(
    opinions: list[float], tree: dict[str, Any], reason: str
) -> None:
    message = sent(BARE)
    (result,) = message.results
    result.opinions.extend(opinions)
    for name, values in tree.items():
        result.tree.ClearField(name)
        getattr(result.tree, name).extend(values)
    with pytest.raises(BadRequest) as refused:
        convert.trees_from_proto(message, VOCAB)
    assert refused.value.reason == reason
    assert refused.value.details["field"] == "opinions"


def test_a_softmax_that_ends_a_little_above_one_is_no_reason_to_refuse_a_tree() -> None:
    tree = TokenTree((5,), (ROOT,), (1.0,), (1,), ((1.0 + 2.0**-23,),))
    assert came(sent(tree)) == tree
