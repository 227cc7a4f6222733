"""Everything that can be wrong, as one tree; `cosine.rpc.errors` maps each branch to a canonical status code.

MeshError
├── BadRequest              INVALID_ARGUMENT      the request can never succeed as it is
├── NotFound                NOT_FOUND             names something the mesh does not have
├── Mismatch                FAILED_PRECONDITION   two peers, or a peer and its model, do not fit together
├── Full                    RESOURCE_EXHAUSTED    a bound is reached; try again after `retry_delay_ms`
├── Unavailable             UNAVAILABLE           a needed part of the mesh is away; try again
├── Expired                 DEADLINE_EXCEEDED     the caller's deadline passed
└── Cancelled               CANCELLED             the caller left
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class MeshError(Exception):
    """An error with a stable reason for programs and a message that says what to do for people.

    `reason` is UPPER_SNAKE_CASE (it becomes `ErrorInfo.reason`), `details` its metadata.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        details: Mapping[str, str] = MappingProxyType({}),
        retry_delay_ms: int = 0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.details = dict(details)
        self.retry_delay_ms = retry_delay_ms


class BadRequest(MeshError):
    """The request can never succeed as it is."""


class NotFound(MeshError):
    """The request names something the mesh does not have."""


class Mismatch(MeshError):
    """Two peers, or a peer and its model, do not fit together."""


class Full(MeshError):
    """A bound is reached."""


class Unavailable(MeshError):
    """A needed part of the mesh is away."""


class Expired(MeshError):
    """The caller's deadline passed."""


class Cancelled(MeshError):
    """The caller left."""
