"""The same guarantees with real models: in float32, token for token what transformers itself generates."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from generations import PATIENCE_S, generating, matches, speculates
from plain import Plain, Row, decode
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from cosine.cli.meshfile import TESTBED_MODELS, MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient
from cosine.client.persistence import RetryPolicy
from cosine.core.strategy import PRESETS, Choice
from cosine.text.tokenizer import eos_token_ids, load_tokenizer

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not (TESTBED_MODELS / "target").is_dir(), reason="the test bed's models are not here"),
]

TARGET = TESTBED_MODELS / "target"
DRAFTERS = ("code", "general")
PROMPTS = (
    "def fibonacci(n):\n    ",
    "Once upon a time there was a",
    "Question: Tom has 3 apples and buys 5 more. How many",
    "SELECT name FROM",
)
ALWAYS_DRAFTS = [  # streamed strategies verify on without drafts where the target is as fast as the drafters
    name
    for name, preset in PRESETS.items()
    if preset.choice is not Choice.NONE and not preset.adaptive and preset.runs == 1
]


class Reference:
    """The target in this process, run by transformers alone."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Tokenizer = load_tokenizer(str(folder))
        self._eos = eos_token_ids(str(folder))
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generate(self, prompt: str, max_new_tokens: int) -> tuple[int, ...]:
        """Greedy decoding by the library's own loop."""
        ids = torch.tensor([self.tokenizer.encode(prompt).ids])
        with torch.inference_mode():
            whole: Any = self._model.generate(  # type: ignore[operator]  # the stubs make the mixin's generate a tensor too
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens
            )
        return tuple(whole[0, ids.shape[1] :].tolist())

    def plain(self, prompt: str, **options: Any) -> Plain:
        """Plain decoding from whole forward passes without any cache."""
        ids = self.tokenizer.encode(prompt).ids
        return decode(self._next_row, ids, options, self._eos, self._text)

    def _next_row(self, tokens: Sequence[int]) -> Row:
        with torch.inference_mode():
            row: Row = self._model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].numpy()
        return row

    def _text(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    """On one thread, beside the mesh's processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Reference(TARGET)
    torch.set_num_threads(threads)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[Mesh]:
    """The test bed's target and two of its drafters, in float32."""
    drafters = {name: str(TESTBED_MODELS / f"drafter-{name}") for name in DRAFTERS}
    spec = MeshSpec(
        target=str(TARGET), drafters=drafters, dtype="float32", gateway="127.0.0.1:0", tokens=512, verifiers=2
    )
    async with Mesh(spec) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(mesh: Mesh) -> AsyncIterator[AsyncClient]:
    """A client that bears no error."""
    async with AsyncClient(mesh.gateway_address, retry=RetryPolicy(tries_max=0)) as opened:
        await speculates(opened, *DRAFTERS)
        yield opened


async def assert_plain(client: AsyncClient, reference: Reference, *requests: tuple[str, dict[str, Any]]) -> None:
    """All at once; every text is plain decoding's."""
    completions = await asyncio.gather(
        *(client.complete(prompt, timeout=PATIENCE_S, **options) for prompt, options in requests)
    )
    for completion, (prompt, options) in zip(completions, requests, strict=True):
        assert matches(completion, reference.plain(prompt, **options))


async def test_greedy_text_is_what_transformers_generates(client: AsyncClient, reference: Reference) -> None:
    for prompt in PROMPTS[:2]:
        expected = reference.generate(prompt, 40)
        for strategy in (*PRESETS, "cosine:lookahead=8"):
            completion = await client.complete(prompt, max_new_tokens=40, strategy=strategy)
            assert completion.token_ids == expected
            assert completion.text == reference.tokenizer.decode(list(expected), skip_special_tokens=True)
            assert completion.speculation.accepted_token_count > 0 or strategy not in ALWAYS_DRAFTS


async def test_sampled_text_is_plain_decodings(client: AsyncClient, reference: Reference) -> None:
    options = {"temperature": 1.0, "max_new_tokens": 30, "ignore_eos": True}
    await assert_plain(client, reference, (PROMPTS[0], {**options, "seed": 1}))
    await assert_plain(client, reference, (PROMPTS[2], {**options, "seed": 2, "top_p": 0.9, "presence_penalty": 0.5}))


async def test_a_batch_of_different_requests_is_plain_decoding_for_each(
    client: AsyncClient, reference: Reference
) -> None:
    names = itertools.islice(itertools.cycle(PRESETS), len(PROMPTS))
    ways = [
        {"strategy": name, "temperature": temperature} for name, temperature in zip(names, (1, 0, 0.7, 1), strict=True)
    ]
    requests = [
        (prompt, {"max_new_tokens": 24 + 4 * index, "ignore_eos": True, "seed": index, **way})
        for index, (prompt, way) in enumerate(zip(PROMPTS, ways, strict=True))
    ]
    await assert_plain(client, reference, *requests)


async def test_killed_verifiers_load_again_and_the_text_goes_on(
    mesh: Mesh, client: AsyncClient, reference: Reference
) -> None:
    options = {"max_new_tokens": 160, "ignore_eos": True, "temperature": 1.0, "strategy": "plain"}
    requests = [(prompt, {**options, "seed": index}) for index, prompt in enumerate(PROMPTS[:2])]
    async with generating(client, *requests) as generations:
        for generation in generations:
            await generation.reaches(8)
        pids = {name: mesh.kill(name) for name in ("verifier", "verifier-2")}
        assert all(generation.running for generation in generations)
        assert all(generation.token_count < 160 for generation in generations)
        for generation, (prompt, asked) in zip(generations, requests, strict=True):
            assert matches(await generation.completion(), reference.plain(prompt, **asked))
    assert all(mesh.peer(name).pid != pid for name, pid in pids.items())


@pytest.mark.skipif(sys.platform != "linux", reason="forks are taken on Linux only")
async def test_processes_with_an_engine_have_imported_it_together(mesh: Mesh) -> None:
    parents = {peer.peer_id: parent_of(peer.pid) for peer in mesh.peers}
    alone = {name: parents.pop(name) for name in ("store", "gateway", "scheduler", "fusion")}
    assert len(set(parents.values())) == 1
    assert set(alone.values()) == {os.getpid()}
    assert os.getpid() not in parents.values()


def parent_of(pid: int) -> int:
    """The process that made this one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
