"""Records the shipped models for the simulator: `python -m testbed.recording` writes `testbed/recordings/*.npz`.

The target writes on from held-out prompts, greedily and at temperature 1; then one pass of every drafter over each
finished text gives its best children before every token, with the confidences that drafting gives them (core.picking).
It knows nothing of the simulator beyond the file's format (cosine.sim.recording).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from cosine.core.picking import RowRule, pick, top_children
from cosine.core.sampling import GREEDY, Sampling
from cosine.sim.recording import Recording, Text, Variant
from cosine.text.command_line import Parser, bordered, check_folder, whole
from testbed import models
from testbed.prompts import Prompt, load_prompts
from testbed.recipe import DOMAINS, DRAFTER_NAMES, MODEL_NAMES, MODELS_DIR, PROMPTS_FILE, TESTBED_DIR

RECORDINGS_DIR = TESTBED_DIR / "recordings"
PROMPTS_PER_DOMAIN = 12
NEW_TOKENS = 128
WIDTH = 4
FIRST_SEED = 1


def text_sampling(text: Text) -> Sampling:
    """The rules of a text at temperature 1."""
    return Sampling(temperature=1.0, seed=text.seed)


def choose_prompts(prompts: list[Prompt], per_domain: int) -> list[Prompt]:
    """The first prompts of every domain."""
    return [
        prompt for domain in DOMAINS for prompt in [entry for entry in prompts if entry.domain == domain][:per_domain]
    ]


@torch.inference_mode()
def write_on(target: LlamaForCausalLM, prompt: tuple[int, ...], sampling: Sampling, count: int) -> tuple[int, ...]:
    """The target's `count` tokens after a prompt; it goes on behind an end of text, as a request may ask it to."""
    step_ids, cache, written = torch.tensor([prompt]), None, list[int]()
    for step in range(count):
        out = target(input_ids=step_ids, past_key_values=cache, logits_to_keep=1)
        cache = out.past_key_values
        written.append(pick(out.logits[0, -1].numpy(), RowRule(sampling, len(prompt) + step)))
        step_ids = torch.tensor([[written[-1]]])
    return tuple(written)


def write_texts(folder: Path, prompts: list[Prompt], temperature: float, count: int) -> tuple[Text, ...]:
    """The target's continuation of every prompt, each with a seed of its own."""
    target, tokenizer = models.load(folder), AutoTokenizer.from_pretrained(folder)
    texts: list[Text] = []
    for number, prompt in enumerate(prompts):
        ids = tuple(tokenizer(prompt.text).input_ids)
        seed = FIRST_SEED + number
        written = write_on(target, ids, Sampling(temperature=temperature, seed=seed), count)
        texts.append(Text(prompt.domain, seed, ids, written, sum(len(text.token_ids) for text in texts)))
    return tuple(texts)


@torch.inference_mode()
def guess(drafter: LlamaForCausalLM, text: Text, sampling: Sampling) -> tuple[NDArray[np.uint16], NDArray[np.float16]]:
    """The drafter's best children before every new token of a text and its confidences, both [tokens, WIDTH]."""
    ids = torch.tensor([(*text.prompt, *text.token_ids[:-1])])
    rows = drafter(input_ids=ids, use_cache=False).logits[0, len(text.prompt) - 1 :].numpy()
    found = [top_children(row, RowRule(sampling, len(text.prompt) + step), WIDTH) for step, row in enumerate(rows)]
    return np.array([best for best, _ in found], np.uint16), np.array([sure for _, sure in found], np.float16)


def record(models_dir: Path, texts: tuple[Text, ...], variant: Variant) -> Recording:
    """All drafters' guesses about `texts`."""
    embedding = models.load(models_dir / "target").model.embed_tokens.weight.detach()
    directions = torch.nn.functional.normalize(embedding, dim=1).numpy()
    truth = np.concatenate([text.token_ids for text in texts])
    tokens, confidences, cosines = [], [], []
    for name in DRAFTER_NAMES:
        drafter = models.load(models_dir / name)
        parts = [guess(drafter, text, text_sampling(text) if variant is Variant.SHARED else GREEDY) for text in texts]
        tokens.append(np.concatenate([best for best, _ in parts]))
        confidences.append(np.concatenate([sure for _, sure in parts]))
        cosines.append((directions[tokens[-1][:, 0]] * directions[truth]).sum(-1).astype(np.float16))
    names = tuple(name.removeprefix("drafter-") for name in DRAFTER_NAMES)
    arrays = np.stack(tokens), np.stack(confidences), np.stack(cosines)
    return Recording(variant, directions.shape[0], names, texts, *arrays)


def main(words: Sequence[str] | None = None) -> int:
    """Writes the three variants and prints what they hold. The exit status."""
    parser = Parser(prog="testbed.recording", usage="python -m testbed.recording [OPTION ...]", description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS_DIR)
    parser.add_argument("--out", type=Path, default=RECORDINGS_DIR)
    parser.add_argument("--per-domain", type=whole(), default=PROMPTS_PER_DOMAIN)
    parser.add_argument("--new-tokens", type=whole(), default=NEW_TOKENS)
    arguments = parser.parse_args(words)
    return bordered("testbed.recording", partial(_run, arguments), "stopped; variants that were written are kept")


def _run(arguments: argparse.Namespace) -> int:
    models.check_folders(*(arguments.models / name for name in MODEL_NAMES))
    check_folder("--out", arguments.out)
    torch.set_num_threads(1)
    disable_progress_bar()
    began = time.monotonic()
    prompts = choose_prompts(load_prompts(PROMPTS_FILE), arguments.per_domain)
    target = arguments.models / "target"
    greedy = write_texts(target, prompts, 0.0, arguments.new_tokens)
    sampled = write_texts(target, prompts, 1.0, arguments.new_tokens)
    for variant in Variant:
        recording = record(arguments.models, greedy if variant is Variant.GREEDY else sampled, variant)
        path = recording.save(arguments.out)
        truth = np.concatenate([text.token_ids for text in recording.texts])
        rates = (recording.token_ids[:, :, 0] == truth).mean(-1)
        shares = ", ".join(f"{name} {rate:.2f}" for name, rate in zip(recording.drafters, rates, strict=True))
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, {len(truth)} tokens, first guesses right: {shares}")
    print(f"done in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
