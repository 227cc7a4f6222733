"""Greetings: who a peer is, and whether two peers fit together. The first message of every stream in the mesh."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from cosine.core.errors import Mismatch
from cosine.core.processors import UNKNOWN, Processor
from cosine.v1 import types_pb2 as types
from cosine.v1.fusion_pb2 import DrafterEntry

PROTOCOL_VERSION = 1
PEER_ID_BYTES_MAX = 128
STEP_SESSIONS_MAX = 256  # what a drafter takes in one message, so a scheduler must not hold more


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a peer can take; see `Limits` in types.proto."""

    credits: int = 64
    sessions_max: int = 256
    batch_max: int = 64
    tree_nodes_max: int = 64
    tokens_max: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """A peer: its role ("drafter"), name, incarnation and, where it holds one, its model.

    A forward pass of the model over `rows` rows takes `base_ms + row_ms * rows`; None where nobody has measured it.
    It computes on `processor`.
    """

    role: str
    peer_id: str
    incarnation: int = field(default_factory=lambda: int.from_bytes(os.urandom(7)))
    model_id: str = ""
    tokenizer_fingerprint: str = ""
    vocab_size: int = 0
    bounds: Bounds = Bounds()
    base_ms: float | None = None
    row_ms: float | None = None
    processor: Processor = UNKNOWN


def to_proto(identity: Identity) -> types.Hello:
    """The Hello of a peer."""
    bounds = identity.bounds
    return types.Hello(
        protocol_version=PROTOCOL_VERSION,
        role=f"ROLE_{identity.role.upper()}",
        peer_id=identity.peer_id,
        incarnation=identity.incarnation,
        model_id=identity.model_id,
        tokenizer_fingerprint=identity.tokenizer_fingerprint,
        vocab_size=identity.vocab_size,
        limits=types.Limits(
            credits=bounds.credits,
            sessions_max=bounds.sessions_max,
            batch_max=bounds.batch_max,
            tree_nodes_max=bounds.tree_nodes_max,
            tokens_max=bounds.tokens_max,
        ),
        base_ms=identity.base_ms,
        row_ms=identity.row_ms,
        processor=processor_to_proto(identity.processor),
    )


def from_proto(hello: types.Hello, expected_role: str) -> Identity:
    """The peer behind a Hello. Raises Mismatch, naming both values, where it cannot be talked to."""
    if hello.protocol_version != PROTOCOL_VERSION:
        raise Mismatch(
            "PROTOCOL_VERSION",
            f"peer {hello.peer_id!r} speaks protocol version {hello.protocol_version}, this one {PROTOCOL_VERSION}; "
            "run the same release on both",
            {"theirs": str(hello.protocol_version), "ours": str(PROTOCOL_VERSION)},
        )
    role = role_name(hello.role)
    if role != expected_role:
        raise Mismatch("ROLE", f"peer {hello.peer_id!r} is a {role}; expected a {expected_role}; check the addresses")
    if not 0 < len(hello.peer_id.encode()) <= PEER_ID_BYTES_MAX:
        raise Mismatch("PEER_ID", f"a peer id has 1 to {PEER_ID_BYTES_MAX} bytes")
    limits = hello.limits
    base_ms, row_ms = pass_times(hello)
    return Identity(
        role=role,
        peer_id=hello.peer_id,
        incarnation=hello.incarnation,
        model_id=hello.model_id,
        tokenizer_fingerprint=hello.tokenizer_fingerprint,
        vocab_size=hello.vocab_size,
        bounds=Bounds(limits.credits, limits.sessions_max, limits.batch_max, limits.tree_nodes_max, limits.tokens_max),
        base_ms=base_ms,
        row_ms=row_ms,
        processor=processor_of(hello),
    )


def processor_to_proto(processor: Processor) -> types.Processor | None:
    """The message; none where nothing is known."""
    if not processor.name:
        return None
    return types.Processor(name=processor.name, cores=processor.cores, threads=processor.threads)


def processor_of(message: types.Hello | DrafterEntry) -> Processor:
    """What the peer behind a message computes on."""
    told = message.processor
    return Processor(told.name, max(1, told.cores), max(1, told.threads)) if told.name else UNKNOWN


def pass_times(message: types.Hello | DrafterEntry) -> tuple[float, float] | tuple[None, None]:
    """`base_ms` and `row_ms` of a message; none of them where one is absent or no time, since models build on them."""
    times = message.base_ms, message.row_ms
    told = message.HasField("base_ms") and message.HasField("row_ms")
    return times if told and all(math.isfinite(value) and value >= 0.0 for value in times) else (None, None)


def role_name(role: types.Role) -> str:
    """ "drafter" for ROLE_DRAFTER; "unspecified" for a role of a later release."""
    known = role if role in types.Role.values() else types.ROLE_UNSPECIFIED
    return str(types.Role.Name(known)).removeprefix("ROLE_").lower()


def role_value(name: str) -> str:
    """ "ROLE_DRAFTER" for "drafter"; unspecified where this release knows no such role."""
    value = f"ROLE_{name.upper()}"
    return value if value in dict(types.Role.items()) else "ROLE_UNSPECIFIED"


def check_same_tokenizer(target: Identity, drafter: Identity) -> None:
    """Raises Mismatch where a drafter's token ids mean something else than the target's."""
    ours = (target.tokenizer_fingerprint, target.vocab_size)
    theirs = (drafter.tokenizer_fingerprint, drafter.vocab_size)
    if ours != theirs:
        raise Mismatch(
            "TOKENIZER_MISMATCH",
            f"drafter {drafter.peer_id!r} ({drafter.model_id}) has tokenizer {theirs[0][:16]} with {theirs[1]} tokens, "
            f"the target {target.model_id} has {ours[0][:16]} with {ours[1]}; "
            "use a drafter trained with the target's tokenizer",
            {"drafter": theirs[0], "target": ours[0], "drafter_vocab": str(theirs[1]), "target_vocab": str(ours[1])},
        )
