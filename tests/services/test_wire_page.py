"""docs/wire.md is true: its conversation is what fusion and a drafter say, its vectors are what the code gives."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.message import Message
from numpy.typing import NDArray
from tokenizers import Tokenizer, models

from cosine.core.config import SchedulerConfig
from cosine.core.fusion import MISSES_MAX, REST_S
from cosine.core.growth import AHEAD_ENDS_MAX
from cosine.core.noise import gumbel
from cosine.core.picking import RowRule, keep_likely, scores, top_children
from cosine.core.sampling import Sampling
from cosine.core.tree import TokenTree
from cosine.engine.base import Engine, EngineLimits
from cosine.engine.drafting import NODES_MAX, STEPS_MAX
from cosine.engine.loading import EngineOptions, open_engine
from cosine.engine.verifying import VerifyItem, verify
from cosine.rpc import hello
from cosine.rpc.convert import sampling_from_proto, tree_from_proto
from cosine.rpc.hello import Bounds, Identity
from cosine.rpc.server import server_options
from cosine.rpc.streams import BACKOFF_FIRST_S, BACKOFF_LAST_S, GREETING_TIMEOUT_S, channel_options
from cosine.store.connection import Store
from cosine.store.registry import RECORD_FIELDS, Registry, RegistryTimes, decode
from cosine.text.tokenizer import fingerprint, load_tokenizer
from cosine.v1 import drafter_pb2, fusion_pb2, types_pb2
from services.drafter.__main__ import DrafterSettings
from services.drafter.service import DrafterServicer
from services.fusion.service import FusionServicer

PAGE = (Path(__file__).parents[2] / "docs/wire.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```json (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MESSAGES: dict[str, Any] = {
    "DraftRequest": drafter_pb2.DraftRequest,
    "DraftResponse": drafter_pb2.DraftResponse,
    "Sampling": types_pb2.Sampling,
}
OPTIONS = dict(server_options(0)) | dict(channel_options())
MODEL = "toy:own=2,skill=0.9"
SETTINGS = DrafterSettings.model_validate({"model": MODEL})
SEED = 7
TEXT = [79, 110]
DEADLINE_S = 10.0


def blocks(*kinds: str) -> list[str]:
    """The page's JSON blocks of these kinds, in order."""
    return [text for kind, text in BLOCK.findall(PAGE) if kind in kinds]


def said_by_the_page() -> list[Message]:
    found = (pair for pair in BLOCK.findall(PAGE) if pair[0] in ("DraftRequest", "DraftResponse"))
    return [Parse(text, MESSAGES[kind]()) for kind, text in found]


def rows_below(head: str) -> list[list[str]]:
    """Cells of the table that begins with this line."""
    lines = PAGE[PAGE.index(head) :].splitlines()[2:]
    table = lines[: next(index for index, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def plain(message: Message) -> dict[str, Any]:
    """What two messages have to agree in: all but the time it took and who proposed, to three digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            parts = {name: rounded(part) for name, part in value.items() if name not in ("forwardUs", "proposers")}
            return {name: part for name, part in parts.items() if part != {}}
        if isinstance(value, list):
            return [rounded(part) for part in value]
        return round(value, 3) if isinstance(value, float) else value

    told: dict[str, Any] = rounded(MessageToDict(message))
    return told


class Wire:
    """Fusion's link to the drafter, and the drafter's way back; `said` is what went over it."""

    def __init__(self, drafter: DrafterServicer, peer: Identity) -> None:
        self.peer = peer
        self.said: list[Message] = []
        self._answers: asyncio.Queue[drafter_pb2.DraftResponse] = asyncio.Queue()
        self._stream = drafter.desk.open_stream(_WayBack(self), peer.bounds)  # type: ignore[arg-type]

    def send(self, message: drafter_pb2.DraftRequest) -> bool:
        self.said.append(message)
        self._stream.on_message(message)
        return True

    def answer(self, message: drafter_pb2.DraftResponse) -> None:
        self.said.append(message)
        self._answers.put_nowait(message)

    async def next_answer(self) -> drafter_pb2.DraftResponse:
        async with asyncio.timeout(DEADLINE_S):
            return await self._answers.get()


class _WayBack:
    def __init__(self, wire: Wire) -> None:
        self.send = wire.answer


class Request:
    """The scheduler's part: one request whose trees a toy target judges."""

    def __init__(self, fusion: FusionServicer) -> None:
        self._fusion = fusion
        self._target = open_engine("toy", EngineOptions(), EngineLimits())
        self._text, self._planned, self._judged = list(TEXT), 0, 0
        self._round = 0

    def plan(self, lookahead: int = 0) -> None:
        """Asks for the next tree."""
        self._round += 1
        item = fusion_pb2.PlanItem(
            session_id="s",
            base_length=self._planned,
            append_token_ids=self._text[self._planned :],
            drafters=["near"],
            depth=2,
            width=2,
            beam=1,
            node_budget=16,
            value_min=0.05,
            sampling=types_pb2.Sampling(seed=SEED),
        )
        self._planned = len(self._text)
        single = fusion_pb2.COOPERATION_SINGLE
        plan = fusion_pb2.DraftPlan(
            round_id=self._round, cooperation=single, deadline_ms=60_000, items=[item], lookahead=lookahead
        )
        self._fusion.plan(self, plan)  # type: ignore[arg-type]  # of a stream it needs the answer alone

    def answer(self, message: fusion_pb2.FuseResponse) -> None:
        for result in message.trees.results:
            self._judge(tree_from_proto(result.tree))

    def _judge(self, tree: TokenTree) -> None:
        fresh = tuple(self._text[self._judged :])
        (verdict,) = verify(self._target, [VerifyItem("s", self._judged, fresh, tree, Sampling(seed=SEED))])
        self._judged = verdict.cached_length
        self._text += verdict.token_ids


async def the_conversation(engine: Engine) -> list[Message]:
    """What is said: a round, one whose tree grows on, one whose cache is gone, one that nobody waits for any more."""
    drafter, fusion = DrafterServicer(engine, Identity("drafter", "near")), FusionServicer(Identity("fusion", "f"), 8)
    wire = Wire(drafter, Identity("drafter", "near", vocab_size=engine.card.vocab_size))
    request = Request(fusion)
    fusion.on_up(wire, wire.peer)  # type: ignore[arg-type]
    working = asyncio.create_task(drafter.desk.work())

    async def answered(step_count: int) -> None:
        for _ in range(step_count):
            fusion.on_message(wire, await wire.next_answer())  # type: ignore[arg-type]

    request.plan()
    await answered(1)
    request.plan(lookahead=1)
    await answered(2)
    engine.close(["s"])
    request.plan()
    await answered(2)
    request.plan()
    fusion.close(["s"])
    await answered(1)
    working.cancel()
    await asyncio.wait((working,))
    return wire.said


async def test_the_conversation_on_the_page_is_what_fusion_and_the_toy_drafter_say() -> None:
    told = [plain(message) for message in said_by_the_page()]
    said = await the_conversation(open_engine(MODEL, EngineOptions(), EngineLimits()))
    assert told[2:] == [plain(message) for message in said]


def test_every_json_block_of_the_page_is_a_message_of_the_contracts() -> None:
    kinds = [kind for kind, _ in BLOCK.findall(PAGE)]
    assert len(kinds) == PAGE.count("```json")
    assert set(kinds) == {*MESSAGES, "PeerRecord"}
    for kind, text in BLOCK.findall(PAGE):
        if kind in MESSAGES:
            Parse(text, MESSAGES[kind]())


def test_the_hellos_on_the_page_are_those_of_fusion_and_of_the_toy_drafter() -> None:
    asking, answering = (message.hello for message in said_by_the_page()[:2])  # type: ignore[attr-defined]
    fusion, drafter = hello.from_proto(asking, "fusion"), hello.from_proto(answering, "drafter")
    card = open_engine(MODEL, EngineOptions(), EngineLimits()).card
    assert fusion.bounds == Bounds(sessions_max=1024)
    assert drafter.bounds == SETTINGS.bounds(card.tokens_max)
    assert (drafter.model_id, drafter.tokenizer_fingerprint) == (card.model_id, card.tokenizer_fingerprint)
    assert drafter.vocab_size == card.vocab_size


def test_the_record_on_the_page_is_that_of_the_same_drafter() -> None:
    (text,) = blocks("PeerRecord")
    drafter = hello.from_proto(said_by_the_page()[1].hello, "drafter")  # type: ignore[attr-defined]
    record = decode(text.encode())
    assert json.loads(text).keys() == RECORD_FIELDS - {"learned"}
    assert (record.role, record.peer_id, record.incarnation) == ("drafter", drafter.peer_id, drafter.incarnation)
    assert (record.model_id, record.tokenizer_fingerprint) == (drafter.model_id, drafter.tokenizer_fingerprint)
    assert (record.vocab_size, record.tokens_max) == (drafter.vocab_size, drafter.bounds.tokens_max)
    assert [record.base_ms, record.row_ms] == pytest.approx([drafter.base_ms, drafter.row_ms])


@pytest.mark.parametrize(
    "message",
    [types_pb2.Hello, types_pb2.Limits, drafter_pb2.DraftItem, drafter_pb2.DraftCandidates, drafter_pb2.DraftResult],
)
def test_the_page_explains_every_field_that_a_drafter_meets(message: type[Message]) -> None:
    missing = [field.name for field in message.DESCRIPTOR.fields if f"`{field.name}`" not in PAGE]
    assert not missing


@pytest.mark.parametrize(
    "told",
    [
        f"at most {OPTIONS['grpc.max_receive_message_length'] >> 20} MiB each way",
        f"within {GREETING_TIMEOUT_S:g} s |",
        f"silent for {OPTIONS['grpc.keepalive_time_ms'] // 1000} s, and gives",
        f"after {OPTIONS['grpc.keepalive_timeout_ms'] // 1000} s without an answer",
        f"let callers ping every {OPTIONS['grpc.http2.min_ping_interval_without_data_ms'] // 1000} s",
        f"after {BACKOFF_FIRST_S:g} s, then twice",
        f"up to {BACKOFF_LAST_S:g} s;",
        f"1 to {hello.PEER_ID_BYTES_MAX} bytes",
        f"passes, 1 to {STEPS_MAX};",
        f"at most {NODES_MAX}.",
        f"(`--live-max`, {SchedulerConfig().live_max};",
        f"drafters take {SETTINGS.bounds(0).batch_max})",
        f"at most {AHEAD_ENDS_MAX} leaves",
        f"misses {('no', 'one', 'two', 'three')[MISSES_MAX]} deadlines in a row is not asked for {REST_S:g} s",
        f"silent for {RegistryTimes().lost_s:g} s counts",
        f"After {RegistryTimes().forget_s:g} s",
    ],
)
def test_the_figures_on_the_page_are_the_codes(told: str) -> None:
    assert told in PAGE


def test_the_fingerprints_on_the_page_come_out() -> None:
    made_up, toy = rows_below("| vocabulary | text that is hashed |")
    vocabulary = dict(json.loads(made_up[1].strip("`")))
    assert made_up[2] == f"`{fingerprint(Tokenizer(models.WordLevel(vocabulary, unk_token='a')))}`"
    assert toy[2] == f"`{fingerprint(load_tokenizer('toy'))}`"


def removed_by(scaled: NDArray[np.float64], sampling: Sampling, token: int) -> str:
    """The first of the filters that leaves a token out."""
    top_k, top_p = replace(sampling, top_p=1.0, min_p=0.0), replace(sampling, min_p=0.0)
    filters = {"top-k": top_k, "top-p": top_p, "min-p": sampling}
    return next(name for name, rules in filters.items() if np.isinf(keep_likely(scaled, rules)[token]))


def numbers(cells: Sequence[str]) -> list[float]:
    """Of a column; minus infinity for what has been removed."""
    return [float(cell) if re.fullmatch(r"-?[\d.]+", cell) else -np.inf for cell in cells]


def test_the_scores_on_the_page_come_out() -> None:
    (text,) = blocks("Sampling")
    sampling = sampling_from_proto(Parse(text, types_pb2.Sampling()))
    _, logit, divided, filtered, noise, score, confidence = zip(*rows_below("| v | logit |"), strict=True)
    logits = np.array(numbers(logit), np.float32)
    biased = logits + [dict(sampling.logit_bias).get(token, 0.0) for token in range(len(logits))]
    scaled, rule = biased / sampling.temperature, RowRule(sampling, 2)
    assert numbers(divided) == pytest.approx(scaled, abs=5e-5)
    assert numbers(filtered) == pytest.approx(keep_likely(scaled, sampling), abs=5e-5)
    removed = {token: cell for token, cell in enumerate(filtered) if not cell[0].isdigit()}
    assert removed == {token: removed_by(scaled, sampling, token) for token in removed}
    assert numbers(noise) == pytest.approx(gumbel(sampling.seed, 2, len(logits)), abs=5e-5)
    assert numbers(score) == pytest.approx(scores(logits, rule), abs=5e-5)
    children, confidences = top_children(logits, rule, 3)
    assert children == [2, 1]
    assert [numbers(confidence)[token] for token in children] == pytest.approx(confidences, abs=5e-5)


class Script:
    """Stands for a script in Redis and keeps what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[Any]]] = []

    async def __call__(self, keys: list[str], args: list[Any]) -> int:
        self.calls.append((keys, args))
        return 1


async def test_the_scripts_take_the_keys_and_arguments_that_the_page_names() -> None:
    (text,) = blocks("PeerRecord")
    record = decode(text.encode())
    registry = Registry(Store("redis://127.0.0.1:1", "mesh"))
    beat, leave = Script(), Script()
    registry._beat, registry._leave = beat, leave  # type: ignore[assignment]
    await registry.register(record)
    await registry.beat(record)
    await registry.leave(record)
    told = [re.sub(r"`|\s", "", row[2]).split(",") for row in rows_below("| script | when |")]
    calls = [*beat.calls, *leave.calls]
    for arguments, (keys, given) in zip(told, calls, strict=True):
        assert keys == [row[0].strip("`") for row in rows_below("| key | holds |")][:2]
        assert arguments == ["therecord" if "{" in str(value)[:1] else str(value) for value in given]
