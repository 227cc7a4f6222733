"""A peer's link as an object, for shells that are tested without a network."""

from __future__ import annotations

from typing import Any

from cosine.rpc.hello import Identity
from cosine.v1 import verifier_pb2


class Link:
    """A link that is up and keeps what is sent over it."""

    def __init__(self, peer: Identity) -> None:
        self.peer = peer
        self.sent: list[Any] = []

    def send(self, message: Any) -> bool:
        self.sent.append(message)
        return True

    @property
    def batches(self) -> list[verifier_pb2.VerifyBatch]:
        return [message.batch for message in self.sent if message.HasField("batch")]
