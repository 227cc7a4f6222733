"""One output as text: token ids in, final text out, cut before the first stop string.

Deterministic in the tokens alone, however they arrive, so a transcript restored from what a client holds goes on
exactly where the client's text ends. It knows no streams and no schedulers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from cosine.core.stopping import StopMatcher
from cosine.text.detokenizer import Detokenizer, TokenKinds


@dataclass(frozen=True, slots=True)
class Piece:
    """What may be shown: `token_count` of the tokens pushed belong to the output, the rest come after its end."""

    text: str
    token_count: int


class Transcript:
    """The text of one output so far, which continues `prompt`. `stopped` is True once a stop string was found."""

    def __init__(self, tokenizer: Tokenizer, kinds: TokenKinds, stops: Sequence[str], prompt: Sequence[int]) -> None:
        self._detokenizer = Detokenizer(tokenizer, kinds, prompt)
        self._matcher = StopMatcher(stops)

    @property
    def stopped(self) -> bool:
        return self._matcher.found is not None

    def push(self, token_ids: Sequence[int]) -> Piece:
        """Reads tokens one by one and ends with the one that completes a stop string."""
        texts: list[str] = []
        count = 0
        for token in token_ids:
            if self.stopped:
                break
            texts.append(self._matcher.feed(self._detokenizer.push([token])))
            count += 1
        return Piece("".join(texts), count)

    def finish(self) -> str:
        """What was held back, once no more tokens come."""
        return self._matcher.feed(self._detokenizer.flush()) + self._matcher.flush()
