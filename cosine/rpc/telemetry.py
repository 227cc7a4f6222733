"""Logs, metrics and traces of a service. Logs go to stderr, one JSON object per line; stdout is left to the program.

Metrics are Prometheus counters and histograms; traces go where OTEL_EXPORTER_OTLP_ENDPOINT says, else nowhere.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Hashable
from typing import Protocol, TextIO, runtime_checkable

import structlog
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import start_http_server
from structlog.typing import EventDict, Processor

from cosine.core.errors import Unavailable

TRACEPARENT = "traceparent"
OPEN_SPANS_MAX = 256
LAST_SPANS_S = 1.0  # for the spans that are left when a service ends
propagator = TraceContextTextMapPropagator()


@runtime_checkable
class Exporting(Protocol):
    """A provider of tracers that exports; the one that stands there without a set-up does not."""

    def shutdown(self) -> None: ...


class _Lines(logging.StreamHandler[TextIO]):
    """Ours among the root logger's handlers."""


def setup_logging(level: str, **fields: object) -> None:
    """One structured line per event, with `fields` in each, whoever logs it and on whatever thread: libraries that use
    the standard library's loggers, and Python's warnings, are heard from WARNING on. A second call replaces the first.
    """

    def add_fields(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**fields, **event}

    lowest = getattr(logging, level.upper())
    steps: list[Processor] = [
        add_fields,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render = structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[*steps, render],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    lines = _Lines(sys.stderr)
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *steps],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Lines)] + [lines]
    root.setLevel(max(lowest, logging.WARNING))
    logging.captureWarnings(True)


def setup_tracing(service: str, peer_id: str) -> None:
    """Exports spans where the standard OTel environment variables say; without an endpoint, does nothing."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"cosine-{service}", "service.instance.id": peer_id})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def end_tracing() -> None:
    """Exports the spans that are left, within LAST_SPANS_S: a collector that is away, or silent, costs no more."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, Exporting):
        export = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        export.start()
        export.join(LAST_SPANS_S)


def serve_metrics(listen: str) -> None:
    """Serves /metrics over HTTP on a thread of its own; no address, no server."""
    if listen:
        host, _, port = listen.rpartition(":")
        try:
            start_http_server(int(port), host.strip("[]"))
        except OSError as error:
            raise Unavailable(
                "ADDRESS_IN_USE",
                f"cannot show metrics on {listen} ({error.strerror}); choose another --metrics-listen",
            ) from error


def traceparent() -> str:
    """The current span as a W3C traceparent; empty where nothing is sampled."""
    carrier: dict[str, str] = {}
    propagator.inject(carrier)
    return carrier.get(TRACEPARENT, "")


class Spans:
    """Spans of work that is under way elsewhere, by key. Work that nobody finishes is forgotten past a bound."""

    def __init__(self) -> None:
        self._open: dict[Hashable, trace.Span] = {}

    def start(self, key: Hashable, name: str, parent: str) -> str:
        """Opens a span below `parent` and returns its own traceparent for the message; "" stays ""."""
        if not parent:
            return ""
        while len(self._open) >= OPEN_SPANS_MAX:
            self.end(next(iter(self._open)))
        opened = self._open[key] = span(name, parent)
        with trace.use_span(opened):
            return traceparent()

    def end(self, key: Hashable) -> None:
        """Closes a span; an unknown key is no harm."""
        opened = self._open.pop(key, None)
        if opened is not None:
            opened.end()


def span(name: str, parent: str = "") -> trace.Span:
    """A new span below a traceparent from the wire; costs next to nothing where tracing is off."""
    context = propagator.extract({TRACEPARENT: parent}) if parent else None
    return trace.get_tracer("cosine").start_span(name, context=context)
