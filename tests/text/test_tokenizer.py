"""Tokenizers: where they come from, what names them, and what is said where they are missing or damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.errors import Mismatch, NotFound, Unavailable
from cosine.text.tokenizer import eos_token_ids, fingerprint, is_toy, load_tokenizer, vocab_size

TOY = load_tokenizer("toy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TOY.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 256}))
    return tmp_path


@given(st.text(max_size=20).filter(lambda text: "<|end|>" not in text))
def test_the_ids_of_the_toy_tokenizer_are_the_bytes(text: str) -> None:
    ids = TOY.encode(text).ids
    assert bytes(ids) == text.encode()
    assert TOY.decode(ids) == text


def test_the_toy_tokenizer_knows_its_end() -> None:
    assert TOY.encode("a<|end|>").ids == [97, 256]
    assert TOY.decode([97, 256], skip_special_tokens=True) == "a"
    assert (vocab_size(TOY), eos_token_ids("toy:seed=3")) == (257, (256,))


def test_toys_are_told_from_models_that_begin_alike() -> None:
    assert [is_toy(source) for source in ("toy", "toy:seed=3", "toybox/model", "toys")] == [True, True, False, False]


def test_a_saved_tokenizer_has_the_same_fingerprint(folder: Path) -> None:
    assert fingerprint(load_tokenizer(str(folder))) == fingerprint(TOY)


def test_an_added_token_changes_the_fingerprint() -> None:
    other = load_tokenizer("toy")
    other.add_tokens(["<tool>"])
    assert fingerprint(other) != fingerprint(TOY)


def test_the_generation_config_decides_what_ends_a_text(folder: Path) -> None:
    assert eos_token_ids(str(folder)) == (256,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    assert eos_token_ids(str(folder)) == (1, 2)


def test_a_model_without_an_end_has_none(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"eos_token_id": None}))
    assert eos_token_ids(str(folder)) == ()


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(NotFound, match="/no/such/model"):
        load_tokenizer("/no/such/model")


def test_a_folder_without_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"tokenizer\.json"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(("name", "read"), [("tokenizer.json", load_tokenizer), ("config.json", eos_token_ids)])
def test_a_damaged_file_is_named(folder: Path, name: str, read: Callable[[str], object]) -> None:
    (folder / name).write_text("{")
    with pytest.raises(Mismatch, match=name):
        read(str(folder))


def test_a_hub_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="nobody/no-model"):
        load_tokenizer("nobody/no-model")
