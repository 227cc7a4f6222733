"""Settings: what a process tells others of where it is, and what it refuses to tell."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from cosine.core.errors import BadRequest
from cosine.rpc import settings
from cosine.rpc.settings import ServiceSettings


def host(**given: Any) -> str:
    return ServiceSettings(**{"listen": "0.0.0.0:5", **given}).host_for_peers()


@pytest.mark.parametrize("listen", ["127.0.0.1:5", "somewhere:5", "[::1]:5"])
def test_an_address_that_can_be_dialled_is_told_as_it_is(listen: str) -> None:
    assert host(listen=listen, redis_url="redis://nowhere.invalid") == listen.rpartition(":")[0]


@pytest.mark.parametrize("url", ["unix:///tmp/redis.sock", "redis://127.0.0.1:6379", "redis://:secret@127.0.0.1/0"])
def test_beside_its_redis_a_process_is_found_on_loopback(url: str) -> None:
    assert host(redis_url=url) == "127.0.0.1"


@pytest.mark.parametrize(
    ("listen", "family", "told"), [("0.0.0.0:5", socket.AF_INET, "10.1.2.3"), ("[::]:5", socket.AF_INET6, "[fd00::3]")]
)
def test_all_addresses_become_the_one_on_the_way_to_redis(
    monkeypatch: pytest.MonkeyPatch, listen: str, family: int, told: str
) -> None:
    class Probe:
        def __init__(self, *_: Any) -> None: ...
        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *_: object) -> None: ...
        def connect(self, place: Any) -> None:
            assert place == ("redis", 6379)

        def getsockname(self) -> Any:
            return (told.strip("[]"), 40_000)

    def resolve(name: str, port: int, wanted: int, kind: int) -> Any:
        assert (name, wanted) == ("redis.example", family if family == socket.AF_INET else 0)
        return [(family, kind, 0, "", ("redis", port))]

    monkeypatch.setattr(settings.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(settings.socket, "socket", Probe)
    assert host(listen=listen, redis_url="redis://redis.example:7000") == told


def test_where_the_way_to_redis_is_unknown_the_reason_names_the_flag() -> None:
    with pytest.raises(BadRequest, match="--advertise HOST:PORT") as caught:
        host(redis_url="redis://:secret@[broken")
    assert (caught.value.reason, caught.value.details) == ("NO_ADDRESS", {"listen": "0.0.0.0:5"})
    assert "secret" not in str(caught.value)


def test_nothing_is_looked_for_where_it_is_told_or_nobody_asks() -> None:
    assert host(redis_url="redis://:secret@[broken", advertise="here:5") == host(redis_url="") == "0.0.0.0"


@pytest.mark.parametrize("advertise", ["here", "here:\u00b2", "here:65536"])
def test_an_advertised_address_has_a_port(advertise: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        ServiceSettings(advertise=advertise)
