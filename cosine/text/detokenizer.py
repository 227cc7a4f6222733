"""Token ids to text, piece by piece: never half a character, and the pieces together are the text of the whole.

The trick is known from text-generation-inference and vLLM: decode a window that begins with tokens already shown,
because the text of a token may depend on its neighbours, and hold back what later tokens may still change. It is exact
for byte-level and for metaspace/byte-fallback vocabularies; stop strings are cut elsewhere (`cosine.core.stopping`).

An output is the continuation of its prompt, so the first window begins with the prompt's last tokens: metaspace
decoders drop the space before the first word they see, and "upon" after "Once" has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

HALF = "\N{REPLACEMENT CHARACTER}"
PROMPT_TOKENS_SEEN = 8


@dataclass(frozen=True, slots=True)
class TokenKinds:
    """Ids that need care: special tokens have no text, a run of byte tokens (`<0xE2>`) only once it has ended."""

    special: frozenset[int]
    byte: frozenset[int]


def token_kinds(tokenizer: Tokenizer) -> TokenKinds:
    """Looked up once per tokenizer."""
    added = tokenizer.get_added_tokens_decoder().items()
    bytes_named = (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return TokenKinds(
        special=frozenset(token for token, entry in added if entry.special),
        byte=frozenset(token for token in bytes_named if token is not None),
    )


class Detokenizer:
    """The text of one output, which continues `prompt`."""

    def __init__(self, tokenizer: Tokenizer, kinds: TokenKinds, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._kinds = kinds
        self._window = self._end_of(prompt)
        self._context_count = len(self._window)  # tokens at the start of the window whose text was shown in full
        self._shown = len(self._decode(self._window))  # characters of the window's text that were shown

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that is final once these tokens have followed; empty where a character is still incomplete."""
        self._window.extend(token for token in token_ids if token not in self._kinds.special)
        if not self._window or self._window[-1] in self._kinds.byte:
            return ""
        text = self._decode(self._window)
        final = text.removesuffix(HALF)
        piece = final[self._shown :]
        self._shown = max(self._shown, len(final))
        if piece and final == text:
            self._slide()
        return piece

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        piece = self._decode(self._window)[self._shown :]
        self._shown += len(piece)
        return piece

    def _end_of(self, prompt: Sequence[int]) -> list[int]:
        """The prompt's last tokens whose text nothing can change any more. After a special token a text of its own
        begins, so those before it do not count."""
        seen: list[int] = []
        for token in prompt[-PROMPT_TOKENS_SEEN:]:
            seen = [] if token in self._kinds.special else [*seen, token]
        while seen and (seen[-1] in self._kinds.byte or self._decode(seen).endswith(HALF)):
            seen.pop()
        return seen

    def _slide(self) -> None:
        """Forgets the old context; the tokens shown last become the new one."""
        self._window = self._window[self._context_count :]
        self._context_count = len(self._window)
        self._shown = len(self._decode(self._window))

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)
