"""What the SDK returns: plain values, made from the public messages."""

from __future__ import annotations

from dataclasses import dataclass

from cosine.v1 import gateway_pb2 as pb
from cosine.v1 import types_pb2 as types


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural log-probabilities at one position, before temperature and filters; `top`: (token, value), best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted; resumed ones are included."""

    prompt_token_count: int
    output_token_count: int


@dataclass(frozen=True, slots=True)
class Speculation:
    """What speculation did for one request (for its last attempt, where a scheduler was lost on the way).

    `drafted_token_count` counts all that was drafted for it, verified or not; what of that was not accepted was wasted.
    """

    strategy: str = ""
    round_count: int = 0
    drafted_token_count: int = 0
    accepted_token_count: int = 0
    drafters: tuple[str, ...] = ()
    exchange_count: int = 0
    draft_ms: float = 0.0
    drafter_forward_ms: float = 0.0
    verify_ms: float = 0.0
    round_ms: float = 0.0
    prefill_ms: float = 0.0

    @property
    def acceptance_length(self) -> float:
        """Committed tokens per verdict; 0 where there was none."""
        return (self.accepted_token_count + self.round_count) / self.round_count if self.round_count else 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """More of a text. The last chunk of a generation has `finish_reason`, `usage` and `speculation`.

    `finish_reason` is "stop_token", "stop_string" or "length". The text of a token may come with a later chunk.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[Logprobs, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    speculation: Speculation | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole generation."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[Logprobs, ...]
    finish_reason: str
    usage: Usage
    speculation: Speculation
    seed: int


@dataclass(frozen=True, slots=True)
class LearnedTime:
    """A forward pass of the peer `peer_id` as another peer sees it: `base_ms + row_ms * rows + kilotoken_ms` per 1000
    cached tokens that it reads."""

    peer_id: str
    base_ms: float
    row_ms: float
    kilotoken_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer of the mesh; `state` is "serving", "draining" or "lost".

    `base_ms` and `row_ms` are its passes as it measured them when it started (None: it did not), `learned` what it has
    learned of passes since.
    """

    role: str
    peer_id: str
    address: str
    model_id: str
    state: str
    load: int
    incarnation: int
    base_ms: float | None = None
    row_ms: float | None = None
    learned: tuple[LearnedTime, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """The served model, its limits and the strategies a request may name."""

    model_id: str
    vocab_size: int
    tokens_max: int
    new_tokens_max: int
    tokenizer_fingerprint: str
    strategies: tuple[str, ...]
    default_strategy: str


def chunk_from(message: pb.Chunk) -> Chunk:
    """A chunk in the middle."""
    return Chunk(
        text=message.text,
        token_ids=tuple(message.token_ids),
        logprobs=tuple(
            Logprobs(entry.logprob, tuple(zip(entry.top_token_ids, entry.top_logprobs, strict=True)))
            for entry in message.logprobs
        ),
    )


def last_chunk_from(message: pb.Finished) -> Chunk:
    """The chunk that ends a generation; it has no text."""
    usage, figures = message.usage, message.speculation
    return Chunk(
        finish_reason=types.FinishReason.Name(message.reason).removeprefix("FINISH_REASON_").lower(),
        usage=Usage(usage.prompt_token_count, usage.output_token_count),
        speculation=Speculation(
            strategy=figures.strategy,
            round_count=figures.round_count,
            drafted_token_count=figures.drafted_token_count,
            accepted_token_count=figures.accepted_token_count,
            drafters=tuple(figures.drafters),
            exchange_count=figures.exchange_count,
            draft_ms=figures.draft_us / 1000,
            drafter_forward_ms=figures.drafter_forward_us / 1000,
            verify_ms=figures.verify_us / 1000,
            round_ms=figures.round_us / 1000,
            prefill_ms=figures.prefill_us / 1000,
        ),
    )


def completion_from(chunks: list[Chunk], seed: int) -> Completion:
    """All chunks of a generation as one value; the last of them ends it."""
    last = chunks[-1]
    assert last.finish_reason is not None
    assert last.usage is not None
    assert last.speculation is not None
    return Completion(
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
        logprobs=tuple(entry for chunk in chunks for entry in chunk.logprobs),
        finish_reason=last.finish_reason,
        usage=last.usage,
        speculation=last.speculation,
        seed=seed,
    )


def peer_from(message: pb.PeerEntry) -> Peer:
    """One entry of the list of peers."""
    return Peer(
        role=types.Role.Name(message.role).removeprefix("ROLE_").lower(),
        peer_id=message.peer_id,
        address=message.address,
        model_id=message.model_id,
        state=message.state,
        load=message.load,
        incarnation=message.incarnation,
        base_ms=message.base_ms if message.HasField("base_ms") else None,
        row_ms=message.row_ms if message.HasField("row_ms") else None,
        learned=tuple(
            LearnedTime(entry.peer_id, entry.base_ms, entry.row_ms, entry.kilotoken_ms) for entry in message.learned
        ),
    )


def model_from(message: pb.GetModelResponse) -> Model:
    """The served model."""
    return Model(
        model_id=message.model_id,
        vocab_size=message.vocab_size,
        tokens_max=message.tokens_max,
        new_tokens_max=message.new_tokens_max,
        tokenizer_fingerprint=message.tokenizer_fingerprint,
        strategies=tuple(message.strategies),
        default_strategy=message.default_strategy,
    )
