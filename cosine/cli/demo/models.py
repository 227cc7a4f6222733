"""What the demo runs on: the test bed with its target inflated to a realistic cost, or toy models; and its prompts.

The inflated twin is made once and kept under `build/`, named by the hash of what it is made from.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosine.cli.meshfile import PROJECT_ROOT, MeshSpec, read_testbed
from cosine.cli.processes import launched, module_command
from cosine.core.errors import MeshError, NotFound
from cosine.text.tokenizer import load_tokenizer

PROMPTS_FILE = PROJECT_ROOT / "testbed" / "prompts.json"
CACHE = PROJECT_ROOT / "build" / "demo"
HIDDEN, LAYERS = 768, 12  # 86.5 million parameters
GRACE_S = 3.0  # nothing runs any more when the demo stops its mesh
TOY_TARGET = "toy:seed=1"
# A toy's domain is its first token modulo 4: these begin with the bytes 64 to 67.
TOY_PROMPTS = {"code": "@Dec", "prose": "AEsop", "math": "BFifty", "sql": "CGroup"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A held-out text, as the target's tokens."""

    domain: str
    text: str
    token_ids: tuple[int, ...]


async def testbed_spec(hidden: int = HIDDEN, layers: int = LAYERS) -> MeshSpec:
    """The test bed's five drafters and its target's twin, inflated to so wide and so many layers. Raises NotFound,
    MeshError."""
    models = read_testbed()
    target = await inflated(Path(models["target"]), hidden, layers)
    return MeshSpec(
        target=str(target),
        drafters=models["drafters"],
        device="cpu",  # where models this small are at home, with a GPU or without
        gateway="127.0.0.1:0",
        grace_s=GRACE_S,
    )


def toy_spec() -> MeshSpec:
    """Five toy drafters: one that knows a little of everything, four that know one domain well."""
    specialists = {
        domain: f"{TOY_TARGET},own={home + 10},skill=0.9,home={home},abroad=0.3"
        for home, domain in enumerate(TOY_PROMPTS)
    }
    drafters = {"general": f"{TOY_TARGET},own=5,skill=0.7", **specialists}
    return MeshSpec(target=TOY_TARGET, drafters=drafters, dtype="float32", gateway="127.0.0.1:0", grace_s=GRACE_S)


async def inflated(source: Path, hidden: int = HIDDEN, layers: int = LAYERS) -> Path:
    """The larger twin of a model, made now where it is not there yet; it writes the same text at a larger cost."""
    shape = ("--hidden", str(hidden), "--layers", str(layers), "--dtype", "bfloat16")
    folder = CACHE / f"target-{_content_hash(source, shape)}"
    if (folder / "config.json").is_file():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=CACHE, prefix=".making-"))
    try:
        await _run_tool("testbed.inflate", "--source", str(source), "--out", str(fresh), *shape)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


async def _run_tool(module: str, *arguments: str) -> None:
    """Runs a module of the project in a process of its own, which ends with us."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    process = await asyncio.create_subprocess_exec(
        *launched(*module_command(module, arguments)), stdout=PIPE, stderr=STDOUT, env=environment
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = output.decode(errors="replace").strip()[-2000:]
        raise MeshError("TOOL_FAILED", f"python -m {module} ended with status {process.returncode}:\n{last}")


def _content_hash(source: Path, shape: Sequence[str]) -> str:
    digest = hashlib.sha256(" ".join(shape).encode())
    for path in [*sorted(source.glob("*.safetensors")), source / "config.json", source / "tokenizer.json"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def testbed_prompts(target: str, count: int) -> list[Prompt]:
    """`count` prompts of every domain, the domains taking turns. Raises NotFound where the file is missing."""
    if not PROMPTS_FILE.is_file():
        raise NotFound("NO_PROMPTS", f"there is no {PROMPTS_FILE}; run from a complete checkout")
    by_domain: dict[str, list[str]] = {}
    for entry in json.loads(PROMPTS_FILE.read_text(encoding="utf-8")):
        by_domain.setdefault(entry["domain"], []).append(entry["text"])
    return _taking_turns(target, by_domain, count)


def toy_prompts(target: str, count: int) -> list[Prompt]:
    """The same for toys."""
    by_domain = {domain: [text + "!" * turn for turn in range(count)] for domain, text in TOY_PROMPTS.items()}
    return _taking_turns(target, by_domain, count)


def _taking_turns(target: str, by_domain: dict[str, list[str]], count: int) -> list[Prompt]:
    tokenizer = load_tokenizer(target)
    turns = [(domain, texts[turn]) for turn in range(count) for domain, texts in by_domain.items() if turn < len(texts)]
    return [Prompt(domain, text, tuple(tokenizer.encode(text).ids)) for domain, text in turns]
