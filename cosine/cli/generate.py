"""Streams the target's continuation of a prompt from a running mesh to standard output."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, cast

from cosine.cli.address import ASK_ONCE, add_address, reaching
from cosine.client.async_client import AsyncClient
from cosine.client.options import Options
from cosine.client.results import Chunk, Completion, completion_from
from cosine.core.errors import BadRequest

# flag, type, help; absent flags leave the choice to the mesh
OPTIONS: tuple[tuple[str, type, str], ...] = (
    ("max_new_tokens", int, "tokens to generate at most (default: 256)"),
    ("temperature", float, "0: the likeliest token each time (default); 1: as the model says"),
    ("top_k", int, "keep the K likeliest tokens"),
    ("top_p", float, "keep the likeliest tokens whose probability reaches this, in (0, 1]"),
    ("min_p", float, "keep tokens with this share of the largest probability, in [0, 1)"),
    ("seed", int, "same seed, same text; default: a random one, which --json and --stats name"),
    ("repetition_penalty", float, "divides the logits of tokens already seen; 1: none"),
    ("presence_penalty", float, "subtracted once from logits of tokens in the output"),
    ("frequency_penalty", float, "subtracted per occurrence from logits of tokens in the output"),
    ("logprobs", int, "with --json: this many of the best tokens' log-probabilities per position, 0 to 20"),
    ("strategy", str, "how to speculate: cosine, plain, ...; the text is the same"),
    ("priority", int, "-10 to 10: requests of higher priority are verified first"),
    ("request_id", str, "name of the request, for logs and resuming"),
    ("timeout", float, "seconds for the whole generation"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The prompt, where to send it, how to pick tokens, how to show them."""
    parser.add_argument("prompt", help="text to continue; - reads it from standard input")
    add_address(parser)
    for name, kind, text in OPTIONS:
        parser.add_argument("--" + name.replace("_", "-"), dest=name, type=kind, help=text)
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be given again")
    parser.add_argument(
        "--stop-token-id", action="append", type=int, metavar="ID", dest="stop_token_ids", help="end at this token"
    )
    parser.add_argument("--ignore-eos", action="store_true", default=None, help="go on after the model's end of text")
    parser.add_argument("--stats", action="store_true", help="figures on standard error afterwards")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


async def run(arguments: argparse.Namespace) -> int:
    """Prints the text as it comes, or one JSON object at the end."""
    if arguments.logprobs is not None and not arguments.json:
        raise BadRequest("USAGE", "--logprobs are shown as JSON only; add --json")
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    with reaching(arguments.address):
        async with AsyncClient(arguments.address, retry=ASK_ONCE) as client:
            await client.model()  # tells at once that nobody is there; a generation tries for longer
        async with AsyncClient(arguments.address) as client:
            completion, seconds = await _generate(client, prompt, arguments)
    if arguments.json:
        print(json.dumps(_as_json(completion, seconds), ensure_ascii=False))
    if arguments.stats:
        print(_stats(completion, seconds), file=sys.stderr)
    return 0


async def _generate(client: AsyncClient, prompt: str, arguments: argparse.Namespace) -> tuple[Completion, float]:
    options = _options(arguments)
    chunks: list[Chunk] = []
    start = time.perf_counter()
    async with aclosing(client.generate(prompt, **options)) as stream:
        async for chunk in stream:
            chunks.append(chunk)
            if not arguments.json:
                print(chunk.text, end="", flush=True)
    seconds = time.perf_counter() - start
    if not arguments.json:
        print(flush=True)
    return completion_from(chunks, options["seed"]), seconds


def _options(arguments: argparse.Namespace) -> Options:
    from secrets import randbits

    names = [name for name, _, _ in OPTIONS] + ["stop", "stop_token_ids", "ignore_eos"]
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    return cast(Options, {"seed": randbits(64), **options})


def _as_json(completion: Completion, seconds: float) -> dict[str, Any]:
    fields = asdict(completion)
    if not completion.logprobs:
        del fields["logprobs"]
    fields["speculation"]["acceptance_length"] = completion.speculation.acceptance_length
    return fields | {"seconds": seconds}


def _stats(completion: Completion, seconds: float) -> str:
    tokens, speculation = completion.usage.output_token_count, completion.speculation
    drafters = ", ".join(speculation.drafters) or "none"
    return (
        f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:.1f} tokens/s, ended by {completion.finish_reason}; "
        f"strategy {speculation.strategy}, {speculation.acceptance_length:.2f} tokens per verdict, "
        f"drafters: {drafters}; seed {completion.seed}"
    )
