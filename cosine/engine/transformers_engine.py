"""The transformers engine: any decoder-only Hugging Face model behind the engine protocol, over ragged token trees.

One forward pass runs all segments of a batch as one packed line of rows; each session's keys and values live in a
slot of its own. Knows sessions, tokens and trees; not requests, strategies or the wire. The parts are in
`cosine.engine.hf`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cosine.core.errors import BadRequest, Full
from cosine.engine.base import EngineLimits, Logits, ModelCard, Segment
from cosine.engine.hf.assembly import assemble
from cosine.engine.hf.device_picking import DeviceLogits
from cosine.engine.hf.loading import find_folder, read_lore
from cosine.engine.hf.picking import NoiseCache, on_host
from cosine.engine.hf.runner import Runner
from cosine.engine.hf.slots import Slot, Slots
from cosine.engine.hf.span import Span
from cosine.engine.hf.step import Step
from cosine.engine.hf.threads import use_threads

LIMITS = EngineLimits()


def load(
    source: str,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    threads: int = 1,
    limits: EngineLimits = LIMITS,
    model_id: str | None = None,
) -> TransformersEngine:
    """An engine for the model in folder `source`, or under that hub id.

    `dtype` is "float32", "bfloat16", "float16" or "auto" (as stored); `threads` are those of one operation on the CPU,
    for the whole process. Raises NotFound, BadRequest, Unavailable (hub) or Mismatch (MODEL_DAMAGED, MODEL_UNSUPPORTED,
    DEVICE_MISSING), each saying what to do.
    """
    use_threads(threads)
    folder = find_folder(source)
    model, config = assemble(folder, dtype, device, limits.tokens_max)
    lore = read_lore(folder, config)
    tokens_max = min(limits.tokens_max, lore.context_length or limits.tokens_max)
    card = ModelCard(
        model_id or source, lore.vocab_size, tokens_max, lore.fingerprint, lore.eos_token_ids, str(model.device)
    )
    return TransformersEngine(model, card, replace(limits, tokens_max=tokens_max), threads)


class TransformersEngine:
    """Slots, and one model that runs over them. Belongs to one thread at a time."""

    def __init__(self, model: Runner, card: ModelCard, limits: EngineLimits, threads: int) -> None:
        self._model = model
        self._card = card
        self._limits = limits
        self._threads = threads
        self._thread = threading.get_ident()
        self._noise = NoiseCache(card.vocab_size)
        self._slots = Slots(model.planes, model.kv_dtype, model.device, limits.sessions_max)

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def limits(self) -> EngineLimits:
        return self._limits

    def tokens(self, session_id: str) -> Sequence[int]:
        """The cached sequence; a live view that the next call changes."""
        slot = self._slots.find(session_id)
        return slot.tokens if slot else ()

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        self._check(segments)
        if threading.get_ident() != self._thread:
            self._thread = threading.get_ident()
            use_threads(self._threads)
        with torch.inference_mode():
            slots = self._slots.take([segment.session_id for segment in segments])
            for slot, segment in zip(slots, segments, strict=True):
                slot.roll_back(segment.base_length)
            self._prefill(slots, segments, stop)
            spans = [_last_span(slot, segment) for slot, segment in zip(slots, segments, strict=True)]
            logits = self._run(spans, True, stop)[:, : self._card.vocab_size]
            return on_host(logits, self._noise) if logits.device.type == "cpu" else DeviceLogits(logits)

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        slot = self._slots.find(session_id)
        assert slot is not None, f"session {session_id} has no forward pass to end"
        slot.compact(nodes)

    def close(self, session_ids: Iterable[str]) -> None:
        self._slots.drop(session_ids)

    def agreement(self, token_ids: Sequence[int], others: Sequence[int]) -> list[float]:
        """One look-up and one copy to the host for all pairs; rows are normalised as they are asked for, so that no
        second table is held."""
        with torch.inference_mode():
            pairs = torch.tensor([*token_ids, *others], device=self._model.device)
            left, right = normalize(self._model.embed(pairs).float(), dim=-1).chunk(2)
            found: list[float] = (left * right).sum(-1).tolist()
            return found

    def warm_up(self) -> None:
        for row_count in (1, 4, 16, self._limits.prefill_chunk):
            count = min(row_count, self._card.tokens_max)
            self.forward([Segment("", 0, (0,) * count)])
        self.close([""])

    def _check(self, segments: Sequence[Segment]) -> None:
        if len(segments) > self._limits.sessions_max:
            raise Full("BATCH_TOO_LARGE", f"a batch holds at most {self._limits.sessions_max} sessions")
        assert len({segment.session_id for segment in segments}) == len(segments), "sessions of a batch must differ"
        for segment in segments:
            if segment.base_length + len(segment.token_ids) + len(segment.tree) > self._card.tokens_max:
                raise BadRequest("SESSION_TOO_LONG", f"a session holds at most {self._card.tokens_max} tokens")

    def _prefill(self, slots: Sequence[Slot], segments: Sequence[Segment], stop: Callable[[], bool] | None) -> None:
        """Caches all but the last chunk of long `token_ids`, at most `prefill_chunk` rows of one session at a time."""
        chunk = self._limits.prefill_chunk
        for slot, segment in zip(slots, segments, strict=True):
            while _remaining(slot, segment) > chunk:
                done = len(slot.tokens) - segment.base_length
                self._run([Span(slot, segment.token_ids[done : done + chunk])], False, stop)

    def _run(self, spans: Sequence[Span], ask: bool, stop: Callable[[], bool] | None) -> Tensor:
        """One pass; afterwards the slots hold what ran. `ask` wants logits of roots and nodes, else of one row only."""
        step = Step(spans, self._model.device, self._model.mask_dtype, stop)
        logits = self._model.logits(step, step.asked_rows() if ask else step.last_row())
        for span in spans:
            span.slot.extend(span.token_ids, span.tree.token_ids)
        return logits


def _remaining(slot: Slot, segment: Segment) -> int:
    return segment.base_length + len(segment.token_ids) - len(slot.tokens)


def _last_span(slot: Slot, segment: Segment) -> Span:
    done = len(slot.tokens) - segment.base_length
    return Span(slot, segment.token_ids[done:] if done else segment.token_ids, segment.tree)
