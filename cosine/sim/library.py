"""The texts of a recording as a target and its drafters would walk them, token by token, on the text and off it.

A place is a length (how many tokens come before) and a key: 0 while all of them are the text's, else a hash of how they
left it. Off the text nobody knows what a model would say, and it cannot matter to what is committed; there a drafter
says what it said at another place of the same domain, the same place for every drafter, and the target picks by hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosine.core.noise import MASK, mix
from cosine.sim.recording import Recording

KEY_LENGTH = 32
TOKEN_STEP, KEY_STEP = 0xD6E8FEB86659FD93, 0x9E6C63D0676A9A99

Child = tuple[int, float]


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """One text: its prompt and what must be committed after it. `rows` are those of its domain."""

    number: int
    domain: str
    token_ids: tuple[int, ...]
    prompt_length: int
    first_row: int
    rows: range

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.token_ids[: self.prompt_length]

    @property
    def new_count(self) -> int:
        return len(self.token_ids) - self.prompt_length


class Library:
    """All scripts, and what each drafter says where. `greedy` are the guesses of drafters that draft greedily where
    the texts were not picked so."""

    def __init__(self, recording: Recording, greedy: Recording | None = None) -> None:
        self.drafters = recording.drafters
        self.vocab_size = recording.vocab_size
        self.scripts = _scripts(recording)
        self._by_start = {script.token_ids[:KEY_LENGTH]: script for script in self.scripts}
        if len(self._by_start) != len(self.scripts):
            raise ValueError(f"two prompts of the recording share their first {KEY_LENGTH} tokens; record others")
        self._shared = _children(recording)
        self._greedy = self._shared if greedy is None else _children(greedy)
        self._likenesses = _likenesses(recording, greedy)
        self._usual_likeness = _usual_likeness(recording)

    def script_of(self, token_ids: Sequence[int]) -> Script:
        """The script that a context belongs to. Raises KeyError where it is none's."""
        return self._by_start[tuple(token_ids[:KEY_LENGTH])]

    def children(self, drafter: int, greedily: bool, script: Script, length: int, key: int) -> list[Child]:
        """A drafter's best children at a place, best first, each with its confidence."""
        if key or length >= len(script.token_ids):
            row = script.rows[mix(key ^ length) % len(script.rows)]
        else:
            row = script.first_row + length - script.prompt_length
        return (self._greedy if greedily else self._shared)[drafter][row]

    def pick(self, script: Script, length: int, key: int) -> int:
        """The target's token at a place."""
        if key or length >= len(script.token_ids):
            return mix(~(key ^ length) & MASK) % self.vocab_size
        return script.token_ids[length]

    def likeness(self, script: Script, length: int, token_id: int, other: int) -> float:
        """How alike the target finds a guess and the token it picked instead; off the text, and for guesses that were
        not a drafter's best, what is usual."""
        if token_id == other:
            return 1.0
        return self._likenesses.get((script.first_row + length - script.prompt_length, token_id), self._usual_likeness)


def key_after(script: Script, length: int, key: int, token_id: int) -> int:
    """The key of the place behind one more token."""
    if not key and length < len(script.token_ids) and script.token_ids[length] == token_id:
        return 0
    return ((key ^ token_id * TOKEN_STEP ^ length) * KEY_STEP & MASK) | 1


class Context:
    """The tokens that a worker's cache holds for a session, and how far they are the script's."""

    __slots__ = ("agreed", "script", "token_ids")

    def __init__(self, script: Script) -> None:
        self.script = script
        self.token_ids: list[int] = []
        self.agreed = 0

    def append(self, base_length: int, token_ids: Sequence[int]) -> None:
        """Forgets all beyond `base_length`, then takes the tokens."""
        held = self.token_ids
        del held[base_length:]
        held += token_ids
        truth = self.script.token_ids
        agreed = min(self.agreed, base_length)
        end = min(len(held), len(truth))
        while agreed < end and held[agreed] == truth[agreed]:
            agreed += 1
        self.agreed = agreed

    @property
    def key(self) -> int:
        """The key of the place behind all tokens."""
        key = 0
        for length in range(self.agreed, len(self.token_ids)):
            key = key_after(self.script, length, key, self.token_ids[length])
        return key


def _scripts(recording: Recording) -> tuple[Script, ...]:
    rows: dict[str, list[int]] = {}
    for text in recording.texts:
        rows.setdefault(text.domain, []).extend((text.first_row, text.first_row + len(text.token_ids)))
    return tuple(
        Script(
            number,
            text.domain,
            text.prompt + text.token_ids,
            len(text.prompt),
            text.first_row,
            range(min(rows[text.domain]), max(rows[text.domain])),
        )
        for number, text in enumerate(recording.texts)
    )


def _children(recording: Recording) -> list[list[list[Child]]]:
    """Per drafter and row the children that have any confidence at all."""
    tokens, confidences = recording.token_ids.tolist(), recording.confidences.astype(float).tolist()
    return [
        [
            [(token, sure) for token, sure in zip(*row, strict=True) if sure > 0.0]
            for row in zip(tokens[drafter], confidences[drafter], strict=True)
        ]
        for drafter in range(len(recording.drafters))
    ]


def _likenesses(*recordings: Recording | None) -> dict[tuple[int, int], float]:
    """Per row and best guess of any drafter the likeness to the target's token."""
    return {
        (row, token): likeness
        for recording in recordings
        if recording is not None
        for tokens, cosines in zip(recording.token_ids[:, :, 0].tolist(), recording.cosines.tolist(), strict=True)
        for row, (token, likeness) in enumerate(zip(tokens, cosines, strict=True))
    }


def _usual_likeness(recording: Recording) -> float:
    """The mean over all best guesses that were wrong."""
    truth = np.concatenate([text.token_ids for text in recording.texts])
    wrong = recording.token_ids[:, :, 0] != truth
    return float(recording.cosines[wrong].astype(np.float64).mean()) if wrong.any() else 0.0
