"""Profiles: what is wrong with one is named with its file and key, and equal cost spends one sum on every strategy."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosine.core.errors import BadRequest, NotFound
from cosine.core.strategy import PRESETS, parse
from cosine.sim.profile import DrafterDevice, Link, Profile, VerifierDevice, equal_cost, pools_used, read_profile

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "bench" / "profiles").glob("*.yaml"))
SOURCE = "made up for a test"


def figure(value: Any) -> dict[str, Any]:
    return {"value": value, "source": SOURCE}


def device(price_usd: float, count: int, base_ms: float) -> dict[str, Any]:
    times = {"base_ms": figure(base_ms), "row_ms": figure(0.1), "kilotoken_ms": figure(0.06)}
    return {"device": "a card", "count": figure(count), "price_usd": figure(price_usd), **times}


def content() -> dict[str, Any]:
    return {
        "name": "park",
        "source": SOURCE,
        "time_scale": figure(4),
        "verifier": device(15000, 4, 25),
        "drafters": {name: device(2500, 2, 2.5) for name in ("a", "b", "c", "d", "e")},
        "drafter_link": {"latency_ms": figure(0.5), "mbps": figure(100)},
        "verifier_link": {"latency_ms": figure(0.5), "mbps": figure(100)},
    }


def written(folder: Path, data: Any) -> Path:
    path = folder / "park.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def changed(path: str, value: Any) -> dict[str, Any]:
    """The content with one entry replaced, or removed (None)."""
    data = place = content()
    *folders, last = path.split(".")
    for name in folders:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.fixture
def park(tmp_path: Path) -> Profile:
    return read_profile(written(tmp_path, content()))


def test_figures_arrive_as_plain_numbers(park: Profile) -> None:
    verifier = VerifierDevice("a card", 4.0, 15000.0, 25.0, 0.1, 0.06)
    drafter = DrafterDevice("a card", 2.0, 2500.0, 2.5, 0.1, 0.06)
    link = Link(0.5, 100.0)
    assert park == Profile("park", SOURCE, 4.0, verifier, dict.fromkeys("abcde", drafter), link, link)
    assert park.money_usd == 85000


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("verifier.base_ms", None),
        ("verifier.base_ms", 25),
        ("verifier.base_ms", {"value": 25}),
        ("verifier.base_ms.source", ""),
        ("verifier.base_ms.source", "   guess "),
        ("verifier.base_ms.value", -1),
        ("verifier.base_ms.value", 0),
        ("verifier.row_ms.value", float("nan")),
        ("verifier.row_ms.value", float("inf")),
        ("verifier.row_ms.value", "0.1"),
        ("verifier.row_ms.value", True),
        ("verifier.count.value", 0),
        ("verifier.count.value", 1.5),
        ("verifier.price_usd.value", 0),
        ("verifier.colour", figure(1)),
        ("drafters.c.kilotoken_ms", None),
        ("drafters.c.kilotoken_ms.value", -0.01),
        ("drafters", {}),
        ("drafter_link.mbps.value", 0),
        ("verifier_link.latency_ms.value", -0.1),
        ("time_scale", None),
        ("time_scale.value", 0),
        ("source", ""),
        ("wattage", figure(400)),
    ],
)
def test_a_figure_that_is_missing_wrong_or_unsourced_is_named_with_its_file(
    tmp_path: Path, path: str, value: Any
) -> None:
    file = written(tmp_path, changed(path, value))
    with pytest.raises(BadRequest) as refused:
        read_profile(file)
    assert str(file) in refused.value.message
    assert path in refused.value.message


def places(data: dict[str, Any], above: str = "") -> Iterator[str]:
    """Every key of the content, with the keys above it."""
    for name, entry in data.items():
        yield f"{above}{name}"
        if isinstance(entry, dict):
            yield from places(entry, f"{above}{name}.")


EVERYWHERE = list(places(content()))
NEEDED = [path for path in EVERYWHERE if not re.fullmatch("drafters[.].", path)]  # how many drafters is free
VALUES = [path for path in EVERYWHERE if path.endswith(".value")]


@pytest.mark.parametrize("path", EVERYWHERE)
def test_whatever_key_is_missing_or_holds_nonsense_is_named(tmp_path: Path, path: str) -> None:
    wrong: list[Any] = [[], {}, True] + [None] * (path in NEEDED) + [-1, 1e300, math.nan] * (path in VALUES)
    for value in wrong:
        file = written(tmp_path, changed(path, value))
        with pytest.raises(BadRequest) as refused:
            read_profile(file)
        assert f"{file}: {path}" in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        *("", "- 1\n", "name: [", "name: a\nname: b\n", "name: *nobody\n"),
        *("? [a]\n: b\n", "name: !!int x\n", "name: 2020-99-99\n", "name: !!bool x\n", "[" * 3000),
    ],
    ids=range(10),
)
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(BadRequest, match="park"):
        read_profile(file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        read_profile(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_profile_of_the_project_can_be_read(path: Path) -> None:
    profile = read_profile(path)
    assert profile.name == path.stem
    assert set(profile.drafters) == {"general", "code", "math", "prose", "sql"}


def test_the_paper_park_has_the_papers_devices() -> None:
    for path in SHIPPED:
        profile = read_profile(path)
        if profile.name.startswith("paper-"):
            counts: dict[str, float] = {}
            for drafter in profile.drafters.values():
                counts[drafter.device] = counts.get(drafter.device, 0) + drafter.count
            assert counts == {"NVIDIA GeForce RTX 3090": 8, "NVIDIA GeForce RTX 2080 Ti": 8}
            assert profile.verifier.count == 4


# Data sheets: bytes of weights, FLOP of a row, bytes of a cached token, bytes and FLOP per second, shares reached, and
# what does not follow from these, in milliseconds (None: the base is not derived).
SHEETS: dict[str, dict[str, tuple[float, float, float, float, float, float, float | None]]] = {
    "paper-32b": {
        "verifier": (65.5e9, 2 * 32.8e9, 64 * 8 * 128 * 2 * 2, 4 * 2.04e12, 4 * 312e12, 0.6, 0.5),
        "general": (0.99e9, 2 * 494e6, 24 * 2 * 64 * 2 * 2, 936e9, 71e12, 0.5, 1.0),
        "math": (0.99e9, 2 * 494e6, 24 * 2 * 64 * 2 * 2, 616e9, 54e12, 0.5, 1.0),
    },
    "paper-70b": {
        "verifier": (140e9, 2 * 70e9, 80 * 8 * 128 * 2 * 2, 4 * 2.04e12, 4 * 312e12, 0.6, 0.5),
        "general": (136e6, 2 * 68e6, 2 * 768 * 2 * 2, 936e9, 71e12, 0.5, None),
        "math": (136e6, 2 * 68e6, 2 * 768 * 2 * 2, 616e9, 54e12, 0.5, None),
    },
}
BANDWIDTH_REACHED = 0.7


@pytest.mark.parametrize("name", SHEETS)
def test_derived_times_follow_from_the_data_sheets_their_sources_name(name: str) -> None:
    profile = read_profile(next(path for path in SHIPPED if path.stem == name))
    for part, (weights, row, token, bandwidth, speed, reached, rest_ms) in SHEETS[name].items():
        device = profile.verifier if part == "verifier" else profile.drafters[part]
        seconds_per_byte = 1 / (bandwidth * BANDWIDTH_REACHED)
        if rest_ms is not None:
            assert device.base_ms == pytest.approx(1000 * weights * seconds_per_byte + rest_ms, rel=0.05)
        assert device.row_ms == pytest.approx(1000 * row / (speed * reached) / 2, rel=0.1), "half of the bound"
        assert device.kilotoken_ms == pytest.approx(1e6 * token * seconds_per_byte, rel=0.06)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_figure_says_whether_it_is_stated_measured_derived_or_assumed(path: Path) -> None:
    known = r"(derived|assumed|measured|stated|not measured|docs/|CoSine|NVIDIA|the machine's own|one drafter process)"
    for line in path.read_text(encoding="utf-8").splitlines():
        for source in re.findall(r'source: "([^"]*)"', line):
            assert re.match(known, source), line
        assert line.count("value:") <= line.count("source:"), line


def test_a_pool_shares_rows_but_not_the_base(park: Profile) -> None:
    drafter = park.drafters["a"]
    assert drafter.forward_ms(10, 2000) == pytest.approx(2.5 + (10 * 0.1 + 2 * 0.06) / 2)
    assert park.verifier.forward_ms(10, 2000) == pytest.approx(25 + 10 * 0.1 + 2 * 0.06)


def test_a_link_takes_its_latency_and_the_bytes_over_its_bandwidth() -> None:
    assert Link(latency_ms=0.5, mbps=100).transfer_ms(12500) == pytest.approx(0.5 + 1.0)


@pytest.mark.parametrize(
    ("strategy", "pools", "verifiers", "base_ms"),
    [
        ("cosine", 5, 1, 25.0),
        ("specinfer", 5, 1, 25.0),
        ("spin", 5, 1, 25.0),
        ("vanilla", 1, 1, 25 / (1 + 20000 / 60000)),
        ("plain", 0, 1, 25 / (1 + 25000 / 60000)),
        ("dsi", 1, 7, 7 * 25 / (1 + 20000 / 60000)),
        ("specinfer:drafter_count=2", 2, 1, 25 / (1 + 15000 / 60000)),
        ("cosine:drafter_count=1", 5, 1, 25.0),
    ],
)
def test_what_a_strategy_saves_on_drafters_makes_its_target_faster(
    park: Profile, strategy: str, pools: int, verifiers: int, base_ms: float
) -> None:
    own = equal_cost(park, parse(strategy))
    assert list(own.drafters) == list(park.drafters)[:pools]
    assert own.verifier_count == verifiers
    factor = base_ms / 25
    assert own.verifier.base_ms == pytest.approx(25 * factor)
    assert own.verifier.row_ms == pytest.approx(0.1 * factor)
    assert own.verifier.kilotoken_ms == pytest.approx(0.06 * factor)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_costs_the_same(park: Profile, name: str) -> None:
    assert equal_cost(park, PRESETS[name]).money_usd == pytest.approx(park.money_usd)


def test_a_drafter_that_is_named_is_the_one_that_is_kept(park: Profile) -> None:
    assert list(equal_cost(park, parse("vanilla:drafter=d")).drafters) == ["d"]
    assert list(equal_cost(park, parse("vanilla:drafter=gone")).drafters) == ["a"]


def test_pools_are_never_more_than_there_are() -> None:
    assert [pools_used(row, 0) for row in PRESETS.values()] == [0] * len(PRESETS)
    assert pools_used(parse("specinfer:drafter_count=3"), 2) == 2
