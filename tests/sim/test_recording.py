"""What is recorded of the shipped models, and that it survives being stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosine.sim.library import KEY_LENGTH, Context, Library, key_after
from cosine.sim.recording import Recording, Variant, read_recording
from tests.sim.parks import DRAFTERS, RECORDINGS, library


@pytest.mark.parametrize("variant", Variant)
def test_the_shipped_recordings_are_whole(variant: Variant) -> None:
    recording = read_recording(RECORDINGS, variant)
    row_count = sum(len(text.token_ids) for text in recording.texts)
    assert set(recording.drafters) == set(DRAFTERS)
    assert {text.domain for text in recording.texts} == {"code", "prose", "math", "sql"}
    assert recording.token_ids.shape == recording.confidences.shape == (5, row_count, 4)
    assert int(recording.token_ids.max()) < recording.vocab_size
    assert (np.diff(recording.confidences.astype(float), axis=2) <= 0).all()
    assert (recording.confidences.astype(float).sum(2) <= 1.01).all()


def test_recordings_at_temperature_1_are_of_the_same_texts() -> None:
    shared, unshared = (read_recording(RECORDINGS, variant) for variant in (Variant.SHARED, Variant.UNSHARED))
    assert shared.texts == unshared.texts
    truth = np.concatenate([text.token_ids for text in shared.texts])
    right = [(recording.token_ids[:, :, 0] == truth).mean() for recording in (shared, unshared)]
    assert right[0] > right[1]


def test_a_guess_that_is_right_looks_like_the_targets_token() -> None:
    recording = read_recording(RECORDINGS, Variant.GREEDY)
    truth = np.concatenate([text.token_ids for text in recording.texts])
    right = recording.token_ids[:, :, 0] == truth
    assert recording.cosines[right].astype(float) == pytest.approx(1.0, abs=1e-3)
    assert float(recording.cosines[~right].astype(float).mean()) < 0.5


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    recording = read_recording(RECORDINGS, Variant.GREEDY)
    recording.save(tmp_path)
    again = read_recording(tmp_path, Variant.GREEDY)
    assert (again.texts, again.drafters, again.vocab_size) == (
        recording.texts,
        recording.drafters,
        recording.vocab_size,
    )
    for name in ("token_ids", "confidences", "cosines"):
        assert np.array_equal(getattr(again, name), getattr(recording, name))


def test_prompts_that_cannot_be_told_apart_are_refused() -> None:
    recording = read_recording(RECORDINGS, Variant.GREEDY)
    text = recording.texts[0]
    twin = replace(text, prompt=text.prompt[:KEY_LENGTH], token_ids=text.token_ids)
    arrays = recording.token_ids, recording.confidences, recording.cosines
    with pytest.raises(ValueError, match="share their first"):
        Library(Recording(Variant.GREEDY, recording.vocab_size, recording.drafters, (text, twin), *arrays))


def test_a_context_knows_how_far_it_is_the_text() -> None:
    script = library().scripts[5]
    context = Context(script)
    context.append(0, script.token_ids[:100])
    assert (context.agreed, context.key) == (100, 0)
    wrong = (script.token_ids[100] + 1) % 2048
    context.append(100, (wrong, script.token_ids[101]))
    assert context.agreed == 100
    assert context.key == key_after(script, 101, key_after(script, 100, 0, wrong), script.token_ids[101]) != 0
    context.append(100, script.token_ids[100:103])
    assert (context.agreed, context.key) == (103, 0)


def test_behind_its_end_a_text_goes_on_somehow_but_always_the_same_way() -> None:
    script = library().scripts[5]
    end = len(script.token_ids)
    assert library().pick(script, end, 0) == library().pick(script, end, 0)
    assert library().children(0, True, script, end, 0) == library().children(0, True, script, end, 0)
