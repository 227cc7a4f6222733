"""Processes whose engine stands still: they end when told to, and by themselves after a time."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc.aio
from hanging_verifier import HANGS_AT

from cosine.cli.roster import environment
from cosine.rpc import hello
from cosine.rpc.hello import Identity
from cosine.v1 import verifier_pb2 as pb
from cosine.v1.verifier_pb2_grpc import VerifierServiceStub

DEADLINE_S = 60.0
NOBODY = "redis://127.0.0.1:1"  # whoever is dialled needs no registry
SCRIPT = Path(__file__).with_name("hanging_verifier.py")


@asynccontextmanager
async def verifier(*words: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, str(SCRIPT), *words], stdout=PIPE, stderr=PIPE, env=environment(1, NOBODY)
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def make_it_hang(process: Process) -> None:
    """Sends the work at which the engine hangs, and returns once it does."""
    address = json.loads(await line(process))["ready"]["address"]
    async with grpc.aio.insecure_channel(address) as channel:
        call = VerifierServiceStub(channel).Verify()
        await call.write(pb.VerifyRequest(hello=hello.to_proto(Identity("scheduler", "test"))))
        await call.read()
        item = pb.VerifyItem(session_id="s", append_token_ids=[HANGS_AT])
        await call.write(pb.VerifyRequest(batch=pb.VerifyBatch(batch_id=1, items=[item])))
        assert await line(process) == "hangs"


async def test_a_process_told_to_stop_while_its_model_loads_ends_at_once() -> None:
    async with verifier("loading") as process:
        assert await line(process) == "hangs"
        process.terminate()
        assert await process.wait() == 0


async def test_a_process_whose_engine_hangs_ends_when_told_to() -> None:
    async with verifier("passes", "--grace-s=0.1") as process:
        await make_it_hang(process)
        process.terminate()
        assert await process.wait() == 0


async def test_a_process_whose_engine_hangs_says_so_and_ends_by_itself() -> None:
    async with verifier("passes", "--pass-timeout-s=0.1") as process:
        await make_it_hang(process)
        _, errors = await process.communicate()
        assert process.returncode == 2
        *logged, reason = errors.decode().splitlines()
        assert reason.startswith("ENGINE_HANGS: a pass has not ended within 0.5 s")
        assert json.loads(logged[-1])["level"] == "error"
