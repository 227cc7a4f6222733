"""`python -m cosine.cli.embedded_store --port PORT`: the embedded Valkey as a process of its own, so that it can be
supervised like a peer. Prints a readiness line, ends at SIGTERM and when the server ends."""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys

from cosine.core.errors import MeshError
from cosine.store.embedded import EmbeddedServer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    port = parser.parse_args().port
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):  # the server is the only child
        signal.signal(name, lambda number, _: heard.put(number))
    try:
        with EmbeddedServer(port) as server:
            address = server.url.removeprefix("redis://")
            ready = {"role": "store", "peer_id": "store", "address": address, "model_id": "", "pid": os.getpid()}
            print(json.dumps({"ready": ready}), flush=True)
            while heard.get() == signal.SIGCHLD and server.is_running:
                pass  # it was merely stopped
    except MeshError as error:
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
