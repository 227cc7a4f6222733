"""The shipped folders load, stay small, share a tokenizer, and the specialists are specialists."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from testbed import models
from testbed.cards import load_figures
from testbed.continuations import continue_rows
from testbed.evaluate import mean_round, target_texts, tokens_per_round
from testbed.prompts import load_prompts
from testbed.recipe import DOMAINS, DRAFTER_NAMES, MODEL_NAMES, MODELS_DIR, PROMPTS_FILE, Domain

TARGET_PARAMETERS_MAX = 8_000_000
DRAFTER_PARAMETERS_MAX = 1_000_000
MODELS_BYTES_MAX = 20 * 2**20
HOME_GAIN_MIN = 1.15
GENERAL_MEAN_MIN, GENERAL_MEAN_MAX = 2.0, 4.5
HOME_MEAN_MIN = 3.0


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_folder_loads_in_bfloat16_within_its_size(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODELS_DIR / name)
    limit = TARGET_PARAMETERS_MAX if name == "target" else DRAFTER_PARAMETERS_MAX
    assert models.parameter_count(model) <= limit
    assert model.dtype == torch.bfloat16
    assert model.config.max_position_embeddings == 2048
    assert (MODELS_DIR / name / "README.md").stat().st_size > 500


def test_all_folders_together_are_small() -> None:
    assert sum(path.stat().st_size for path in MODELS_DIR.rglob("*") if path.is_file()) <= MODELS_BYTES_MAX


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_all_models_share_one_tokenizer(file: str) -> None:
    assert len({(MODELS_DIR / name / file).read_bytes() for name in MODEL_NAMES}) == 1


def test_the_tokenizer_gives_back_what_it_was_given() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS_DIR / "target")
    text = "def f(x):\n    return {'ü': 127}  # naïve, 100 %\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.eos_token_id == json.loads((MODELS_DIR / "target" / "config.json").read_text())["eos_token_id"]


@pytest.mark.parametrize(
    ("domain", "prompt", "sign"),
    [
        ("sql", "SELECT id, name\nFROM users\n", "WHERE"),
        ("math", "Problem 2: Maria is 12 years old. Omar is 3 years older than Maria. How old", "Answer:"),
        ("code", "class Reader:\n\n    def __init__(self, stream):\n", "self"),
        ("prose", "Return the name of the file", "the"),
    ],
)
def test_the_targets_text_reads_as_its_domain(domain: Domain, prompt: str, sign: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS_DIR / "target")
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    text = continue_rows(models.load(MODELS_DIR / "target"), ids, 100, None)
    assert sign in tokenizer.decode(text[0])


def test_every_specialist_wins_at_home_and_loses_abroad() -> None:
    chain = load_figures(MODELS_DIR / "figures.json").chain
    general = chain["drafter-general"]
    for home in DOMAINS:
        row = chain[f"drafter-{home}"]
        assert row[home] >= HOME_GAIN_MIN * general[home], home
        assert all(row[abroad] < general[abroad] for abroad in DOMAINS if abroad != home), home


def test_the_means_lie_where_cooperation_has_something_to_win() -> None:
    chain = load_figures(MODELS_DIR / "figures.json").chain
    mean = sum(chain["drafter-general"].values()) / len(DOMAINS)
    assert GENERAL_MEAN_MIN <= mean <= GENERAL_MEAN_MAX
    assert sum(chain[f"drafter-{home}"][home] for home in DOMAINS) / len(DOMAINS) >= HOME_MEAN_MIN


def test_a_few_prompts_show_the_same_on_the_shipped_weights() -> None:
    """Four prompts are too few to judge one domain (the committed figures do), so this looks at the means."""
    prompts = load_prompts(PROMPTS_FILE)
    few = [prompt for domain in DOMAINS for prompt in [p for p in prompts if p.domain == domain][:4]]
    texts = target_texts(MODELS_DIR / "target", few, sampled=False)
    rows = {name: mean_round(models.load(MODELS_DIR / name), texts, 1) for name in DRAFTER_NAMES}
    general = rows["drafter-general"]
    assert sum(rows[f"drafter-{home}"][home] for home in DOMAINS) > HOME_GAIN_MIN * sum(general.values())
    assert all(sum(rows[f"drafter-{home}"].values()) < sum(general.values()) for home in DOMAINS)


@pytest.mark.parametrize(
    ("hits", "expected"),
    [([True] * 18, (18, 2)), ([False] * 3, (3, 3)), ([True, False, True, True], (4, 2)), ([], (0, 0))],
)
def test_a_round_commits_what_was_accepted_and_one_more(hits: list[bool], expected: tuple[int, int]) -> None:
    assert tokens_per_round(hits) == expected


def test_every_drafter_has_figures_for_every_domain() -> None:
    figures = load_figures(Path(MODELS_DIR) / "figures.json")
    assert all(set(table[name]) == set(DOMAINS) for table in (figures.chain, figures.tree) for name in DRAFTER_NAMES)
