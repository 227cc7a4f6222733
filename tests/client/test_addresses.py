"""Addresses that can be dialled are taken as they are; others are refused before gRPC hears of them."""

from __future__ import annotations

from typing import Any

import pytest

import cosine
from cosine.client.addresses import check_addresses
from cosine.core.errors import BadRequest


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:50050",
        "gateway_1.mesh-a.local:65535",
        "[::1]:1",
        "dns:gateway:50050",
        "dns:///gateway:50050",
        "dns://8.8.8.8:53/gateway:50050",
        "ipv4:10.0.0.1:50050",
        "ipv6:[2607:f8b0::1]:443,[2607:f8b0::2]:443",
        "unix:run/gateway",
        "unix:///run/gateway",
        "unix-abstract:gateway",
        "vsock:2:50050",
        "xds:///gateway",
    ],
)
def test_what_grpc_can_dial_is_taken(address: str) -> None:
    check_addresses([address])


@pytest.mark.parametrize(
    "address",
    [
        "",
        "gateway",
        "gateway:",
        "gateway:0",
        "gateway:65536",
        "gateway:grpc",
        "gateway:\u00b2",
        "gateway:\u0663",
        ":50050",
        " gateway:50050",
        "gateway:50050\n",
        "a:50050,b:50050",
        "::1",
        "::1:50050",
        "[]:50050",
        "http://gateway:50050",
        "gateway:50050/",
        "dns:gateway",
        "dns:///gateway",
        "ipv4:10.0.0.1",
        "ipv6:[::1]:443,[::2]",
        "unix:",
    ],
)
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_addresses(["127.0.0.1:50050", address])
    assert (refused.value.reason, refused.value.message) == (
        "ADDRESS",
        f"{address!r} is not HOST:PORT, for example 127.0.0.1:50050",
    )


@pytest.mark.parametrize("kind", [cosine.Client, cosine.AsyncClient])
@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        ((), "name at least one gateway: AsyncClient("),
        ((["a:1", "b:1"],), 'not a list; name several one after the other: AsyncClient("a:50050", "b:50050")'),
        ((b"a:1",), "an address is text, not a bytes; "),
        ((None,), "an address is text, not a NoneType; "),
        (("a:1", "b"), "'b' is not HOST:PORT"),
    ],
    ids=["none", "list", "bytes", "None", "no port"],
)
def test_a_client_of_no_gateway_is_refused(kind: Any, addresses: tuple[Any, ...], words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        kind(*addresses)
    assert words in refused.value.message
