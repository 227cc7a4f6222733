"""Memory is what can be reached, each thing once, without code."""

import sys
from dataclasses import dataclass
from functools import partial

from cosine.sim.memory import held_bytes


@dataclass(slots=True)
class Pair:
    left: object
    right: object


def test_a_thing_that_is_held_twice_counts_once() -> None:
    text = "x" * 1000
    once, twice = held_bytes(Pair(text, None)), held_bytes(Pair(text, text))
    assert once - twice == sys.getsizeof(None)
    assert once >= sys.getsizeof(text)


def test_what_is_behind_lists_mappings_and_calls_counts() -> None:
    text = "y" * 1000
    for holder in ([[text]], {"a": {"b": text}}, partial(print, text), Pair((text,), 0).__repr__):
        assert held_bytes(holder) > sys.getsizeof(text)


def test_what_is_left_out_counts_only_where_others_hold_it() -> None:
    text, other = "z" * 1000, "a" * 100
    both = [Pair(text, other), text]
    assert held_bytes(both) - held_bytes(both, (Pair,)) == sys.getsizeof(other) + sys.getsizeof(both[0])


def test_circles_end_and_code_does_not_count() -> None:
    pair = Pair(None, test_circles_end_and_code_does_not_count)
    pair.left = pair
    assert held_bytes(pair) == sys.getsizeof(pair)
