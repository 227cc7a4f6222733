"""The metrics of the mesh, by name. Prometheus counters and histograms; nobody but shells touches them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)

DRAFTER_FORWARD_SECONDS = Histogram("cosine_drafter_forward_seconds", "Model time of one draft step.", buckets=FAST)
DRAFTER_TOKENS = Counter("cosine_drafter_tokens", "Tree nodes proposed.")
DRAFTER_CANCELLED_STEPS = Counter(
    "cosine_drafter_cancelled_steps", "Steps of sessions that were cancelled before they were done."
)
DRAFTER_AHEAD_PASSES = Gauge("cosine_drafter_ahead_passes", "Forward passes run ahead of steps, while idle.")
DRAFTER_AHEAD_HITS = Gauge("cosine_drafter_ahead_hits", "Rows of steps that had been run ahead.")
VERIFIER_FORWARD_SECONDS = Histogram("cosine_verifier_forward_seconds", "Model time of one batch.", buckets=FAST)
VERIFIER_ROWS = Counter("cosine_verifier_rows", "Tokens run through the target: context, roots and tree nodes.")
VERIFIER_CANCELLED_ROWS = Counter(
    "cosine_verifier_cancelled_rows", "Rows asked for and cancelled before they were done."
)
VERIFIER_STOPPED_NODES = Counter("cosine_verifier_stopped_nodes", "Tree nodes of passes stopped between layers.")
VERIFIER_COMMITTED = Counter("cosine_verifier_committed_tokens", "Tokens committed by verdicts.")
PACED_PASSES = Gauge("cosine_paced_passes", "Forward passes run at the pace of other hardware.")
PACED_OVERRUNS = Gauge("cosine_paced_overruns", "Those that took longer than the other hardware would have.")
FUSION_STALE = Counter("cosine_fusion_stale_messages", "Answers of drafters that nobody waited for any more.")
FUSION_SESSIONS = Gauge("cosine_fusion_sessions", "Sessions that fusion remembers.")
SCHEDULER_LIVE = Gauge("cosine_scheduler_live_requests", "Requests the scheduler holds.")
SCHEDULER_KINDS = Gauge("cosine_scheduler_prompt_kinds", "Kinds of prompts that the scheduler tells apart.")
SCHEDULER_STALE = Counter("cosine_scheduler_stale_answers", "Trees and verdicts that nobody waited for any more.")
SCHEDULER_HANDLE_SECONDS = Histogram(
    "cosine_scheduler_handle_seconds", "Time of one event.", buckets=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3)
)
SPEC_DRAFTS = Counter("cosine_spec_decode_num_drafts", "Verdicts on trees.")
SPEC_DRAFT_TOKENS = Counter("cosine_spec_decode_num_draft_tokens", "Tree nodes verified.")
SPEC_ACCEPTED_TOKENS = Counter("cosine_spec_decode_num_accepted_tokens", "Tree nodes committed.")
