"""The gateway's metrics, by name."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("cosine_gateway_requests", "Generations ended, by canonical status code.", ["code"])
OUTPUT_TOKENS = Counter("cosine_gateway_output_tokens", "Tokens sent to clients.")
FIRST_CHUNK_SECONDS = Histogram(
    "cosine_gateway_time_to_first_chunk_seconds",
    "From the arrival of a request to its first chunk.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
RUNNING = Gauge("cosine_gateway_running_requests", "Requests the gateway serves.")
WAITING = Gauge(
    "cosine_admission_waiting_requests", "Requests of the mesh that wait for a scheduler; NaN while Redis is away."
)
OLDEST_WAIT_SECONDS = Gauge(
    "cosine_admission_oldest_wait_seconds", "How long the first of them has waited; NaN likewise."
)
