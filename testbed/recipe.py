"""The numbers of the recipe, and the folders it works in: every decision that shapes the shipped models.

`SHIPPED` is what `python -m testbed` runs; `Recipe.scaled` shortens it for a first look. Knows nothing of torch.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

Domain = Literal["code", "prose", "math", "sql"]
Shares = dict[Domain, float]  # how much of a batch comes from each domain
DOMAINS: tuple[Domain, ...] = ("code", "prose", "math", "sql")

TESTBED_DIR = Path(__file__).parent
MODELS_DIR = TESTBED_DIR / "models"
BUILD_DIR = TESTBED_DIR / "build"
PROMPTS_FILE = TESTBED_DIR / "prompts.json"
DRAFTER_NAMES: tuple[str, ...] = ("drafter-general", *(f"drafter-{domain}" for domain in DOMAINS))
MODEL_NAMES: tuple[str, ...] = ("target", *DRAFTER_NAMES)


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of one Llama model; its embeddings are tied."""

    hidden: int
    layers: int
    intermediate: int
    head_dim: int = 64


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run of the optimizer: a short warm-up, a constant rate, then a linear descent to zero."""

    steps: int
    batch: int
    learning_rate: float
    warmup_share: float = 0.02
    descent_share: float = 0.3

    def rate_at(self, step: int) -> float:
        """The learning rate of `step` (counted from 0)."""
        warmup = max(1.0, self.steps * self.warmup_share)
        descent = max(1.0, self.steps * self.descent_share)
        return self.learning_rate * min(1.0, (step + 1) / warmup, (self.steps - step) / descent)

    def scaled(self, factor: float) -> "Schedule":
        """The same schedule with `factor` times the steps."""
        return replace(self, steps=max(1, round(self.steps * factor)))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything the training depends on besides the installation's own text."""

    seed: int = 20261121
    vocab_size: int = 2048
    context_length: int = 2048
    sequence_length: int = 256
    generated_documents: int = 900
    prompts_per_domain: int = 32
    shares: Shares = field(default_factory=lambda: {"code": 0.42, "prose": 0.34, "math": 0.12, "sql": 0.12})
    polish_shares: Shares = field(default_factory=lambda: {"code": 0.25, "prose": 0.23, "math": 0.28, "sql": 0.24})
    target: Shape = Shape(hidden=256, layers=4, intermediate=768)
    drafter: Shape = Shape(hidden=128, layers=1, intermediate=768)
    pretrain_target: Schedule = Schedule(steps=640, batch=16, learning_rate=3e-3)
    polish_target: Schedule = Schedule(steps=360, batch=8, learning_rate=2.5e-3, descent_share=0.6)
    pretrain_general: Schedule = Schedule(steps=200, batch=16, learning_rate=6e-3)
    distil_general: Schedule = Schedule(steps=130, batch=20, learning_rate=3e-3)
    distil_specialist: Schedule = Schedule(steps=280, batch=20, learning_rate=3e-3)
    continuations: int = 512  # per domain, half of them greedy, half sampled at temperature 1
    continuation_prompt: int = 64
    continuation_length: int = 128
    teacher_top: int = 48  # logits of the target kept per position

    def scaled(self, factor: float) -> "Recipe":
        """A shorter recipe for a first look: fewer steps and continuations, the same shapes."""
        return replace(
            self,
            pretrain_target=self.pretrain_target.scaled(factor),
            polish_target=self.polish_target.scaled(factor),
            pretrain_general=self.pretrain_general.scaled(factor),
            distil_general=self.distil_general.scaled(factor),
            distil_specialist=self.distil_specialist.scaled(factor),
            continuations=max(8, round(self.continuations * factor)),
        )


SHIPPED = Recipe()
