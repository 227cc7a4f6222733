"""What a mesh on one machine consists of: `MeshSpec`, from flags or from a YAML file with the same keys.

Checks form only (known keys, ranges, names); whether the parts exist and fit together is for `cosine.cli.checks`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from cosine.cli.service_flags import check_flags
from cosine.core.errors import BadRequest, NotFound
from cosine.core.strategy import parse
from cosine.rpc.hello import STEP_SESSIONS_MAX
from cosine.text.strict_yaml import read_mapping

GATEWAY_ADDRESS = "127.0.0.1:50050"
PROJECT_ROOT = Path(__file__).resolve().parents[2]
TESTBED_MODELS = PROJECT_ROOT / "testbed" / "models"
PEER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PORT = re.compile(r"[0-9]{1,5}")
TAKEN_NAMES = re.compile(r"store|gateway|scheduler|fusion|verifier(-\d+)?")

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
LogLevel = Literal["debug", "info", "warning", "error"]
Role = Literal["gateway", "scheduler", "fusion", "drafter", "verifier"]
Option = str | int | float | bool


class MeshSpec(BaseModel):
    """A mesh on one machine. Every key is a flag of `cosine up` and a key of a mesh file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str = Field(description="the target: a folder, a hub id, or toy[:KEY=NUMBER,...]")
    drafters: dict[str, str] = Field(default_factory=dict, description="drafters by name, each a model like the target")
    dtype: Dtype = Field(
        default="auto", description="the target's; auto on a CPU: bfloat16 where the CPU computes it, else float32"
    )
    drafter_dtype: Dtype = Field(default="auto", description="the drafters'; auto on a CPU: float32")
    device: str = Field(
        default="auto",
        description="of the target and, where they have none, drafters: auto (cuda where torch sees it), cpu, cuda[:N]",
    )
    drafter_device: str = Field(default="", description="of the drafters, for example cpu beside a target on a GPU")
    threads: Annotated[int, Field(ge=0, le=256)] = Field(
        default=0, description="CPU threads of each verifier; 0: half of the machine's, shared among the verifiers"
    )
    drafter_threads: Annotated[int, Field(ge=1, le=256)] = Field(default=1, description="CPU threads of each drafter")
    strategy: str = Field(default="cosine", description="strategy of requests that name none")
    gateway: str = Field(
        default=GATEWAY_ADDRESS, description="HOST:PORT the gateway listens on; port 0 takes a free one"
    )
    redis: str = Field(
        default="", description="URL of a Redis (7.0 or later) or Valkey (env COSINE_REDIS_URL); empty: embedded"
    )
    mesh: str = Field(
        default="mesh", description="name of the mesh; meshes with different names share one Redis in peace"
    )
    verifiers: Annotated[int, Field(ge=1, le=64)] = Field(default=1, description="how many verifiers")
    sessions: Annotated[int, Field(ge=1, le=STEP_SESSIONS_MAX)] = Field(
        default=64, description=f"requests in work at once (at most {STEP_SESSIONS_MAX})"
    )
    tokens: Annotated[int, Field(ge=16)] = Field(
        default=2048, description="tokens of one request, prompt and output, at most"
    )
    new_tokens: Annotated[int, Field(ge=1)] = Field(default=1024, description="tokens of one generation at most")
    pace: str = Field(
        default="", description="BASE_MS[,ROW_MS[,KILOTOKEN_MS]] of a verifier: take as long as other hardware"
    )
    drafter_pace: str = Field(default="", description="the same for drafters")
    log_level: LogLevel = Field(default="info", description="how much the peers write to their logs")
    grace_s: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="seconds to finish running work when stopped"
    )
    start_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=300.0, description="seconds until every peer must be ready"
    )
    options: dict[Role, dict[str, Option]] = Field(
        default_factory=dict, description="further flags of the services by role, for example gateway: {waiting_max: 8}"
    )
    peer_options: dict[str, dict[str, Option]] = Field(
        default_factory=dict,
        description="further flags of single peers by name, for example code: {pace: 20}; they win",
    )

    @field_validator("drafters")
    @classmethod
    def _drafters_named(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not PEER_ID.fullmatch(name) or TAKEN_NAMES.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot name a drafter; take up to 64 of A-Z a-z 0-9 . _ - and no other role"
                )
        return value

    @field_validator("options")
    @classmethod
    def _flags_of_roles(cls, value: dict[Role, dict[str, Option]]) -> dict[Role, dict[str, Option]]:
        for role, options in value.items():
            check_flags(role, role, options)
        return value

    @field_validator("peer_options")
    @classmethod
    def _flags_of_peers(cls, value: dict[str, dict[str, Option]], info: ValidationInfo) -> dict[str, dict[str, Option]]:
        roles = {role: role for role in ("gateway", "scheduler", "fusion")}
        roles.update(dict.fromkeys(info.data.get("drafters", ()), "drafter"))
        roles.update(dict.fromkeys(verifier_names(info.data.get("verifiers", 1)), "verifier"))
        for peer_id, options in value.items():
            if peer_id not in roles:
                raise ValueError(f"{peer_id!r} is no peer of the mesh; its peers are {', '.join(sorted(roles))}")
            check_flags(roles[peer_id], peer_id, options)
        return value

    @field_validator("gateway")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not PORT.fullmatch(port) or int(port) > 65535:
            raise ValueError(f"{value!r} is not HOST:PORT, for example {GATEWAY_ADDRESS}")
        return value

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, value: str) -> str:
        try:
            return parse(value).name
        except BadRequest as error:
            raise ValueError(error.message) from error


def verifier_names(count: int) -> list[str]:
    """What the verifiers of a mesh are called."""
    return ["verifier", *(f"verifier-{number}" for number in range(2, count + 1))]


def read_spec(path: Path | None, flags: Mapping[str, Any]) -> MeshSpec:
    """The mesh of a file (if any) and the flags given, which win; the test bed where neither names a target.

    Raises NotFound or BadRequest, naming the file or flag and the key.
    """
    from_file = _read_file(path) if path is not None else {}
    given = {**_read_environment(), **from_file, **flags}
    if "target" not in given and "drafters" not in given:
        given = {**read_testbed(), **given}
    try:
        return MeshSpec(**given)
    except ValidationError as error:
        raise _explain(error, path, from_file.keys() - flags.keys()) from error


def read_testbed(folder: Path = TESTBED_MODELS) -> dict[str, Any]:
    """Target and drafters of the project's test bed. Raises NotFound where it is not there."""
    drafters = {path.name.removeprefix("drafter-"): str(path) for path in sorted(folder.glob("drafter-*"))}
    if not (folder / "target" / "config.json").is_file() or not drafters:
        raise NotFound(
            "NO_TESTBED", f"there is no test bed in {folder}; name models with --target and --drafter NAME=MODEL"
        )
    return {"target": str(folder / "target"), "drafters": drafters}


def parse_drafters(pairs: list[str]) -> dict[str, str]:
    """NAME=MODEL pairs of flags. Raises BadRequest where one is no pair or a name comes twice."""
    drafters: dict[str, str] = {}
    for pair in pairs:
        name, separator, source = pair.partition("=")
        if not separator or not name or not source:
            raise BadRequest("DRAFTER", f"--drafter {pair!r} is not NAME=MODEL, for example code=models/drafter-code")
        if name in drafters:
            raise BadRequest("DUPLICATE_DRAFTER", f"two drafters are named {name!r}; give each a name of its own")
        drafters[name] = source
    return drafters


def _read_environment() -> dict[str, Any]:
    """A URL with a password is better not written into a file or a command line."""
    url = os.environ.get("COSINE_REDIS_URL")
    return {"redis": url} if url else {}


def _read_file(path: Path) -> dict[str, Any]:
    content = read_mapping(path, "MESH_FILE", "a mesh file is a mapping with keys like target and drafters")
    return _resolve_paths(content, path.parent)


def _resolve_paths(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Model folders beside the file may be named relative to it."""

    def resolve(source: Any) -> Any:
        beside = folder / str(source)
        return str(beside) if isinstance(source, str) and source and beside.is_dir() else source

    drafters = content.get("drafters")
    if isinstance(drafters, dict):
        content["drafters"] = {name: resolve(source) for name, source in drafters.items()}
    if "target" in content:
        content["target"] = resolve(content["target"])
    return content


def _explain(error: ValidationError, path: Path | None, keys_of_file: set[str]) -> BadRequest:
    """The first thing wrong, with the file or flag it is in."""
    first = error.errors()[0]
    key = str(first["loc"][0])
    place = f"{path}: {'.'.join(str(part) for part in first['loc'])}" if key in keys_of_file else _flag(key)
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        known = ", ".join(MeshSpec.model_fields)
        return BadRequest("UNKNOWN_KEY", f"{place} is no key of a mesh; the keys are {known}")
    if first["type"] == "missing":
        return BadRequest("NO_TARGET", f"{path or 'the command'} names drafters but no {key}; add {_flag(key)} MODEL")
    message = first["msg"].removeprefix("Value error, ")
    return BadRequest("MESH_SPEC", f"{place}: {message}")


def _flag(key: str) -> str:
    return "--drafter" if key == "drafters" else "--" + key.replace("_", "-")
