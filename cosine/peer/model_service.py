"""The life of a process that holds a model: load, warm up, measure, greet, serve. Only the servicer differs by role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cosine.engine.base import Engine
from cosine.engine.loading import open_engine
from cosine.engine.measuring import TimeModel, measure
from cosine.engine.paced import PacedEngine
from cosine.engine.processors import processor_of
from cosine.engine.worker import Worker
from cosine.peer.desk import Desk
from cosine.peer.membership import check_redis_url, membership
from cosine.peer.model_settings import ModelSettings
from cosine.rpc.hello import Identity
from cosine.rpc.metrics import PACED_OVERRUNS, PACED_PASSES
from cosine.rpc.server import Service, serve
from cosine.rpc.telemetry import setup_logging
from cosine.store.registry import LearnedTime
from cosine.text.tokenizer import is_toy


class ModelServicer(Protocol):
    """A gRPC servicer in front of a desk."""

    @property
    def desk(self) -> Desk[Any, Any]: ...

    def learned(self) -> tuple[LearnedTime, ...]:
        """What it has learned of forward passes."""
        ...


async def serve_model(
    settings: ModelSettings,
    role: str,
    make: Callable[[Engine, Identity], ModelServicer],
    add_to_server: Callable[[Any, Any], None],
    full_name: str,
) -> None:
    """Serves the model of the settings until told to stop. Raises a MeshError where it cannot be loaded."""
    peer_id = settings.named(role)
    setup_logging(settings.log_level, service=role, peer=peer_id)
    check_redis_url(settings)
    link = settings.link_pace()
    worker = Worker("engine")  # the loop stays free to hear that it is to stop
    engine, times = await worker.run(lambda: loaded(settings))
    card = engine.card
    identity = Identity(
        role=role,
        peer_id=peer_id,
        model_id=card.model_id,
        tokenizer_fingerprint=card.tokenizer_fingerprint,
        vocab_size=card.vocab_size,
        bounds=settings.bounds(card.tokens_max),
        base_ms=times.base_ms if times else None,
        row_ms=times.row_ms if times else None,
        processor=processor_of(card.device, settings.threads),
    )
    servicer = make(engine, identity)
    servicer.desk.worker, servicer.desk.pass_timeout_s = worker, settings.pass_timeout_s
    servicer.desk.link = link
    show_pacing(engine)
    service = Service(
        identity,
        [(add_to_server, servicer, full_name)],
        load=lambda: servicer.desk.load,
        background=[servicer.desk.work],
        drain=servicer.desk.drain,
        registrar=membership(settings, identity, servicer.learned),
    )
    await serve(settings, service)


def loaded(settings: ModelSettings) -> tuple[Engine, TimeModel | None]:
    """The engine, ready to serve, and its time model. Raises a MeshError where it cannot be loaded."""
    engine = open_engine(settings.model, settings.engine_options(), settings.engine_limits())
    engine.warm_up()
    return engine, measured(engine, settings)


def show_pacing(engine: Engine) -> None:
    """Shows in the metrics how well a paced engine keeps its pace."""
    if isinstance(engine, PacedEngine):
        PACED_PASSES.set_function(lambda: engine.pass_count)
        PACED_OVERRUNS.set_function(lambda: engine.overrun_count)


def measured(engine: Engine, settings: ModelSettings) -> TimeModel | None:
    """The engine's time model; None for a toy at full speed, whose time says nothing of any hardware."""
    return None if is_toy(settings.model) and not settings.pace else measure(engine)
