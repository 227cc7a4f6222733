"""Settings that every service shares: from flags, then environment (`COSINE_`), validated at start, printed masked."""

from __future__ import annotations

import re
import socket
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from cosine.core.errors import BadRequest
from cosine.text.masking import mask

PORT = re.compile(r"[0-9]{1,5}")
WILDCARDS = ("0.0.0.0", "[::]", "::", "*")

_T = TypeVar("_T", bound=BaseSettings)


def read(kind: type[_T]) -> _T:
    """The settings from flags and environment. Raises BadRequest, naming flag and variable, where one is wrong."""
    try:
        return CliApp.run(kind, cli_exit_on_error=False)
    except SettingsError as error:
        message = mask(str(error).removeprefix("error parsing CLI: "))
        raise BadRequest("SETTINGS", f"{message}; see --help") from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        flag = "--" + name.replace("_", "-")
        message = first["msg"].removeprefix("Value error, ")
        raise BadRequest("SETTINGS", f"{flag} (COSINE_{name.upper()}): {message}; see --help") from error


class ServiceSettings(BaseSettings):
    """Flags of every service."""

    model_config = SettingsConfigDict(
        env_prefix="COSINE_", cli_kebab_case=True, cli_avoid_json=True, cli_implicit_flags=True, extra="forbid"
    )

    listen: str = Field("127.0.0.1:0", description="HOST:PORT to serve on; port 0 takes a free one")
    advertise: str = Field(
        "",
        description="HOST:PORT other peers reach this one at; default: the listening address, or where that is "
        "0.0.0.0 or [::] the one this machine reaches Redis from",
    )
    peer_id: str = Field("", description="name of this peer, unique in the mesh; default: role and host name")
    redis_url: str = Field("", description="redis:// or unix:// URL of the mesh's Redis (7.0 or later) or Valkey")
    mesh: str = Field("mesh", description="name of the mesh; meshes with different names share one Redis in peace")
    metrics_listen: str = Field("", description="HOST:PORT of Prometheus metrics over HTTP; empty: none")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    grace_s: float = Field(20.0, gt=0, description="seconds to finish running work after SIGTERM")
    message_bytes_max: int = Field(16 * 1024 * 1024, gt=1024, description="largest message taken or sent, in bytes")

    @field_validator("listen", "advertise", "metrics_listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and (not host or not PORT.fullmatch(port) or int(port) > 65535):
            raise ValueError(f"{value!r} is not HOST:PORT, for example 127.0.0.1:50051")
        return value

    def host_for_peers(self) -> str:
        """Where others find what listens here: a listening address that stands for all of the machine's is replaced by
        the one through which this machine reaches the mesh's Redis. Raises BadRequest where that cannot be told."""
        host = self.listen.rpartition(":")[0]
        if host not in WILDCARDS or self.advertise or not self.redis_url:
            return host
        try:
            return _local_address(urlsplit(self.redis_url).hostname, socket.AF_INET if host == "0.0.0.0" else 0)
        except (OSError, ValueError) as error:
            raise BadRequest(
                "NO_ADDRESS",
                f"other peers cannot dial {self.listen}, and which address of this machine they could is not clear "
                f"({type(error).__name__} on the way to Redis); set --advertise HOST:PORT",
                {"listen": self.listen},
            ) from error

    def named(self, role: str) -> str:
        """The peer id, made from role and host name where none was given."""
        return self.peer_id or f"{role}-{socket.gethostname()}"

    def masked(self) -> dict[str, Any]:
        """All settings, passwords in URLs replaced, for the one line printed at start."""
        return {key: mask(value) if isinstance(value, str) else value for key, value in self.model_dump().items()}


def _local_address(host: str | None, family: int) -> str:
    """Ours on the way to `host`, loopback where that is this machine; a datagram socket sends nothing to connect."""
    if host is None:  # a Unix socket
        return "127.0.0.1"
    found, kind, _, _, place = socket.getaddrinfo(host, 6379, family, socket.SOCK_DGRAM)[0]
    with socket.socket(found, kind) as probe:
        probe.connect(place)
        address = str(probe.getsockname()[0])
    return f"[{address}]" if found == socket.AF_INET6 else address
