"""Measures drafters against the target: `python -m testbed.evaluate [--json FILE]`.

Tokens per round = accepted tokens + 1 bonus token, for a greedy chain of depth 8 against the target's greedy
continuation of the held-out prompts. A drafted token only counts while everything before it was accepted, so one pass
of the drafter over the target's own text decides all of its rounds.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from cosine.text.command_line import Parser, bordered, check_file
from testbed import models
from testbed.continuations import gumbel_noise
from testbed.prompts import Prompt, load_prompts
from testbed.recipe import DOMAINS, DRAFTER_NAMES, MODEL_NAMES, MODELS_DIR, PROMPTS_FILE, Domain
from testbed.tokens import END_ID

DEPTH = 8
NEW_TOKENS = 96
TREE_WIDTH = 4
NOISE_SEED = 7

Table = dict[str, dict[Domain, float]]


@dataclass(frozen=True, slots=True)
class Text:
    """What the target wrote after a prompt: `ids` [prompt + new], and the noise [new, vocab] it was sampled with."""

    domain: Domain
    ids: torch.Tensor
    prompt_length: int
    noise: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Drafters x domains: tokens per round of a chain, of a top-4 tree, and the match rate at temperature 1."""

    chain: Table
    tree: Table
    match_rate: Table


def tokens_per_round(hits: list[bool], depth: int = DEPTH) -> tuple[int, int]:
    """Committed tokens and rounds for a text whose token `i` the drafter would have guessed iff `hits[i]`."""
    at, rounds = 0, 0
    while at < len(hits):
        accepted = 0
        while accepted < depth and at + accepted < len(hits) and hits[at + accepted]:
            accepted += 1
        at, rounds = at + accepted + 1, rounds + 1
    return len(hits), rounds


@torch.inference_mode()
def write_text(target: LlamaForCausalLM, prompt: Prompt, ids: list[int], noise: torch.Tensor | None) -> Text:
    """The target's continuation of one prompt: greedy, or its sample under the given noise. Stops at the end token."""
    context, cache = torch.tensor([ids]), None
    step_ids = context
    for step in range(NEW_TOKENS):
        out = target(input_ids=step_ids, past_key_values=cache, logits_to_keep=1)
        scores, cache = out.logits[0, -1], out.past_key_values
        step_ids = (scores if noise is None else scores + noise[step]).argmax().view(1, 1)
        context = torch.cat([context, step_ids], dim=1)
        if int(step_ids) == END_ID:
            break
    return Text(prompt.domain, context[0], len(ids), noise)


@torch.inference_mode()
def _hits(drafter: LlamaForCausalLM, text: Text, width: int) -> list[bool]:
    """For each new token: is it among the drafter's `width` best, given all true tokens before it?"""
    logits = drafter(input_ids=text.ids[None, :-1], use_cache=False).logits[0, text.prompt_length - 1 :]
    if text.noise is not None:
        logits = logits + text.noise[: len(logits)]
    truth = text.ids[text.prompt_length :, None]
    return (logits.topk(width, dim=-1).indices == truth).any(-1).tolist()  # type: ignore[no-any-return]  # torch's tolist() says Any


def mean_round(drafter: LlamaForCausalLM, texts: list[Text], width: int) -> dict[Domain, float]:
    """Tokens per round of one drafter in every domain, a draft being right when it is among the `width` best."""
    row: dict[Domain, float] = {}
    for domain in DOMAINS:
        counts = [tokens_per_round(_hits(drafter, text, width)) for text in texts if text.domain == domain]
        row[domain] = round(sum(tokens for tokens, _ in counts) / max(1, sum(rounds for _, rounds in counts)), 3)
    return row


def _match_rate(drafter: LlamaForCausalLM, texts: list[Text]) -> dict[Domain, float]:
    row: dict[Domain, float] = {}
    for domain in DOMAINS:
        hits = [hit for text in texts if text.domain == domain for hit in _hits(drafter, text, 1)]
        row[domain] = round(sum(hits) / max(1, len(hits)), 3)
    return row


def target_texts(folder: Path, prompts: list[Prompt], sampled: bool) -> list[Text]:
    """The target's continuations of `prompts`: greedy, or at temperature 1 under seeded noise."""
    target, tokenizer = models.load(folder), AutoTokenizer.from_pretrained(folder)
    dice = torch.Generator().manual_seed(NOISE_SEED)
    shape = torch.Size((NEW_TOKENS, target.config.vocab_size))
    return [
        write_text(target, prompt, tokenizer(prompt.text).input_ids, gumbel_noise(shape, dice) if sampled else None)
        for prompt in prompts
    ]


def measure(models_dir: Path, prompts: list[Prompt], names: tuple[str, ...] = DRAFTER_NAMES) -> Figures:
    """Measures the drafters called `names` under `models_dir` on `prompts`."""
    greedy = target_texts(models_dir / "target", prompts, sampled=False)
    sampled = target_texts(models_dir / "target", prompts, sampled=True)
    figures = Figures({}, {}, {})
    for name in names:
        drafter = models.load(models_dir / name)
        figures.chain[name] = mean_round(drafter, greedy, 1)
        figures.tree[name] = mean_round(drafter, greedy, TREE_WIDTH)
        figures.match_rate[name] = _match_rate(drafter, sampled)
    return figures


def as_table(title: str, table: Table) -> str:
    """A Markdown table of drafters x domains with the mean of each row."""
    lines = [f"| {title} | {' | '.join(DOMAINS)} | mean |", "|---|" + "---|" * (len(DOMAINS) + 1)]
    for name, row in table.items():
        mean = sum(row.values()) / len(row)
        lines.append(f"| {name} | {' | '.join(f'{row[domain]:.2f}' for domain in DOMAINS)} | {mean:.2f} |")
    return "\n".join(lines)


def all_tables(figures: Figures) -> str:
    """The three tables, one below the other."""
    return "\n\n".join(
        [
            as_table(f"tokens per round, chain of {DEPTH}", figures.chain),
            as_table(f"tokens per round, top-{TREE_WIDTH} tree of depth {DEPTH}", figures.tree),
            as_table("match rate at temperature 1, shared noise", figures.match_rate),
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    """Prints the tables; with `--json` also writes them. The exit status."""
    parser = Parser(prog="testbed.evaluate", usage="python -m testbed.evaluate [OPTION ...]", description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS_DIR)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(words)
    return bordered("testbed.evaluate", partial(_run, arguments), "stopped; nothing was kept")


def _run(arguments: argparse.Namespace) -> int:
    models.check_folders(*(arguments.models / name for name in MODEL_NAMES))
    if arguments.json:
        check_file("--json", arguments.json)
    torch.set_num_threads(1)
    disable_progress_bar()
    figures = measure(arguments.models, load_prompts(PROMPTS_FILE))
    print(all_tables(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
