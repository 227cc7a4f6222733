"""`python -m testbed`: runs the recipe, continuing where an earlier run stopped; then measures and writes the cards."""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from cosine.text.command_line import Parser, bordered, positive, whole
from testbed.cards import save_figures, write_cards, write_readme
from testbed.evaluate import all_tables, measure
from testbed.pipeline import Pipeline
from testbed.prompts import cut_prompts, load_prompts, save_prompts
from testbed.recipe import BUILD_DIR, DOMAINS, DRAFTER_NAMES, MODELS_DIR, PROMPTS_FILE, SHIPPED, TESTBED_DIR

STAGES = ("pretrained", "target", *(f"lessons-{domain}" for domain in DOMAINS), "general", *DRAFTER_NAMES)


def main(words: Sequence[str] | None = None) -> int:
    """Trains, ships, measures; every stage is kept in the build folder. The exit status."""
    arguments = _arguments(words)
    return bordered("testbed", partial(_run, arguments), "stopped; what is trained is kept, the same command goes on")


def _run(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(arguments.threads)
    disable_progress_bar()  # the stages print their own lines
    began = time.monotonic()
    recipe = SHIPPED.scaled(arguments.factor)
    for name in arguments.redo:
        (arguments.build / f"{name}.pt").unlink(missing_ok=True)
    pipeline = Pipeline(recipe, arguments.build, arguments.out, arguments.device)
    if not PROMPTS_FILE.exists():
        save_prompts(cut_prompts(pipeline.tokenizer.backend_tokenizer, recipe), PROMPTS_FILE)
    pipeline.run()
    print(f"trained in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    figures = measure(arguments.out, load_prompts(PROMPTS_FILE))
    print(all_tables(figures))
    save_figures(figures, arguments.out / "figures.json")
    write_cards(arguments.out, recipe, figures)
    if arguments.out.resolve() == MODELS_DIR.resolve():
        write_readme(TESTBED_DIR / "README.md", figures)
    print(f"all done in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="testbed", usage="python -m testbed [OPTION ...]", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=whole(), default=1, help="torch threads on a CPU")
    parser.add_argument("--out", type=Path, default=MODELS_DIR, help="where the model folders go")
    parser.add_argument("--build", type=Path, default=BUILD_DIR, help="where checkpoints are kept")
    parser.add_argument("--factor", type=positive, default=1.0, help="share of the steps, for a first look")
    stages = f"stages to train anew: {', '.join(STAGES)}"
    parser.add_argument("--redo", nargs="*", default=[], choices=STAGES, metavar="STAGE", help=stages)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
