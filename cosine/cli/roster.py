"""From a mesh to its processes: which, with which flags and environment, in which order they stop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from cosine.cli.forkserver import Order
from cosine.cli.meshfile import PROJECT_ROOT, MeshSpec, Role, verifier_names
from cosine.core.errors import NotFound
from cosine.engine.processors import cpu_dtype
from cosine.text.tokenizer import is_toy

STOP_ORDER = ("gateway", "scheduler", "fusion", "drafter", "verifier", "store")
# Settings that belong to one peer; from the supervisor's own environment they would reach all of them.
ONE_PEERS_OWN = {
    f"COSINE_{name}" for name in ("LISTEN", "ADVERTISE", "PEER_ID", "MODEL", "METRICS_LISTEN", "REDIS_URL")
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One process: `python -m module --listen (or --port) ... arguments`. `has_engine` says that it imports torch."""

    role: str
    peer_id: str
    module: str
    listen: str
    arguments: tuple[str, ...] = ()
    threads: int = 1
    has_engine: bool = False

    def order(self, address: str, variables: Mapping[str, str]) -> Order:
        """The process in that environment; `address` is where an earlier process of this peer listened, or empty."""
        if self.role == "store":
            place = ["--port", (address or self.listen).rpartition(":")[2]]
        else:
            place = ["--peer-id", self.peer_id, "--listen", address or self.listen]
        return Order(self.module, (*place, *self.arguments), variables)


STORE = Plan("store", "store", "cosine.cli.embedded_store", "127.0.0.1:0")


def roster(spec: MeshSpec) -> list[Plan]:
    """All peers of a mesh; the embedded store is not among them. Raises NotFound where the services are missing."""
    if find_spec("services") is None and not (PROJECT_ROOT / "services").is_dir():
        raise NotFound("SERVICES_NOT_FOUND", f"there is no package `services` in {PROJECT_ROOT}; run from a checkout")
    shared = {"mesh": spec.mesh, "log_level": spec.log_level, "grace_s": spec.grace_s}
    gateway = {"model": spec.target, "default_strategy": spec.strategy, "new_tokens_max": spec.new_tokens}
    scheduler = {"strategy": spec.strategy, "live_max": spec.sessions}

    def plan(
        role: Role, peer_id: str, options: Mapping[str, object], listen: str = "127.0.0.1:0", threads: int = 1
    ) -> Plan:
        of_role = spec.options.get(role, {})
        whole = {**shared, **options, **of_role, **spec.peer_options.get(peer_id, {})}
        has_engine = role in ("drafter", "verifier") and not is_toy(str(whole["model"]))
        return Plan(role, peer_id, f"services.{role}", listen, _flags(whole), threads, has_engine)

    threads = verifier_threads(spec)
    return [
        plan("gateway", "gateway", gateway, spec.gateway),
        plan("scheduler", "scheduler", scheduler),
        plan("fusion", "fusion", {}),
        *(
            plan("drafter", name, _drafter(spec, source), threads=spec.drafter_threads)
            for name, source in spec.drafters.items()
        ),
        *(plan("verifier", name, _verifier(spec, threads), threads=threads) for name in verifier_names(spec.verifiers)),
    ]


def _drafter(spec: MeshSpec, source: str) -> dict[str, object]:
    options = _model(spec, source, spec.drafter_device or spec.device, spec.drafter_dtype)
    return options | {"threads": spec.drafter_threads, "pace": spec.drafter_pace}


def _verifier(spec: MeshSpec, threads: int) -> dict[str, object]:
    options = _model(spec, spec.target, spec.device, spec.dtype)
    return options | {"threads": threads, "pace": spec.pace}


def target_dtype(spec: MeshSpec) -> str:
    """What the target computes in; "auto" where its verifier finds out, which alone can tell whether there is a GPU."""
    return cpu_dtype() if (spec.dtype, spec.device) == ("auto", "cpu") else spec.dtype


def _model(spec: MeshSpec, source: str, device: str, dtype: str) -> dict[str, object]:
    limits = {"sessions_max": spec.sessions, "tokens_max": spec.tokens}
    return {"model": source, "device": device, "dtype": dtype, **limits}


def verifier_threads(spec: MeshSpec) -> int:
    """Threads of each verifier: as asked for, or half of the CPUs we may use, shared; toys need one."""
    return 1 if is_toy(spec.target) else spec.threads or max(1, cpu_count() // 2 // spec.verifiers)


def cpu_count() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _flags(options: Mapping[str, object]) -> tuple[str, ...]:
    flags: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif str(value):
            flags.append(f"--{flag}={value}")
    return tuple(flags)


def environment(threads: int, redis_url: str) -> dict[str, str]:
    """A peer's environment: our own, thread counts, the way to the project, the store (its URL may hold a password)."""
    inherited = {key: value for key, value in os.environ.items() if key not in ONE_PEERS_OWN}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    path = os.pathsep.join(filter(None, (str(PROJECT_ROOT), os.environ.get("PYTHONPATH", ""))))
    passive = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    return {**inherited, **counts, **passive, "PYTHONPATH": path, "COSINE_REDIS_URL": redis_url}
