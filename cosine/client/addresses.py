"""Which addresses can be dialled: HOST:PORT, or a name in a scheme that gRPC knows.

gRPC itself would take port 443 where none is named, and write of what it cannot read to standard error. Whether anybody
answers at an address is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cosine.core.errors import BadRequest

PORT_MAX = 65535
WITHOUT_PORT = ("unix", "unix-abstract", "vsock", "xds")
_PLACE = re.compile(r"(?:\[[^\s\[\]/,]+\]|[^\s\[\]/,:]+):([1-9][0-9]{0,4})")


def check_addresses(addresses: Sequence[object]) -> None:
    """Raises BadRequest where there is none, and for the first that cannot be dialled."""
    if not addresses:
        raise BadRequest("ADDRESS", 'name at least one gateway: AsyncClient("127.0.0.1:50050")')
    for address in addresses:
        if not isinstance(address, str):
            raise BadRequest(
                "ADDRESS",
                f"an address is text, not a {type(address).__name__}; name several one after the other: "
                'AsyncClient("a:50050", "b:50050")',
            )
        if not all(_has_port(place) for place in _places(address)):
            raise BadRequest("ADDRESS", f"{address!r} is not HOST:PORT, for example 127.0.0.1:50050")


def _places(address: str) -> list[str]:
    """What needs a port. The schemes: github.com/grpc/grpc/blob/master/doc/naming.md."""
    scheme, _, rest = address.partition(":")
    if scheme in WITHOUT_PORT and rest:
        return []
    if scheme in ("ipv4", "ipv6"):
        return rest.lstrip("/").split(",")
    if scheme == "dns":
        return [rest.rpartition("/")[2] if rest.startswith("//") else rest]
    return [address]


def _has_port(place: str) -> bool:
    found = _PLACE.fullmatch(place)
    return found is not None and int(found[1]) <= PORT_MAX
