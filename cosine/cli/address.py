"""Which gateway a command talks to, and a clear word where none answers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cosine.client.persistence import RetryPolicy
from cosine.core.errors import Unavailable

DEFAULT_ADDRESS = "127.0.0.1:50050"
ASK_ONCE = RetryPolicy(tries_max=1)


def add_address(parser: argparse.ArgumentParser) -> None:
    """--address, then COSINE_ADDRESS, then where `cosine up` listens by default."""
    default = os.environ.get("COSINE_ADDRESS") or DEFAULT_ADDRESS
    parser.add_argument(
        "--address", default=default, metavar="HOST:PORT", help="a gateway (env COSINE_ADDRESS; default: %(default)s)"
    )


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turns gRPC's account of a failed connection into what to do about it."""
    try:
        yield
    except Unavailable as error:
        if error.reason != "UNAVAILABLE":  # a gateway answered, and said more
            raise
        raise Unavailable(
            "NO_GATEWAY", f"no gateway answers at {address}; start a mesh with `cosine up`, or name one with --address"
        ) from error
