"""The held-out prompts: cut once from documents that no training sees, shipped as `prompts.json`."""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Tokenizer

from testbed.corpus import documents, held_out_documents
from testbed.recipe import DOMAINS, Domain, Recipe

TOKENS_MIN, TOKENS_MAX = 48, 96


@dataclass(frozen=True, slots=True)
class Prompt:
    """A piece of held-out text and the domain it belongs to."""

    domain: Domain
    text: str


def load_prompts(path: Path) -> list[Prompt]:
    """The prompts stored at `path`."""
    return [Prompt(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def save_prompts(prompts: list[Prompt], path: Path) -> None:
    """Stores the prompts, one object per line group, in their order."""
    path.write_text(json.dumps([asdict(prompt) for prompt in prompts], indent=1) + "\n", encoding="utf-8")


def cut_prompts(tokenizer: Tokenizer, recipe: Recipe) -> list[Prompt]:
    """`prompts_per_domain` prompts of 48 to 96 tokens from every domain, each the start of a held-out paragraph."""
    prompts: list[Prompt] = []
    for domain in DOMAINS:
        dice = random.Random(f"{recipe.seed}-{domain}")
        known = "\0".join(documents(domain, recipe.generated_documents))
        texts = held_out_documents(domain)
        found: list[str] = []
        while len(found) < recipe.prompts_per_domain:
            turn = len(found) % len(texts)
            text = _cut(tokenizer, texts[turn], dice)
            if text is None or text in found or text in known:
                texts.pop(turn)  # nothing new to cut from this document
            else:
                found.append(text)
        prompts += [Prompt(domain, text) for text in found]
    return prompts


def _cut(tokenizer: Tokenizer, document: str, dice: random.Random) -> str | None:
    """A piece that starts a paragraph, or None where the document is too short or not ASCII."""
    starts = [0] + [at + 2 for at in range(len(document)) if document.startswith("\n\n", at)]
    for start in dice.sample(starts, min(len(starts), 20)):
        wanted = dice.randint(TOKENS_MIN, TOKENS_MAX)
        ids = tokenizer.encode(document[start : start + 1500]).ids
        text = tokenizer.decode(ids[:wanted])
        if len(ids) > wanted and text.isascii() and len(text.split()) > 12:
            return text
    return None
