"""The data is the same for the same seed, and the prompts are held out."""

import pytest

from testbed import queries, wordproblems
from testbed.corpus import HELD_OUT_SEEDS_FROM, documents, held_out_documents, is_held_out
from testbed.prompts import TOKENS_MAX, TOKENS_MIN, load_prompts
from testbed.recipe import DOMAINS, PROMPTS_FILE, SHIPPED, Domain


@pytest.mark.parametrize("write_document", [wordproblems.write_document, queries.write_document])
def test_a_seed_always_writes_the_same_document(write_document: object) -> None:
    assert callable(write_document)
    assert write_document(3) == write_document(3)
    assert write_document(3) != write_document(4)


def test_the_generators_write_what_they_wrote_when_the_models_were_trained() -> None:
    assert wordproblems.write_document(0).startswith(MATH_BEGINNING)
    assert queries.write_document(0).startswith(SQL_BEGINNING)


def test_every_domain_has_thirty_two_short_prompts() -> None:
    prompts = load_prompts(PROMPTS_FILE)
    assert [prompt.domain for prompt in prompts] == [domain for domain in DOMAINS for _ in range(32)]
    assert all(len(prompt.text) >= TOKENS_MIN for prompt in prompts)
    assert all(len(prompt.text) <= 12 * TOKENS_MAX for prompt in prompts)
    assert len({prompt.text for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_prompt_occurs_in_any_training_document(domain: Domain) -> None:
    texts = "\0".join(documents(domain, SHIPPED.generated_documents))
    assert [prompt.text for prompt in load_prompts(PROMPTS_FILE) if prompt.text in texts] == []


def test_generated_prompts_come_from_held_out_seeds() -> None:
    assert SHIPPED.generated_documents < HELD_OUT_SEEDS_FROM
    held_out = "\0".join([*held_out_documents("math"), *held_out_documents("sql")])
    prompts = [prompt for prompt in load_prompts(PROMPTS_FILE) if prompt.domain in ("math", "sql")]
    assert all(prompt.text in held_out for prompt in prompts)


def test_a_name_is_always_held_out_or_never() -> None:
    assert [is_held_out(name) for name in ("abc.py", "numbers.py", "topic if")] == [True, False, True]


MATH_BEGINNING = "Problem 1: Oscar and Bruno share 45 postcards equally among 4 children. How many postcards"
SQL_BEGINNING = "CREATE TABLE invoices (\n    id INTEGER PRIMARY KEY,\n    rating INTEGER,\n    discount NUMER"
