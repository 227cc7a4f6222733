"""One generation, from admission to its last chunk: the gateway's half of "truth travels towards the client".

The gateway holds the request and every token it was sent. A scheduler that is lost on the way is replaced by admitting
prompt and output again under the next attempt; the text goes on as if nothing had happened. What a scheduler says
of a request that it cannot serve is final. When the client leaves, or the time is over, the work ends at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
from tokenizers import Tokenizer

from cosine.core.errors import BadRequest, Expired, Full, MeshError, Mismatch, NotFound, Unavailable
from cosine.core.intake import Job
from cosine.rpc.convert import sampling_to_proto
from cosine.store.admission import AdmissionQueue
from cosine.store.records import RequestRecords
from cosine.text.detokenizer import TokenKinds
from cosine.v1 import gateway_pb2 as pb
from cosine.v1 import types_pb2 as types
from cosine.v1.scheduler_pb2 import AdmittedRequest
from services.gateway.relay import Relay
from services.gateway.running import Delta, Running, SchedulerLost
from services.gateway.settings import GatewaySettings
from services.gateway.transcript import Transcript

CLEAN_UP_S = 1.0
TIME_OVER = "the request's time is over; what was sent so far is valid"
HOPELESS = (BadRequest, NotFound, Mismatch)  # a resume would end no better

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Door:
    """What every generation of a gateway shares."""

    settings: GatewaySettings
    gateway_id: str
    relay: Relay
    queue: AdmissionQueue
    records: RequestRecords
    tokenizer: Tokenizer
    kinds: TokenKinds


class Generation:
    """One request. `record` is what a resume by id alone needs; `deadline` is on the event loop's clock."""

    def __init__(self, door: Door, job: Job, record: bytes, deadline: float, traceparent: str) -> None:
        self._door = door
        self._job = job
        self._record = record
        self._deadline = deadline
        self._traceparent = traceparent
        self._running = Running(job.request_id, job.emitted, job.max_new_tokens)
        self._transcript = Transcript(door.tokenizer, door.kinds, job.stop, job.prompt)
        self._shown = self._transcript.push(job.emitted).token_count
        self._entry_id = ""
        self._attempts = 0
        self._admitted_at = 0.0
        self._done = False

    async def run(self, takes_over: bool) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Yields `started`, chunks, `finished`. Raises MeshError; closing it early cancels the work."""
        if self._finish_of_output():  # a resume of what was all there is; its text was sent with the last token
            self._transcript.finish()
            yield self._started()
            yield self._finished(self._finish_of_output())
            return
        with self._door.relay.seat(self._running, takes_over):
            try:
                async with self._in_time():
                    await self._door.relay.connected(self._door.settings.scheduler_wait_s)
                    await self._admit()
                yield self._started()
                async for response in self._follow():
                    yield response
            except HOPELESS:
                self._door.records.finished(self._job.request_id)
                raise
            finally:
                if not self._done:
                    await self._abandon()

    async def _follow(self) -> AsyncIterator[pb.GenerateResponse]:
        while not self._done:
            async with self._in_time():
                delta = await self._next()
            chunk, finish = self._read(delta)
            if chunk.text or chunk.token_ids:
                yield pb.GenerateResponse(chunk=chunk)
            if finish:
                self._end(told=bool(delta.finish))
                yield self._finished(finish)

    def _read(self, delta: Delta) -> tuple[pb.Chunk, types.FinishReason]:
        """What the client is shown of a delta. The last token's chunk has all text left, so a resume repeats none."""
        piece = self._transcript.push(delta.token_ids)
        self._shown += piece.token_count
        text = piece.text
        if delta.finish or self._finish_of_output():
            text += self._transcript.finish()
        count = piece.token_count
        chunk = pb.Chunk(text=text, token_ids=delta.token_ids[:count], logprobs=delta.logprobs[:count])
        return chunk, types.FINISH_REASON_STOP_STRING if self._transcript.stopped else delta.finish

    async def _next(self) -> Delta:
        """What arrives next. Admits again where the scheduler is lost; raises what ends the request."""
        while True:
            await self._wait()
            try:
                delta = self._running.take()
            except SchedulerLost as error:
                if finish := self._finish_of_output():
                    return Delta(finish=finish)
                await self._admit_again(error)
                continue
            if delta.token_ids or delta.finish:
                return delta

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Raises Expired at the deadline, whatever is waited for."""
        try:
            async with asyncio.timeout_at(self._deadline):
                yield
        except TimeoutError:
            raise Expired("DEADLINE_EXCEEDED", TIME_OVER) from None

    async def _wait(self) -> None:
        """Until something arrives; looks after a request nobody speaks of."""
        while True:
            unheard_at = self._admitted_at + self._door.settings.unheard_s
            with suppress(TimeoutError):
                async with asyncio.timeout_at(unheard_at if self._running.scheduler is None else None):
                    await self._running.changed.wait()
                return
            if self._running.scheduler is None:
                await self._look_after()

    async def _look_after(self) -> None:
        self._admitted_at = asyncio.get_running_loop().time()
        with suppress(Unavailable):
            if not await self._door.queue.is_waiting(self._entry_id):
                self._running.on_lost("a scheduler took the request and was not heard of again")

    async def _admit(self) -> None:
        job, output = self._job, self._running.output
        counted = await self._door.records.next_attempt(job.request_id)
        attempt = max(counted, self._running.attempt + 1)  # Redis may have lost its count
        self._attempts += 1
        self._running.start(attempt)
        admitted = AdmittedRequest(
            request_id=job.request_id,
            attempt=attempt,
            gateway_id=self._door.gateway_id,
            token_ids=[*job.prompt, *output],
            prompt_length=len(job.prompt),
            max_new_tokens=job.max_new_tokens,
            sampling=sampling_to_proto(job.sampling),
            stop_token_ids=job.stop_token_ids,
            strategy=job.strategy,
            priority=job.priority,
            traceparent=self._traceparent,
        )
        left_s = self._deadline - asyncio.get_running_loop().time()
        try:
            self._entry_id = await self._door.queue.admit(admitted, int(left_s * 1000), self._record)
        except Full:
            self._done = True  # nobody has this attempt, and the next one may have its number
            raise
        self._admitted_at = asyncio.get_running_loop().time()

    async def _admit_again(self, error: MeshError) -> None:
        if self._attempts >= self._door.settings.attempts_max:
            raise Unavailable(
                "ATTEMPTS_EXHAUSTED",
                f"{self._attempts} attempts failed, the last because {error.message}; resume with the tokens received",
                {"last_reason": error.reason},
                self._door.settings.retry_delay_ms,
            )
        log.warning(
            "admitted again",
            request=self._job.request_id,
            attempt=self._running.attempt,
            token_count=len(self._running.output),
            reason=error.message,
        )
        self._door.relay.cancel(self._running)
        await self._admit()

    async def _abandon(self) -> None:
        """The client left, or the request failed: nobody shall work on it."""
        self._door.relay.cancel(self._running)
        if self._entry_id and self._running.scheduler is None:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(CLEAN_UP_S):
                    await self._door.queue.withdraw(self._entry_id)

    def _end(self, told: bool) -> None:
        self._done = True
        self._door.records.finished(self._job.request_id)
        if not told:  # a stop string ended it; the scheduler does not know
            self._door.relay.cancel(self._running)

    def _finish_of_output(self) -> types.FinishReason:
        """Why the tokens received so far are all there will be; unspecified where more will come."""
        output = self._running.output
        if self._transcript.stopped:
            return types.FINISH_REASON_STOP_STRING
        if output and output[-1] in self._job.stop_token_ids:
            return types.FINISH_REASON_STOP_TOKEN
        if len(output) >= self._job.max_new_tokens:
            return types.FINISH_REASON_LENGTH
        return types.FINISH_REASON_UNSPECIFIED

    def _started(self) -> pb.GenerateResponse:
        job = self._job
        started = pb.Started(request_id=job.request_id, seed=job.sampling.seed, prompt_token_count=len(job.prompt))
        return pb.GenerateResponse(started=started)

    def _finished(self, finish: types.FinishReason) -> pb.GenerateResponse:
        usage = pb.Usage(prompt_token_count=len(self._job.prompt), output_token_count=self._shown)
        finished = pb.Finished(reason=finish, usage=usage, speculation=self._running.figures)
        return pb.GenerateResponse(finished=finished)
