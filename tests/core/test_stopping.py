"""Stop strings: reading in pieces equals reading character by character."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cosine.core.stopping import StopMatcher

TEXTS = st.text("abc", max_size=24)
STOPS = st.lists(st.text("abc", min_size=1, max_size=5), max_size=4)


def read(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The specification: cut before the first complete match, the longest of those complete there."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            longest = max(matches, key=len)
            return text[: end - len(longest)], longest
    return text, None


@st.composite
def pieces(draw: st.DrawFn) -> list[str]:
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(pieces(), STOPS)
def test_text_in_pieces_is_cut_where_the_whole_text_is(chunks: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = "".join(matcher.feed(chunk) for chunk in chunks) + matcher.flush()
    assert (shown, matcher.found) == read("".join(chunks), stops)


@given(pieces(), STOPS)
def test_what_was_shown_is_never_part_of_a_stop_string(chunks: list[str], stops: list[str]) -> None:
    matcher, shown = StopMatcher(stops), ""
    final, _ = read("".join(chunks), stops)
    for chunk in chunks:
        shown += matcher.feed(chunk)
        assert final.startswith(shown)


@given(pieces(), STOPS)
def test_no_more_is_held_back_than_could_begin_a_stop_string(chunks: list[str], stops: list[str]) -> None:
    matcher, shown, fed = StopMatcher(stops), "", ""
    for chunk in chunks:
        shown, fed = shown + matcher.feed(chunk), fed + chunk
        held = fed.removeprefix(shown)
        assert matcher.found or not held or any(stop.startswith(held) for stop in stops)


def test_the_match_that_is_complete_first_wins() -> None:
    matcher = StopMatcher(["abcd", "bc"])
    assert (matcher.feed("abcd"), matcher.found) == ("a", "bc")


def test_nothing_follows_a_match() -> None:
    matcher = StopMatcher(["."])
    assert [matcher.feed("a.b"), matcher.feed("c"), matcher.flush()] == ["a", "", ""]
