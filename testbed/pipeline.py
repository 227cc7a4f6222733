"""The complete recipe as a row of stages; each leaves a file in the build folder and is skipped once it is whole.

Order: tokenizer, token streams, target, the target's continuations, general drafter, specialists, figures and cards.
"""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from testbed import corpus, models
from testbed.continuations import Lessons, write_lessons
from testbed.distillation import distillation_loss
from testbed.pretraining import language_loss
from testbed.recipe import DOMAINS, Domain, Recipe, Schedule
from testbed.tokens import Tokens, load_or_train, token_stream, wrap
from testbed.training import Stage, StepLoss, train

TOKENIZER_SAMPLE_DOCUMENTS = 200
TOKENIZER_SAMPLE_CHARACTERS = 20_000


@dataclass(frozen=True)
class Pipeline:
    """One run of the recipe: where it builds, where it ships to, and on which device."""

    recipe: Recipe
    build_dir: Path
    models_dir: Path
    device: str = "cpu"

    @cached_property
    def documents(self) -> dict[Domain, list[str]]:
        """The training documents of every domain."""
        return {domain: corpus.documents(domain, self.recipe.generated_documents) for domain in DOMAINS}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The one tokenizer, trained on the beginning of some documents of every domain."""
        texts = [
            text[:TOKENIZER_SAMPLE_CHARACTERS]
            for domain in DOMAINS
            for text in self.documents[domain][:TOKENIZER_SAMPLE_DOCUMENTS]
        ]
        tokenizer = load_or_train(self.build_dir / "tokenizer.json", texts, self.recipe.vocab_size)
        return wrap(tokenizer, self.recipe.context_length)

    @cached_property
    def streams(self) -> dict[Domain, Tokens]:
        """The training token streams of every domain."""
        return {domain: token_stream(self.tokenizer.backend_tokenizer, self.documents[domain]) for domain in DOMAINS}

    def run(self) -> None:
        """Trains whatever is not trained yet and ships all six models."""
        self.target()
        for domain in DOMAINS:
            self.lessons(domain)
        general = self.general()
        for domain in DOMAINS:
            self.specialist(domain, general)

    def target(self) -> None:
        """The model whose text the mesh serves."""
        recipe = self.recipe
        target = models.build(recipe.target, recipe, recipe.seed)
        schedule = recipe.pretrain_target
        loss = language_loss(self.streams, recipe, recipe.shares, schedule.batch, self.device)
        self._train(target, "pretrained", schedule, loss)
        schedule = recipe.polish_target
        loss = language_loss(self.streams, recipe, recipe.polish_shares, schedule.batch, self.device)
        self._train(target, "target", schedule, loss)
        self._ship(target, "target")

    def lessons(self, domain: Domain) -> Lessons:
        """What the target writes in one domain, and how sure it is."""
        path = self.build_dir / f"lessons-{domain}.pt"
        if not path.exists():
            print(f"lessons-{domain}: the target continues {self.recipe.continuations} pieces of text", flush=True)
            target = models.load(self.models_dir / "target")
            seed = self.recipe.seed + DOMAINS.index(domain)
            write_lessons(target, self.streams[domain], self.recipe, seed, self.device).save(path)
        return Lessons.load(path)

    def general(self) -> LlamaForCausalLM:
        """The drafter of all domains: trained on text, then only shortly by the target, so that specialising pays."""
        recipe = self.recipe
        general = models.build(recipe.drafter, recipe, recipe.seed + 1)
        schedule = recipe.pretrain_general
        loss = language_loss(self.streams, recipe, recipe.shares, schedule.batch, self.device)
        self._train(general, "general", schedule, loss)
        schedule = recipe.distil_general
        loss = distillation_loss([self.lessons(domain) for domain in DOMAINS], schedule.batch, recipe.seed, self.device)
        self._train(general, "drafter-general", schedule, loss)
        self._ship(general, "drafter-general")
        return general

    def specialist(self, domain: Domain, general: LlamaForCausalLM) -> None:
        """The general drafter, taught at length by the target in one domain; it may forget the others."""
        schedule = self.recipe.distil_specialist
        seed = self.recipe.seed + 1 + DOMAINS.index(domain)
        specialist = copy.deepcopy(general)
        loss = distillation_loss([self.lessons(domain)], schedule.batch, seed, self.device)
        self._train(specialist, f"drafter-{domain}", schedule, loss)
        self._ship(specialist, f"drafter-{domain}")

    def _train(self, model: LlamaForCausalLM, name: str, schedule: Schedule, loss: StepLoss) -> None:
        train(model, Stage(name, schedule, self.build_dir / f"{name}.pt", self.device), loss)

    def _ship(self, model: LlamaForCausalLM, name: str) -> None:
        models.save(copy.deepcopy(model), self.tokenizer, self.models_dir / name, torch.bfloat16)
