"""The text is the target's own: through the whole mesh, token ids, text and reason are those of plain decoding."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from generations import Asking
from plain import NEVER, Row, plain, prompt_ids, toy_text

from cosine.core.strategy import PRESETS, Choice
from cosine.engine.toy import EOS_TOKEN_ID

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEMPERATURES = (0.0, 0.7, 1.0)
EVERY_WAY = [{"strategy": strategy, "temperature": temperature} for strategy in PRESETS for temperature in TEMPERATURES]
ALWAYS_DRAFTS = [  # streamed strategies verify on without drafts where the target is as fast as the drafters
    name
    for name, preset in PRESETS.items()
    if preset.choice is not Choice.NONE and not preset.adaptive and preset.runs == 1
]
GREEDY_AND_SAMPLED = [way for way in EVERY_WAY if way["temperature"] != 0.7]
LONG = {"max_new_tokens": 48, "ignore_eos": True, "seed": 11}
RUN_LENGTH = 12  # offsets looked at; no strategy accepts longer runs at once than its depth of 8

RULES: dict[str, dict[str, Any]] = {
    "top_k": {"top_k": 5},
    "top_k_of_one": {"top_k": 1},
    "top_p": {"top_p": 0.6},
    "min_p": {"min_p": 0.2},
    "all_filters": {"top_k": 40, "top_p": 0.9, "min_p": 0.05},
    "repetition_penalty": {"repetition_penalty": 1.4},
    "repetition_reward": {"repetition_penalty": 0.6},
    "presence_penalty": {"presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 0.8},
    "frequency_reward": {"frequency_penalty": -1.0},
    "all_penalties": {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.5, "top_p": 0.95},
    "logit_bias": {"logit_bias": {65: 4.0, 66: 3.0, 10: -100.0}},
    "penalties_and_bias": {"presence_penalty": 2.0, "logit_bias": {65: 6.0}},
}


@pytest.mark.parametrize("way", EVERY_WAY, ids=lambda way: f"{way['strategy']}-{way['temperature']}")
async def test_every_strategy_emits_the_plain_text_at_every_temperature(ask: Asking, way: dict[str, Any]) -> None:
    completion = await ask.one("One request alone. ", **LONG, **way)
    assert completion.speculation.strategy == way["strategy"]
    await ask.all(*((f"{index} of eight at once: ", {**LONG, **way, "seed": index}) for index in range(8)))


@pytest.mark.parametrize("strategy", ALWAYS_DRAFTS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
async def test_the_equality_is_one_of_speculation(ask: Asking, strategy: str, temperature: float) -> None:
    completion = await ask.one("One request alone. ", strategy=strategy, temperature=temperature, **LONG)
    assert completion.speculation.accepted_token_count > 0
    assert completion.speculation.round_count < len(completion.token_ids)


async def test_strategies_share_a_batch(ask: Asking) -> None:
    ways = list(itertools.islice(itertools.cycle(EVERY_WAY), 16))
    await ask.all(*(([index, 7, 7], {**LONG, **way, "seed": index}) for index, way in enumerate(ways)))


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
async def test_every_sampling_rule_is_the_targets(ask: Asking, rules: dict[str, Any]) -> None:
    await ask.all(*(("Rules, rules. ", {**LONG, "max_new_tokens": 30, **rules, **way}) for way in GREEDY_AND_SAMPLED))


async def test_rules_of_one_request_do_not_touch_its_neighbours_in_the_batch(ask: Asking) -> None:
    await ask.all(
        *(
            ("Neighbours. ", {**LONG, **rules, "temperature": 0.7, "seed": seed})
            for seed, rules in enumerate(RULES.values())
        )
    )


async def test_a_rule_that_matters_changes_the_text(ask: Asking) -> None:
    without = plain("Rules, rules. ", temperature=1.0, **LONG)
    for rules in RULES.values():
        assert plain("Rules, rules. ", temperature=1.0, **LONG, **rules).token_ids != without.token_ids


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**63, 2**64 - 1])
async def test_the_same_seed_gives_the_same_text_and_another_seed_another(ask: Asking, seed: int) -> None:
    options = {**LONG, "temperature": 1.0}
    first, again = await ask.all(("Seeds. ", {**options, "seed": seed}), ("Seeds. ", {**options, "seed": seed}))
    assert first.token_ids == again.token_ids
    assert (await ask.one("Seeds. ", **{**options, "seed": seed ^ 1})).token_ids != first.token_ids


async def test_a_seed_the_client_drew_is_told_and_gives_the_text_again(ask: Asking) -> None:
    drawn = await ask.client.complete("Any seed. ", temperature=1.0, max_new_tokens=20, ignore_eos=True)
    again = await ask.one("Any seed. ", temperature=1.0, max_new_tokens=20, ignore_eos=True, seed=drawn.seed)
    assert (again.token_ids, again.text) == (drawn.token_ids, drawn.text)


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_few_tokens_are_counted_exactly(ask: Asking, count: int) -> None:
    for completion in await ask.all(*(("Few. ", {"max_new_tokens": count, "seed": 3, **way}) for way in EVERY_WAY)):
        assert len(completion.token_ids) <= count


@pytest.mark.parametrize("way", GREEDY_AND_SAMPLED, ids=lambda way: f"{way['strategy']}-{way['temperature']}")
async def test_a_stop_token_ends_the_text_at_every_offset_of_a_run(ask: Asking, way: dict[str, Any]) -> None:
    options = {**LONG, **way, "max_new_tokens": 40}
    tokens = plain("Stop here. ", **_reference(options)).token_ids[:RUN_LENGTH]
    requests = [("Stop here. ", {**options, "stop_token_ids": [token]}) for token in tokens]
    for token, completion in zip(tokens, await ask.all(*requests), strict=True):
        assert completion.finish_reason == "stop_token"
        assert completion.token_ids[-1] == token


@pytest.mark.parametrize("way", GREEDY_AND_SAMPLED, ids=lambda way: f"{way['strategy']}-{way['temperature']}")
async def test_a_stop_string_cuts_the_text_at_every_offset_of_a_run(ask: Asking, way: dict[str, Any]) -> None:
    options = {**LONG, **way, "max_new_tokens": 40}
    text = plain("Cut here. ", **_reference(options)).text
    windows = {text[at : at + size] for at in range(2 * RUN_LENGTH) for size in (1, 2)}
    stops = sorted(stop for stop in windows if stop and NEVER not in stop)
    assert len(stops) >= RUN_LENGTH
    for completion in await ask.all(*(("Cut here. ", {**options, "stop": stop}) for stop in stops)):
        assert completion.finish_reason == "stop_string"


async def test_the_first_of_several_stop_strings_wins(ask: Asking) -> None:
    text = plain("Several. ", **LONG).text
    stops = [stop for at in range(4, 40) if NEVER not in (stop := text[at : at + 2])][:16]
    completions = await ask.all(*(("Several. ", {**LONG, "strategy": name, "stop": stops}) for name in PRESETS))
    assert all(completion.finish_reason == "stop_string" for completion in completions)


async def test_the_models_end_token_ends_the_text_at_every_offset_of_a_run(ask: Asking) -> None:
    options = {"temperature": 1.0, "logit_bias": {EOS_TOKEN_ID: 6.0}, "max_new_tokens": 40, "seed": 1}
    by_length = {len(plain(f"End {index:03}", **options).token_ids): f"End {index:03}" for index in range(400)}
    prompts = [by_length[length] for length in range(1, RUN_LENGTH)]
    requests = [(prompt, {**options, "strategy": strategy}) for prompt in prompts for strategy in PRESETS]
    for completion in await ask.all(*requests):
        assert completion.finish_reason == "stop_token"
        assert completion.token_ids[-1] == EOS_TOKEN_ID


async def test_an_end_token_that_is_ignored_is_a_token_like_others(ask: Asking) -> None:
    options = {**LONG, "temperature": 1.0, "logit_bias": {EOS_TOKEN_ID: 6.0}}
    for completion in await ask.all(*(("On and on. ", {**options, "strategy": name}) for name in PRESETS)):
        assert EOS_TOKEN_ID in completion.token_ids[:-1]
        assert completion.finish_reason == "length"


@pytest.mark.parametrize("rules", [{}, {"presence_penalty": 1.0, "logit_bias": {65: 3.0}}], ids=["bare", "with-rules"])
async def test_logprobs_are_the_log_softmax_of_the_targets_logits(ask: Asking, rules: dict[str, Any]) -> None:
    options = {**LONG, "max_new_tokens": 30, "logprobs": 4, **rules}
    for way in EVERY_WAY:
        rows = plain("Likely. ", **_reference({**options, **way})).rows
        completion = await ask.one("Likely. ", **{**options, **way})
        for token, entry, row in zip(completion.token_ids, completion.logprobs, rows, strict=True):
            values = _log_softmax(row)
            best = sorted(range(len(values)), key=lambda token, values=values: (-values[token], token))[:4]  # type: ignore[misc]  # mypy infers no lambda with a default
            assert entry.logprob == pytest.approx(values[token], abs=1e-5)
            assert [name for name, _ in entry.top] == best
            assert [value for _, value in entry.top] == pytest.approx([values[name] for name in best], abs=1e-5)


async def test_logprobs_of_no_alternatives_are_the_picks_alone(ask: Asking) -> None:
    completion = await ask.one("Alone. ", **LONG, logprobs=0)
    assert len(completion.logprobs) == len(completion.token_ids)
    assert all(entry.top == () for entry in completion.logprobs)


@pytest.mark.parametrize("prompt", ["a", "Grüße, 世界! \N{SNOWMAN}\n", "\x00\x01", " " * 40])
async def test_a_prompt_is_the_same_as_text_and_as_token_ids(ask: Asking, prompt: str) -> None:
    requests = [(form, {**LONG, **way}) for form in (prompt, prompt_ids(prompt)) for way in EVERY_WAY[::4]]
    completions = await ask.all(*requests)
    assert {completion.usage.prompt_token_count for completion in completions} == {len(prompt.encode())}


async def test_every_token_of_the_vocabulary_can_be_prompted(ask: Asking) -> None:
    await ask.one([EOS_TOKEN_ID, *range(256)], **LONG)


@pytest.mark.parametrize("length", [255, 256, 257, 513, 1600])
async def test_a_prompt_of_several_chunks_is_read_whole(ask: Asking, length: int) -> None:
    prompt = [(7 * index) % 251 for index in range(length)]
    await ask.all(*((prompt, {**LONG, "strategy": name, "temperature": 1.0}) for name in PRESETS))


async def test_long_prompts_and_short_ones_share_the_mesh(ask: Asking) -> None:
    await ask.all(
        *(([index] * (1 if index % 2 else 900), {**LONG, "seed": index, "temperature": 0.7}) for index in range(8))
    )


async def test_a_text_fills_the_context_to_the_last_token(ask: Asking) -> None:
    model = await ask.client.model()
    for room in (1, 2, 40):
        prompt = [index % 250 for index in range(model.tokens_max - room)]
        for completion in await ask.all(
            *((prompt, {"max_new_tokens": room, "ignore_eos": True, "strategy": name}) for name in PRESETS)
        ):
            assert len(completion.token_ids) == room


async def test_chunks_never_hold_half_a_character(ask: Asking) -> None:
    snowman = "\N{SNOWMAN}".encode()
    bias = dict.fromkeys(snowman, 30.0)
    options = {"max_new_tokens": 48, "ignore_eos": True, "logit_bias": bias, "temperature": 1.0, "seed": 4}
    tokens = plain("Snow. ", **options).token_ids
    chunks = [chunk async for chunk in ask.client.generate("Snow. ", **options)]  # type: ignore[arg-type]  # a dict of keywords has one type of values
    assert "".join(chunk.text for chunk in chunks) == toy_text(tokens)
    assert any(len(character.encode()) == 3 and character != NEVER for character in toy_text(tokens))


def _reference(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "strategy"}


def _log_softmax(row: Row) -> list[float]:
    wide = row.astype(np.float64)
    return list(wide - wide.max() - np.log(np.exp(wide - wide.max()).sum()))
