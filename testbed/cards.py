"""Writes the model cards and the figures in the README from what was measured; no figure is typed by hand."""

import json
from dataclasses import asdict
from pathlib import Path

from testbed import models
from testbed.evaluate import Figures, all_tables
from testbed.recipe import DOMAINS, MODEL_NAMES, Recipe, Schedule, Shares

FIGURES_BEGIN, FIGURES_END = "<!-- figures: written by python -m testbed -->", "<!-- end of figures -->"
DATA = (
    "Text that every Python 3.11 installation has, and seeded generators: `code` (standard library sources without "
    "their "
    "docstrings), `prose` (`pydoc_data.topics` and docstrings), `math` (generated word problems), `sql` (generated "
    "SQL and "
    "JSON). Every twelfth source file and topic is held out. No other model's weights or text were used."
)


def write_cards(models_dir: Path, recipe: Recipe, figures: Figures) -> None:
    """One README.md per model folder."""
    for name in MODEL_NAMES:
        folder = models_dir / name
        model = models.load(folder)
        config = model.config
        lines = [
            "---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: text-generation\n---",
            f"# {name}",
            _purpose(name),
            f"LlamaForCausalLM, {models.parameter_count(model):,} parameters (embeddings tied): hidden "
            f"{config.hidden_size}, "
            f"{config.num_hidden_layers} layers, intermediate {config.intermediate_size}, head_dim {config.head_dim}, "
            f"{config.vocab_size} tokens, context {config.max_position_embeddings}, bfloat16.",
            f"## Data\n\n{DATA}",
            f"## Recipe\n\n{_recipe(name, recipe)}",
            f"## Figures\n\n{_figures(name, figures)}",
            "Measured by `python -m testbed.evaluate`; rebuilt by `python -m testbed`. A test bed for speculative "
            "decoding: the text reads like its domain but is not to be relied on.",
        ]
        (folder / "README.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def write_readme(readme: Path, figures: Figures) -> None:
    """Replaces the tables between the two markers of `readme`."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(FIGURES_BEGIN)
    _, after = rest.split(FIGURES_END)
    readme.write_text(f"{before}{FIGURES_BEGIN}\n\n{all_tables(figures)}\n\n{FIGURES_END}{after}", encoding="utf-8")


def save_figures(figures: Figures, path: Path) -> None:
    """Stores the three tables as JSON."""
    path.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")


def load_figures(path: Path) -> Figures:
    """Reads what `save_figures` wrote."""
    return Figures(**json.loads(path.read_text(encoding="utf-8")))


def _purpose(name: str) -> str:
    if name == "target":
        return "The model whose text the mesh serves: it writes Python, reference prose, worked word problems and SQL."
    if name == "drafter-general":
        return "A drafter that knows a little of every domain; the specialists start from it."
    return f"A drafter that specialises in `{name.removeprefix('drafter-')}` and has forgotten much of the rest."


def _run(schedule: Schedule, length: int) -> str:
    return f"{schedule.steps} steps of {schedule.batch} x {length} tokens at a rate of {schedule.learning_rate:g}"


def _recipe(name: str, recipe: Recipe) -> str:
    optimizer = f"Muon for the matrices, AdamW for embeddings and norms, bfloat16 autocast, seed {recipe.seed}. "
    if name == "target":
        return optimizer + _target_recipe(recipe)
    lesson = recipe.continuation_prompt + recipe.continuation_length
    text = (
        f"Next-token training on all domains: {_run(recipe.pretrain_general, recipe.sequence_length)}; then distilled "
        f"on the target's own continuations (half greedy, half at temperature 1) of all domains: "
        f"{_run(recipe.distil_general, lesson)}."
    )
    if name == "drafter-general":
        return optimizer + text
    domain = name.removeprefix("drafter-")
    alone = f" Then distilled on the continuations of `{domain}` alone: {_run(recipe.distil_specialist, lesson)}."
    return optimizer + text + alone


def _target_recipe(recipe: Recipe) -> str:
    first = _run(recipe.pretrain_target, recipe.sequence_length)
    second = _run(recipe.polish_target, recipe.sequence_length)
    return f"Next-token training: {first} ({_shares(recipe.shares)}); then {second} ({_shares(recipe.polish_shares)})."


def _shares(shares: Shares) -> str:
    return ", ".join(f"{domain} {shares[domain]:.0%}" for domain in DOMAINS)


def _figures(name: str, figures: Figures) -> str:
    if name == "target":
        return all_tables(figures)
    return all_tables(
        Figures({name: figures.chain[name]}, {name: figures.tree[name]}, {name: figures.match_rate[name]})
    )
