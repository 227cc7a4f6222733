"""The comparison's requests in virtual time: those of the measured loop, in its order, at the profile's times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.paper.loads import Load, parse_load
from bench.paper.measuring import warm_up_tokens
from bench.paper.virtual import VirtualBench, recorded_library
from cosine.cli.demo.models import Prompt
from cosine.core.strategy import PRESETS
from cosine.sim.library import Library
from cosine.sim.mesh import Mesh, Request
from cosine.sim.profile import profile_path, read_profile

PAPER = read_profile(profile_path("paper-70b"))
TOKENS = 20


def library() -> Library:
    found = recorded_library()
    assert found is not None
    return found


def prompts() -> list[Prompt]:
    """Two kinds of four recorded texts, in turns."""
    scripts = library().scripts
    kinds = sorted({script.domain for script in scripts})[:2]
    by_kind = [[script for script in scripts if script.domain == kind][:4] for kind in kinds]
    return [Prompt(script.domain, "", script.prompt) for turn in zip(*by_kind, strict=True) for script in turn]


def bench(token_count: int = TOKENS) -> VirtualBench:
    return VirtualBench(replace(PAPER, verifier_count=2), library(), prompts(), token_count)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of every request that any simulated mesh is asked, the number of its prompt and of its tokens."""
    found: list[tuple[int, int]] = []
    places = {prompt.token_ids: number for number, prompt in enumerate(prompts())}
    submit = Mesh.submit

    def note(mesh: Mesh, request: Request) -> None:
        found.append((places[request.script.prompt], request.new_count))
        submit(mesh, request)

    monkeypatch.setattr(Mesh, "submit", note)
    return found


def test_one_client_of_plain_decoding_waits_for_the_profiles_passes() -> None:
    expected: list[float] = []
    for prompt in prompts()[:4]:
        length, link_ms = len(prompt.token_ids), 2 * PAPER.verifier_link.latency_ms
        passes = [PAPER.verifier.forward_ms(length, 0)]
        passes += [PAPER.verifier.forward_ms(1, length + count) for count in range(TOKENS - 1)]
        expected.append((sum(passes) + TOKENS * link_ms) / TOKENS)
    found = bench().token_ms("plain", parse_load("closed-1"), 4)
    assert found == pytest.approx(sum(expected) / 4, rel=1e-3)


def test_drafters_that_run_ahead_are_faster_where_they_meet_for_every_token() -> None:
    tokenwise = "cosine:fusion_interval=1,lookahead=0,length=fixed,depth=4,beam=1,reading=replace"
    times_ms = [
        VirtualBench(PAPER, library(), prompts(), TOKENS, run_ahead).token_ms(tokenwise, parse_load("closed-1"), 4)
        for run_ahead in (True, False)
    ]
    assert times_ms == sorted(times_ms, key=lambda entry: entry or 0.0)
    assert times_ms[0] != times_ms[1]


def test_a_warm_up_asks_a_short_text_of_every_kind_from_the_end_once_per_strategy(asked: list[tuple[int, int]]) -> None:
    virtual, short = bench(), warm_up_tokens(TOKENS)
    for strategy in ("plain", "plain", "vanilla"):
        virtual.token_ms(strategy, parse_load("closed-1"), 1)
    assert asked[:2] == [(6, short), (7, short)]
    assert [length for _, length in asked].count(short) == 2 * 2


def measured_part(asked: Sequence[tuple[int, int]], clients: int) -> list[int]:
    """The prompts asked for after the warm-up and the clients' first requests."""
    return [number for number, _ in asked[2 + clients :]]


def test_clients_begin_with_requests_of_different_lengths_that_are_not_measured(asked: list[tuple[int, int]]) -> None:
    bench().token_ms("plain", parse_load("closed-2"), 4)
    assert asked[2:4] == [(7, TOKENS // 4), (6, 3 * TOKENS // 4)]
    assert measured_part(asked, 2)[:4] == [0, 1, 2, 3]


def test_a_loop_stays_full_until_the_last_measured_request_and_leaves_nothing(asked: list[tuple[int, int]]) -> None:
    virtual = bench()
    virtual.token_ms("vanilla", parse_load("closed-3"), 4)
    assert len(measured_part(asked, 3)) >= 4 + 3
    assert not virtual._mesh.requests
    assert all(cell.scheduler.live_count == 0 for cell in virtual._mesh.cells)


@pytest.mark.parametrize("strategy", PRESETS)
def test_every_preset_is_replayed_one_after_the_other_on_one_mesh(strategy: str) -> None:
    virtual, load = bench(), parse_load("closed-2")
    plain_ms, found_ms = (virtual.token_ms(name, load, 4) for name in ("plain", strategy))
    assert plain_ms is not None
    assert found_ms is not None
    assert found_ms == pytest.approx(plain_ms) if strategy == "plain" else found_ms < 1.1 * plain_ms


@pytest.mark.parametrize("load", [parse_load("open-low"), parse_load("closed-2-t1")])
def test_what_is_not_recorded_is_not_replayed(load: Load) -> None:
    assert bench().token_ms("plain", load, 4) is None
    assert bench(129).token_ms("plain", parse_load("closed-2"), 4) is None
