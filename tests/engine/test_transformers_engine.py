"""The transformers engine against stock transformers: every node of every tree must have its own path's logits."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, VOCAB_SIZE, build, random_tree, save, slow_logits
from transformers import PreTrainedModel

from cosine.core.errors import BadRequest, Full, MeshError, Mismatch, NotFound
from cosine.core.picking import RowRule
from cosine.core.sampling import GREEDY
from cosine.core.tree import ROOT, TokenTree, chain, path_to, path_tokens
from cosine.engine.base import EngineLimits, Segment
from cosine.engine.transformers_engine import TransformersEngine, load

LIMITS = EngineLimits(sessions_max=3, tokens_max=100, tree_nodes_max=16, prefill_chunk=5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(build(name), tmp_path_factory.mktemp(name)) for name in CONFIGS}


@pytest.fixture(scope="module", params=list(CONFIGS))
def pair(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[TransformersEngine, PreTrainedModel]:
    name: str = request.param
    return load(str(folders[name]), dtype="float32", limits=LIMITS), build(name)


@pytest.fixture
def llama(folders: dict[str, Path]) -> TransformersEngine:
    return load(str(folders["llama"]), dtype="float32", limits=LIMITS)


def random_tokens(dice: random.Random, low: int, high: int) -> tuple[int, ...]:
    return tuple(dice.randrange(VOCAB_SIZE) for _ in range(dice.randint(low, high)))


def expect_rows(
    engine: TransformersEngine, model: PreTrainedModel, segments: list[Segment], texts: list[list[int]]
) -> None:
    """Runs the segments and compares every row; `texts` are the whole sequences up to each root."""
    logits = engine.forward(segments)
    row = 0
    for segment, text in zip(segments, texts, strict=True):
        for node in range(ROOT, len(segment.tree)):
            expected = slow_logits(model, text + path_tokens(segment.tree, node))
            np.testing.assert_allclose(logits.row(row), expected, atol=1e-4, rtol=1e-4)
            row += 1
        assert list(engine.tokens(segment.session_id)) == text


def test_random_rounds_of_ragged_trees_equal_stock_decoding(pair: tuple[TransformersEngine, PreTrainedModel]) -> None:
    """Four sessions on three slots: prefill in chunks, rollbacks, compactions, batches, eviction, all at random."""
    engine, model = pair
    dice = random.Random(7)
    texts: dict[str, list[int]] = {}
    for _ in range(10):
        segments: list[Segment] = []
        for session in dice.sample("abcd", dice.randint(1, 3)):
            held = len(engine.tokens(session))
            base = dice.randint(max(0, held - 6), held)
            fresh = random_tokens(dice, 1, 4) if base else random_tokens(dice, 1, 17)
            segments.append(Segment(session, base, fresh, random_tree(dice, 9)))
            texts[session] = [*engine.tokens(session)[:base], *fresh]
        expect_rows(engine, model, segments, [list(texts[segment.session_id]) for segment in segments])
        for segment in segments:
            if dice.random() < 0.8:
                path = path_to(segment.tree, dice.randint(ROOT, len(segment.tree) - 1))
                engine.keep(segment.session_id, path)
                texts[segment.session_id] += [segment.tree.token_ids[node] for node in path]
                assert list(engine.tokens(segment.session_id)) == texts[segment.session_id]


def test_a_greedy_chain_equals_generate(pair: tuple[TransformersEngine, PreTrainedModel]) -> None:
    engine, model = pair
    prompt = [5, 17, 4, 60, 33, 8]
    whole = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=24, eos_token_id=None, pad_token_id=0
    )
    tokens, base = list(prompt), 0
    engine.close(["g"])
    while len(tokens) < whole.shape[1]:
        wrong_then_right = TokenTree((int(whole[0, len(tokens) - 1]), 9), (ROOT, 0))
        logits = engine.forward([Segment("g", base, tuple(tokens[base:]), wrong_then_right)])
        base = len(tokens)
        tokens.append(logits.picks([RowRule(GREEDY, base)] * 3)[0])
        engine.keep("g", [])
    assert tokens == whole[0].tolist()


def test_a_session_that_was_evicted_is_empty_and_the_least_recently_used(llama: TransformersEngine) -> None:
    for session in "abc":
        llama.forward([Segment(session, 0, (1, 2, 3))])
    llama.forward([Segment("a", 3, (4,))])
    llama.forward([Segment("d", 0, (9,))])
    assert [list(llama.tokens(session)) for session in "abcd"] == [[1, 2, 3, 4], [], [1, 2, 3], [9]]


def test_a_batch_never_evicts_its_own_sessions(llama: TransformersEngine) -> None:
    for session in "abc":
        llama.forward([Segment(session, 0, (1, 2, 3))])
    llama.forward([Segment("d", 0, (9,)), Segment("a", 3, (5,))])
    assert [list(llama.tokens(session)) for session in "abcd"] == [[1, 2, 3, 5], [], [1, 2, 3], [9]]


def test_too_many_sessions_in_one_batch_are_refused(llama: TransformersEngine) -> None:
    with pytest.raises(Full, match="at most 3"):
        llama.forward([Segment(session, 0, (1,)) for session in "abcd"])


def test_a_session_past_its_end_is_refused_before_anything_is_touched(llama: TransformersEngine) -> None:
    llama.forward([Segment("a", 0, (1, 2, 3))])
    full = Segment("b", 0, tuple(range(90)), chain(range(10)))
    with pytest.raises(BadRequest, match="at most 100 tokens") as caught:
        llama.forward([Segment("a", 0, (4,)), Segment("b", 0, tuple(range(90)), chain(range(11)))])
    assert caught.value.reason == "SESSION_TOO_LONG"
    assert list(llama.tokens("a")) == [1, 2, 3]
    assert list(llama.tokens("b")) == []
    llama.forward([full])
    llama.keep("b", range(10))
    assert len(llama.tokens("b")) == 100


def test_the_context_length_of_the_model_bounds_the_limits(folders: dict[str, Path]) -> None:
    engine = load(str(folders["llama"]), dtype="float32", limits=EngineLimits(tokens_max=5000))
    assert (engine.card.tokens_max, engine.limits.tokens_max) == (128, 128)


def test_closed_sessions_are_gone_and_unknown_ones_ignored(llama: TransformersEngine) -> None:
    llama.forward([Segment("a", 0, (1, 2, 3))])
    llama.close(["a", "never"])
    assert list(llama.tokens("a")) == []


def test_warming_up_leaves_no_session_behind(llama: TransformersEngine) -> None:
    llama.warm_up()
    assert list(llama.tokens("")) == []


def test_the_card_tells_vocabulary_and_end_tokens(llama: TransformersEngine) -> None:
    assert llama.card.vocab_size == VOCAB_SIZE
    assert llama.card.eos_token_ids == (3,)
    assert len(llama.card.tokenizer_fingerprint) == 64


def test_rows_of_padding_beyond_the_tokenizer_are_never_seen(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    folder = save(build("llama"), tmp_path)
    Tokenizer(models.BPE(vocab={chr(0x100 + i): i for i in range(50)}, merges=[])).save(str(folder / "tokenizer.json"))
    engine = load(str(folder), dtype="float32")
    logits = engine.forward([Segment("a", 0, (1, 2))])
    assert engine.card.vocab_size == logits.row(0).shape[0] == 50


def test_long_prompts_run_in_chunks_of_the_limit(llama: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    run = llama._model.logits
    monkeypatch.setattr(
        llama._model, "logits", lambda step, rows: (counts.append(step.row_count), run(step, rows))[1], raising=False
    )
    llama.forward([Segment("a", 0, tuple(range(12)), chain((1, 2))), Segment("b", 0, (1, 2, 3))])
    assert counts == [5, 5, 2 + 2 + 3]


def test_another_thread_may_take_the_engine_over(llama: TransformersEngine, folders: dict[str, Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        row = pool.submit(lambda: llama.forward([Segment("a", 0, (1, 2, 3))]).row(0)).result()
        assert pool.submit(torch.get_num_threads).result() == 1
    np.testing.assert_allclose(row, slow_logits(build("llama"), [1, 2, 3]), atol=1e-4)


def _without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="check the"):
        load(str(tmp_path / "nothing"))


def test_a_folder_without_config_or_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.json"):
        load(str(_without(save(build("llama"), tmp_path / "a"), "config.json")))
    with pytest.raises(NotFound, match=r"tokenizer\.json"):
        load(str(_without(save(build("llama"), tmp_path / "b"), "tokenizer.json")))


def test_a_wrong_dtype_or_device_says_so(folders: dict[str, Path]) -> None:
    with pytest.raises(BadRequest, match="bfloat16"):
        load(str(folders["llama"]), dtype="int3")
    if not torch.cuda.is_available():
        with pytest.raises(Mismatch, match="no CUDA device"):
            load(str(folders["llama"]), device="cuda")


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    folder = save(build("llama"), tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(MeshError, match="again") as caught:
        load(str(folder))
    assert caught.value.reason == "MODEL_DAMAGED"


def test_weights_that_lack_a_layer_are_refused_instead_of_drawn_at_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(build("llama"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Mismatch, match="up_proj"):
        load(str(folder))


def test_recurrent_models_are_refused_with_the_reason(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(Mismatch, match="rolled back") as caught:
        load(str(save(model, tmp_path)))
    assert caught.value.reason == "MODEL_UNSUPPORTED"


def test_encoder_decoder_models_are_refused_with_the_reason(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    shape = {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8}
    model = T5ForConditionalGeneration(T5Config(vocab_size=VOCAB_SIZE, **shape))
    with pytest.raises(Mismatch, match="decoder-only"):
        load(str(save(model, tmp_path)))
