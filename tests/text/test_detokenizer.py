"""Text in pieces: whole characters only, and together the text of all tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from cosine.text.detokenizer import Detokenizer, token_kinds
from cosine.text.tokenizer import load_tokenizer


@functools.cache
def toy() -> Tokenizer:
    return load_tokenizer("toy")


@functools.cache
def fallback() -> Tokenizer:
    """A Llama-like vocabulary: words with metaspaces, byte fallback, a special token."""
    words = ["<unk>", "▁", "▁a", "a", "b", "▁▁", "é", "."] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(
        models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[], byte_fallback=True, unk_token="<unk>")
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return tokenizer


def biased_ids(vocab_size: int, *likely: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(likely) | st.integers(0, vocab_size - 1), max_size=24)


SPACE, SPACE_A, A, SPECIAL = 1, 2, 3, 264
EURO = [8 + byte for byte in "€".encode()]

# Bytes of a three-byte character in the right order are likely, so that half characters are common.
TOY_IDS = biased_ids(257, 0xE2, 0x82, 0xAC, 0x61, 256)
FALLBACK_IDS = biased_ids(265, 1, 2, 3, 8 + 0xE2, 8 + 0x82, 8 + 0xAC, 264)


def in_pieces(tokenizer: Tokenizer, ids: list[int], sizes: list[int], prompt: Sequence[int] = ()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, token_kinds(tokenizer), prompt)
    pieces, start = [], 0
    for size in [*sizes, len(ids)]:
        pieces.append(detokenizer.push(ids[start : start + size]))
        start += size
    return [*pieces, detokenizer.flush()]


SIZES = st.lists(st.integers(0, 4), max_size=24)


@given(TOY_IDS, SIZES)
def test_pieces_of_byte_level_text_are_the_whole_text(ids: list[int], sizes: list[int]) -> None:
    assert "".join(in_pieces(toy(), ids, sizes)) == toy().decode(ids, skip_special_tokens=True)


@given(FALLBACK_IDS, SIZES)
def test_pieces_of_byte_fallback_text_are_the_whole_text(ids: list[int], sizes: list[int]) -> None:
    assert "".join(in_pieces(fallback(), ids, sizes)) == fallback().decode(ids, skip_special_tokens=True)


@given(st.text(max_size=12))
def test_whole_characters_come_whole(text: str) -> None:
    ids = toy().encode(text.replace("<|end|>", "")).ids
    pieces = in_pieces(toy(), ids, [1] * len(ids))
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces) or "\N{REPLACEMENT CHARACTER}" in text


def test_a_character_of_three_bytes_comes_with_its_last_byte() -> None:
    detokenizer = Detokenizer(toy(), token_kinds(toy()))
    assert [detokenizer.push([byte]) for byte in "€!".encode()] == ["", "", "€", "!"]


def test_what_is_incomplete_at_the_end_is_flushed_once() -> None:
    detokenizer = Detokenizer(toy(), token_kinds(toy()))
    assert [detokenizer.push([0x61, 0xE2]), detokenizer.flush(), detokenizer.flush()] == ["a", "�", ""]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ([], "aa"),
        ([SPACE_A], " aa"),
        ([A, *EURO], " aa"),
        ([A, *EURO[:2]], " aa"),
        ([A] * 100, " aa"),
        ([SPECIAL, A], " aa"),
        ([A, SPECIAL], "aa"),  # a text of its own begins
    ],
)
def test_the_first_word_after_a_prompt_keeps_its_space(prompt: list[int], text: str) -> None:
    assert "".join(in_pieces(fallback(), [SPACE_A, A], [1], prompt)) == text


WORDS = st.integers(0, 7)


@given(st.lists(WORDS | st.sampled_from(EURO), max_size=6), WORDS, FALLBACK_IDS, SIZES)
def test_prompt_and_pieces_are_the_text_of_both(before: list[int], word: int, ids: list[int], sizes: list[int]) -> None:
    prompt = [*before, word]
    known, whole = (fallback().decode(tokens, skip_special_tokens=True) for tokens in (prompt, prompt + ids))
    assert known + "".join(in_pieces(fallback(), ids, sizes, prompt)) == whole


@given(st.binary(max_size=6), TOY_IDS, SIZES)
def test_a_byte_level_output_does_not_depend_on_its_prompt(prompt: bytes, ids: list[int], sizes: list[int]) -> None:
    assert in_pieces(toy(), ids, sizes, list(prompt)) == in_pieces(toy(), ids, sizes)
