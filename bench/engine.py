"""Times the transformers engine's forward passes on one model folder, and stock transformers' beside them.

    python bench/engine.py FOLDER --dtype bfloat16 --threads 1 --rows 1 4 8 16 32 --sessions 1 8 --context 128

One line per (sessions, rows per session): milliseconds of a verification of a random tree (forward and keep), of the
picks, and of the same rows through the stock model with its own cache. The systems take turns, so that a noisy
machine disturbs both.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from cosine.core.picking import RowRule
from cosine.core.sampling import Sampling
from cosine.core.tree import ROOT, TokenTree
from cosine.engine.base import EngineLimits, Segment
from cosine.engine.transformers_engine import TransformersEngine, load


def main() -> None:
    """Prints the table."""
    options = _options()
    limits = EngineLimits(sessions_max=max(options.sessions), tokens_max=2048)
    engine = load(options.folder, dtype=options.dtype, device=options.device, threads=options.threads, limits=limits)
    stock = (
        None
        if options.no_stock
        else AutoModelForCausalLM.from_pretrained(options.folder, dtype=getattr(torch, options.dtype))
        .to(options.device)
        .eval()
    )
    print(
        f"{options.folder} {options.dtype} {options.device}, {options.threads} threads, {options.context} tokens cached"
    )
    print("sessions  rows | forward ms  (least)  picks ms  children ms | stock ms  (least)")
    for session_count in options.sessions:
        for row_count in options.rows:
            _line(engine, stock, session_count, row_count, options)


def _line(
    engine: TransformersEngine, stock: torch.nn.Module | None, sessions: int, rows: int, options: argparse.Namespace
) -> None:
    dice = random.Random(1)
    context = tuple(dice.randrange(engine.card.vocab_size) for _ in range(options.context))
    tree = TokenTree(
        tuple(dice.randrange(engine.card.vocab_size) for _ in range(rows - 1)),
        tuple(dice.randint(max(ROOT, node - 3), node - 1) for node in range(rows - 1)),
    )
    engine.forward([Segment(str(session), 0, context) for session in range(sessions)])
    segments = [Segment(str(session), options.context, (7,), tree) for session in range(sessions)]
    sampling = Sampling(temperature=options.temperature, seed=3)
    rules = [RowRule(sampling, options.context + 1 + row) for _ in range(sessions) for row in range(rows)]
    logits = engine.forward(segments)

    def forward() -> None:
        engine.forward(segments)
        for session in range(sessions):
            engine.keep(str(session), [])

    calls: list[Callable[[], object]] = [
        forward,
        lambda: logits.picks(rules),
        lambda: logits.children([0], rules[:1], 4),
    ]
    if stock is not None:
        calls.append(_stock_call(stock, context, sessions, rows))
    times = _interleaved(calls, options.repeats)
    shown = [f"{statistics.median(series):9.3f} ({min(series):.3f})" for series in times]
    print(
        f"{sessions:8d} {rows:5d} | {shown[0]} {shown[1]} {shown[2]} | {shown[3] if stock is not None else '-'}",
        flush=True,
    )


def _stock_call(stock: torch.nn.Module, context: tuple[int, ...], sessions: int, rows: int) -> Callable[[], object]:
    device = next(stock.parameters()).device
    cache = DynamicCache()
    fresh = torch.full((sessions, rows), 7, device=device)
    with torch.inference_mode():
        stock(input_ids=torch.tensor([context] * sessions, device=device), past_key_values=cache)

    def call() -> None:
        with torch.inference_mode():
            stock(input_ids=fresh, past_key_values=cache).logits.float().cpu()
            cache.crop(-rows)

    return call


def _interleaved(calls: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Milliseconds of each call, the calls taking turns; two unmeasured rounds first."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 2):
        for call, series in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            if turn >= 2:
                series.append((time.perf_counter() - started) * 1e3)
    return times


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--sessions", type=int, nargs="+", default=[1])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--no-stock", action="store_true", help="leave the stock model out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
