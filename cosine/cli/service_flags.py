"""Which flags a service has, so that a misspelt one in a mesh file is refused by its name before anything starts.

The services stand above this package and cannot be asked: what they have of their own is listed here, and a test holds
the list to their settings. Whether a flag's value will do is for the service to say.
"""

from __future__ import annotations

from collections.abc import Iterable

from cosine.peer.model_settings import ModelSettings
from cosine.rpc.settings import ServiceSettings

_GATEWAYS_OWN = (
    *("model", "tokens_max", "prompt_bytes_max", "new_tokens_max", "default_strategy", "requests_max", "waiting_max"),
    *("retry_delay_ms", "request_timeout_s", "attempts_max", "unheard_s", "scheduler_wait_s", "record_ttl_s"),
)
_SCHEDULERS_OWN = (
    *("strategy", "live_max", "prefill_chunk", "batch_rows_max", "batch_tokens_max", "batch_ms_max"),
    *("draft_deadline_ms_min", "draft_deadline_ms_max", "verifier_wait_s", "batch_deadline_s"),
)
FLAGS = {
    "gateway": frozenset({*ServiceSettings.model_fields, *_GATEWAYS_OWN}),
    "scheduler": frozenset({*ServiceSettings.model_fields, *_SCHEDULERS_OWN}),
    "fusion": frozenset({*ServiceSettings.model_fields, "sessions_max"}),
    "drafter": frozenset({*ModelSettings.model_fields, "run_ahead"}),
    "verifier": frozenset(ModelSettings.model_fields),
}


def check_flags(role: str, owner: str, names: Iterable[str]) -> None:
    """Raises ValueError where `owner`, a role or a peer of that role, is given a flag that the role does not have."""
    for name in names:
        if name.replace("-", "_") not in FLAGS[role]:
            raise ValueError(f"{owner}.{name} is no flag of a {role}; its flags are {', '.join(sorted(FLAGS[role]))}")
