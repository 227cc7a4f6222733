"""The text of an output continues its prompt's, whichever way the tokens are cut: the first word keeps its space."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import create_autospec

import pytest
from tokenizers import Tokenizer, decoders, models

from cosine.core.intake import Job
from cosine.core.sampling import GREEDY
from cosine.store.records import RequestRecords
from cosine.text.detokenizer import token_kinds
from cosine.v1 import types_pb2 as types
from cosine.v1.scheduler_pb2 import AdmittedRequest, RequestProgress
from services.gateway.generation import Door, Generation
from services.gateway.running import Running
from services.gateway.settings import GatewaySettings

ONCE, UPON, A, TIME = range(4)


def metaspace() -> Tokenizer:
    """Whole words with the space before them, as Llama's vocabulary has them."""
    words = {"▁Once": ONCE, "▁upon": UPON, "▁a": A, "▁time": TIME}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="▁a"))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


class Mesh:
    """Relay and queue in one; a request that is admitted is answered at once."""

    def __init__(self, answer: Sequence[int]) -> None:
        self._answer = answer

    @contextmanager
    def seat(self, running: Running, takes_over: bool) -> Iterator[None]:
        self._running = running
        yield

    async def connected(self, wait_s: float) -> None:
        pass

    async def admit(self, admitted: AdmittedRequest, left_ms: int, record: bytes) -> str:
        offset = len(admitted.token_ids) - admitted.prompt_length
        end = types.FINISH_REASON_LENGTH
        progress = RequestProgress(offset=offset, token_ids=self._answer[offset:], finish_reason=end)
        self._running.on_progress(cast(Any, None), progress)
        return "1-0"

    def finished(self, request_id: str) -> None:
        pass


async def text_of(prompt: Sequence[int], output: Sequence[int], emitted: Sequence[int] = ()) -> str:
    tokenizer, mesh = metaspace(), cast(Any, Mesh(output))
    settings = GatewaySettings(model="toy", redis_url="redis://unused")
    records = create_autospec(RequestRecords, instance=True)
    records.next_attempt.return_value = 1
    door = Door(settings, "gateway", mesh, mesh, records, tokenizer, token_kinds(tokenizer))
    job = Job("r", tuple(prompt), GREEDY, len(output), (), (), "plain", 0, tuple(emitted))
    deadline = asyncio.get_running_loop().time() + settings.request_timeout_s
    return "".join([response.chunk.text async for response in Generation(door, job, b"", deadline, "").run(False)])


@pytest.mark.parametrize("held", [0, 1, 2])
async def test_the_first_word_after_a_prompt_keeps_its_space(held: int) -> None:
    output = [UPON, A, TIME]
    words = [" upon", " a", " time"]
    assert await text_of([ONCE], output, emitted=output[:held]) == "".join(words[held:])


async def test_the_same_word_in_another_place_has_the_same_text() -> None:
    assert await text_of([ONCE, UPON], [A, TIME]) == (await text_of([ONCE], [UPON, A, TIME])).removeprefix(" upon")
