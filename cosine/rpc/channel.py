"""How connections of the mesh are bounded, set up and watched: the options that every channel and server has.

The SDK imports this module too: it needs nothing but the standard library. What is called over a channel, and what
happens once it is lost, is not known here.
"""

from __future__ import annotations

from typing import Any

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
CONNECT_MS = 5_000  # for TCP, TLS and HTTP/2 together; who refuses is not waited for
SILENCE_MS = 10_000  # a connection silent for so long is pinged
PING_MS = 5_000  # a ping unanswered for so long ends its connection: the other side is gone, or stands still
PING_EVERY_MS = 5_000  # pings that servers put up with; less than SILENCE_MS, since a timer may be early


def connection_options(message_bytes_max: int = MESSAGE_BYTES_MAX) -> list[tuple[str, Any]]:
    """Options of both ends of every connection: the message bound, the pace of dialling, and keepalive."""
    return [
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.keepalive_time_ms", SILENCE_MS),
        ("grpc.keepalive_timeout_ms", PING_MS),
        ("grpc.http2.ping_timeout_ms", PING_MS),  # without it a minute, whatever the line above says
        ("grpc.http2.max_pings_without_data", 0),  # no bound: gRPC spaces them out from the third in a row on
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", CONNECT_MS),  # bounds how long connecting may take, despite its name
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
