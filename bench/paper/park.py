"""From a profile to a mesh on this machine: real processes of the test bed's small models at the profile's times."""

from __future__ import annotations

from collections.abc import Mapping

from cosine.cli.meshfile import MeshSpec, read_testbed, verifier_names
from cosine.core.config import SchedulerConfig
from cosine.core.errors import BadRequest
from cosine.sim.profile import DrafterDevice, Link, Profile, VerifierDevice
from cosine.store.embedded import free_port

GRACE_S = 3.0
UNHEARD_S = 5.0  # this and the next: the defaults of the gateway
REQUEST_TIMEOUT_S = 600.0
BATCH_ROWS_MAX = 1024  # the widest trees of 16 requests fit in one pass


def mesh_spec(profile: Profile, time_scale: float, ports: Mapping[str, int], run_ahead: bool = False) -> MeshSpec:
    """The mesh of a profile whose times are multiplied by `time_scale`. `ports`: where whom shows metrics (0: nowhere).
    Drafters may `run_ahead` in their idle time.

    The target computes in float32, so that all strategies must write the same text, token for token. Raises NotFound
    where the test bed is missing, BadRequest where the profile has a drafter that the test bed has not.
    """
    testbed = read_testbed()
    known: dict[str, str] = testbed["drafters"]
    if strangers := profile.drafters.keys() - known.keys():
        raise BadRequest(
            "PROFILE",
            f"profile {profile.name}: the test bed has no drafter {min(strangers)!r}; it has {', '.join(known)}",
        )
    verifiers = verifier_names(profile.verifier_count)
    options: dict[str, dict[str, str | int | float | bool]] = {}
    for name in verifiers:
        options[name] = {"link": link_text(profile.verifier_link, time_scale)}
    for name, drafter in profile.drafters.items():
        pace = drafter_pace(drafter, time_scale)
        options[name] = {"pace": pace, "link": link_text(profile.drafter_link, time_scale)}
    for name, its in options.items():
        its["metrics_listen"] = f"127.0.0.1:{ports[name]}"
    return MeshSpec(
        target=testbed["target"],
        drafters={name: known[name] for name in profile.drafters},
        dtype="float32",
        device="cpu",
        threads=1,
        gateway="127.0.0.1:0",
        verifiers=profile.verifier_count,
        pace=verifier_pace(profile.verifier, time_scale),
        log_level="warning",
        grace_s=GRACE_S,
        options={
            "scheduler": scheduler_options(time_scale),
            "gateway": gateway_options(time_scale),
            "drafter": {"run_ahead": True} if run_ahead else {},
        },
        peer_options=options,
    )


def scheduler_options(time_scale: float) -> dict[str, str | int | float | bool]:
    """The scheduler's own times, slower too."""
    config = SchedulerConfig()
    return {
        "batch_rows_max": BATCH_ROWS_MAX,
        "batch_ms_max": config.batch_ms_max * time_scale,
        "draft_deadline_ms_min": config.draft_deadline_min * time_scale,
        "draft_deadline_ms_max": config.draft_deadline_max * time_scale,
        "batch_deadline_s": config.batch_deadline_s * time_scale,
    }


def gateway_options(time_scale: float) -> dict[str, str | int | float | bool]:
    """The gateway's patience."""
    return {"unheard_s": UNHEARD_S * time_scale, "request_timeout_s": REQUEST_TIMEOUT_S * time_scale}


def workers(profile: Profile) -> list[str]:
    """Names of the peers that hold a model."""
    return [*verifier_names(profile.verifier_count), *profile.drafters]


def free_ports(names: list[str]) -> dict[str, int]:
    """A port for each that nobody listens on."""
    return {name: free_port() for name in names}


def verifier_pace(device: VerifierDevice, time_scale: float) -> str:
    """The pace setting of a verifier."""
    return _texts(device.base_ms * time_scale, device.row_ms * time_scale, device.kilotoken_ms * time_scale)


def drafter_pace(device: DrafterDevice, time_scale: float) -> str:
    """The pace setting of the one process that stands for a pool; see `DrafterDevice`."""
    share = time_scale / device.count
    return _texts(device.base_ms * time_scale, device.row_ms * share, device.kilotoken_ms * share)


def link_text(link: Link, time_scale: float) -> str:
    """The link setting: round trip, and bandwidth."""
    return _texts(2 * link.latency_ms * time_scale, link.mbps / time_scale)


def _texts(*values: float) -> str:
    return ",".join(f"{value:.6g}" for value in values)
