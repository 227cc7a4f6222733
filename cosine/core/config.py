"""Bounds and defaults of a scheduler."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Bounds and defaults. Times in milliseconds unless the name says otherwise."""

    session_prefix: str = "s"
    default_strategy: str = "cosine"
    live_max: int = 64
    prefill_chunk: int = 256
    batch_rows_max: int = 256
    batch_tokens_max: int = 1 << 20
    batch_ms_max: float = 1000.0
    passed_over_max: int = 8
    draft_deadline_min: float = 150.0
    draft_deadline_max: float = 2000.0
    deadline_grace: float = 100.0
    verifier_wait_s: float = 60.0
    settle_s: float = 2.0  # peers of a mesh that has just been started come within so long of one another
    batch_deadline_s: float = 60.0
