"""What a target wrote and what its drafters would have guessed at each of its tokens: acceptance without models.

A recording holds, per text, the prompt and the target's tokens, and per drafter and token the drafter's best children
there, given everything that is true before it. That decides every verdict, since a drafted token only counts while all
before it was accepted. `testbed/recording.py` writes recordings; nothing here knows of models.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Variant(Enum):
    """How texts and guesses were picked: both greedily; both at temperature 1 with the same noise; the text at
    temperature 1 and the guesses greedily (the ablation of shared noise). The value is the file's stem."""

    GREEDY = "greedy"
    SHARED = "shared"
    UNSHARED = "unshared"


@dataclass(frozen=True, slots=True)
class Text:
    """One prompt and what the target wrote after it. `first_row` is the row of its first new token."""

    domain: str
    seed: int
    prompt: tuple[int, ...]
    token_ids: tuple[int, ...]
    first_row: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """All texts and all guesses. One row per new token, text after text.

    `token_ids` [drafters, rows, width] best first, `confidences` [drafters, rows, width], `cosines` [drafters, rows]:
    how alike the target finds the drafter's best token and its own (cosine of its input embeddings, -1 to 1).
    """

    variant: Variant
    vocab_size: int
    drafters: tuple[str, ...]
    texts: tuple[Text, ...]
    token_ids: NDArray[np.uint16]
    confidences: NDArray[np.float16]
    cosines: NDArray[np.float16]

    @property
    def width(self) -> int:
        return int(self.token_ids.shape[2])

    def save(self, folder: Path) -> Path:
        """Writes `VARIANT.npz` into `folder`; its path."""
        texts = [asdict(text) for text in self.texts]
        card = {"vocab_size": self.vocab_size, "drafters": self.drafters, "texts": texts}
        path = folder / f"{self.variant.value}.npz"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            card=np.frombuffer(json.dumps(card, separators=(",", ":")).encode(), dtype=np.uint8),
            token_ids=self.token_ids,
            confidences=self.confidences,
            cosines=self.cosines,
        )
        return path


def read_recording(folder: Path, variant: Variant) -> Recording:
    """What `Recording.save` wrote. Raises FileNotFoundError where the variant was not recorded."""
    with np.load(folder / f"{variant.value}.npz") as arrays:
        card = json.loads(arrays["card"].tobytes().decode())
        texts = tuple(
            Text(text["domain"], text["seed"], tuple(text["prompt"]), tuple(text["token_ids"]), text["first_row"])
            for text in card["texts"]
        )
        return Recording(
            variant,
            card["vocab_size"],
            tuple(card["drafters"]),
            texts,
            arrays["token_ids"],
            arrays["confidences"],
            arrays["cosines"],
        )
