"""Service processes that tests start beside a mesh, and what can be seen of a process from outside."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import urllib.request
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cosine.cli.roster import environment
from cosine.store.embedded import free_port

START_S = 60.0
END_S = 60.0
STILL_RUNNING = -1
SAMPLE = re.compile(r"^(\w+?)(?:\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)


@asynccontextmanager
async def service(role: str, *flags: str, redis_url: str = "") -> AsyncIterator[tuple[str, int]]:
    """Address and pid of `python -m services.ROLE`, once it serves; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", f"services.{role}", *flags], stdout=PIPE, env=environment(1, redis_url)
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            ready = json.loads(await process.stdout.readline())["ready"]
        yield ready["address"], process.pid
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ended(*words: str, redis_url: str = "") -> tuple[int, str, str]:
    """Status, standard output and standard error of a `python -m ...` that shall end by itself."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", *words], stdout=PIPE, stderr=PIPE, env=environment(1, redis_url)
    )
    try:
        async with asyncio.timeout(END_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        return STILL_RUNNING, "", f"it still ran after {END_S:g} s"
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def metrics(address: str) -> dict[str, float]:
    """Samples of a /metrics page, summed over their labels."""

    def fetch() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
            return str(page.read().decode())

    samples: dict[str, float] = {}
    for name, value in SAMPLE.findall(await asyncio.to_thread(fetch)):
        samples[name] = samples.get(name, 0.0) + float(value)
    return samples


def free_address() -> str:
    """Where nobody listens."""
    return f"127.0.0.1:{free_port()}"


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def mapped_files(pid: int) -> set[str]:
    """Names of the files a process has mapped, shared libraries among them."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {Path(parts[5]).as_posix() for line in lines if len(parts := line.split(maxsplit=5)) == 6}
