"""Finds out before anything is started whether a mesh can work: models exist and fit, devices have names, the engine is
installed, the port is free, Redis answers.

Reads tokenizers, never weights, and imports no torch. Every error is the user's to mend and says how.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from cosine.cli.meshfile import MeshSpec
from cosine.cli.roster import roster
from cosine.core.errors import BadRequest, MeshError, Mismatch, NotFound, Unavailable
from cosine.core.strategy import check_demands, parse
from cosine.engine.loading import parse_pace
from cosine.engine.toy import parse_spec
from cosine.rpc.hello import Identity, check_same_tokenizer
from cosine.store.connection import Store
from cosine.store.registry import SERVING, Registry
from cosine.text.tokenizer import fingerprint, is_toy, load_tokenizer, vocab_size

DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
ENGINE_PACKAGES = ("torch", "transformers", "safetensors")


def _quietly(_: str) -> None:
    pass


async def check(spec: MeshSpec, say: Callable[[str], None] = _quietly) -> None:
    """Raises the MeshError of the first thing that cannot work; `say` hears what may take long."""
    for pace in filter(None, (spec.pace, spec.drafter_pace)):
        parse_pace(pace)
    check_strategy(spec)
    check_devices(spec)
    check_engine(spec)
    check_models(spec, say)
    check_free(spec.gateway)
    if spec.redis:
        await check_redis(spec)


def check_strategy(spec: MeshSpec) -> None:
    """Raises BadRequest where the mesh's own strategy demands more verifiers or drafters than the mesh will have, or a
    drafter of another name: every request without a strategy of its own would suffer. Drafters of one model count once,
    as replicas."""
    row = parse(spec.strategy)
    names = {*spec.drafters, *spec.drafters.values()}
    check_demands(row, spec.verifiers, len(set(spec.drafters.values())), names)


def check_devices(spec: MeshSpec) -> None:
    """Raises BadRequest for a device of no known name; whether the machine has it is for the peers to find out."""
    for flag, device in (("--device", spec.device), ("--drafter-device", spec.drafter_device or "auto")):
        if not DEVICE.fullmatch(device):
            raise BadRequest("DEVICE", f"{flag} {device!r} is no device; take auto, cpu or cuda[:N]", {"flag": flag})


def check_engine(spec: MeshSpec) -> None:
    """Raises Mismatch where a model is asked for and what runs models is not installed; toys need nothing."""
    if all(is_toy(source) for source in (spec.target, *spec.drafters.values())):
        return
    if missing := [name for name in ENGINE_PACKAGES if find_spec(name) is None]:
        raise Mismatch(
            "EXTRA_MISSING",
            f"drafters and verifiers need {', '.join(missing)}, which this Python lacks; "
            "pip install 'cosine-mesh[mesh,engine]'",
        )


def check_models(spec: MeshSpec, say: Callable[[str], None] = _quietly) -> None:
    """Raises NotFound or Unavailable for a model that is not there, Mismatch for a drafter with other tokens."""
    target = _identity("target", "target", spec.target, say)
    for name, source in spec.drafters.items():
        check_same_tokenizer(target, _identity(f"drafter {name!r}", name, source, say))


def check_free(address: str) -> None:
    """Raises BadRequest where another process listens on the address, or the host is not ours."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(*family[:3]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(family[4])
            probe.listen(1)
    except OSError as error:
        raise BadRequest(
            "ADDRESS_IN_USE",
            f"the gateway cannot listen on {address} ({error.strerror}); "
            "end what listens there, or choose another --gateway",
            {"address": address},
        ) from error


async def check_redis(spec: MeshSpec) -> None:
    """Raises BadRequest for a senseless URL or a mesh that runs already, Unavailable where no Redis answers."""
    store = Store(spec.redis, spec.mesh)
    try:
        await _ping(store)
        ours = {plan.peer_id for plan in roster(spec)}
        running = [peer for peer in await Registry(store).peers() if peer.state == SERVING and peer.peer_id in ours]
    finally:
        await store.close()
    if running:
        first = running[0]
        raise BadRequest(
            "MESH_RUNS",
            f"mesh {spec.mesh!r} has a {first.role} {first.peer_id!r} at {first.address} already; end it (if it was "
            "killed, wait some seconds) or name this mesh otherwise with --mesh",
            {"mesh": spec.mesh, "peer_id": first.peer_id},
        )


async def _ping(store: Store) -> None:
    """Raises Unavailable with advice for a mesh that does not run yet."""
    try:
        await store.ping()
    except Unavailable as error:
        raise Unavailable(
            error.reason,
            f"no Redis answers at {error.details['url']}; check --redis (or COSINE_REDIS_URL), user and password, and "
            "that the server runs, or leave it out: a server of the mesh's own is started then",
            error.details,
        ) from error


def _identity(where: str, name: str, source: str, say: Callable[[str], None]) -> Identity:
    """The model as far as its files tell without weights."""
    try:
        _check_folder(source)
        if not is_toy(source) and not Path(source).expanduser().is_dir():
            say(f"{where}: there is no folder {source!r}; asking the Hugging Face hub, which may take a while")
        tokenizer = load_tokenizer(source)
    except MeshError as error:
        raise type(error)(error.reason, f"{where}: {error.message}", error.details) from error
    return Identity(
        "drafter", name, 0, source, tokenizer_fingerprint=fingerprint(tokenizer), vocab_size=vocab_size(tokenizer)
    )


def _check_folder(source: str) -> None:
    """Tells a mistyped path from a hub id, so that nobody waits for a hub that does not know it."""
    if is_toy(source):
        parse_spec(source)
        return
    path = Path(source).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        raise NotFound(
            "MODEL_NOT_FOUND", f"folder {source!r} holds no config.json; name the folder that save_pretrained wrote"
        )
    if not path.is_dir() and path.parent != Path() and path.parent.is_dir():
        raise NotFound("MODEL_NOT_FOUND", f"there is no folder {source!r}; check the path", {"model": source})
