"""The report: medians, ratios, and everything that must not be overlooked said in its row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_up_cells import FIGURES, cell
from rich.console import Console

from bench.paper.plots import draw
from bench.paper.report import COLUMNS, Report, median


def texts(report: Report, strategy: str, load: str = "closed-4") -> dict[str, str]:
    row = report.row(load, strategy)
    assert row is not None
    return dict(zip(COLUMNS, report.texts(row), strict=True))


def test_a_row_shows_the_figures_and_the_ratio_to_plain() -> None:
    report = Report([cell(), cell("cosine", tokens_per_s=310.0, token_ms=12.345, drafted_wasted=0.25)])
    row = texts(report, "cosine")
    assert (row["ms/token"], row["sim"]) == ("12.35", "-")
    assert texts(Report([cell(virtual_ms=19.504)]), "plain")["sim"] == "19.50"
    assert row["x plain"] == "1.55"
    assert row["drafted"] == "25"
    assert row["verified"] == "-"
    assert row[""] == ""


def test_without_plain_there_is_no_ratio() -> None:
    assert texts(Report([cell("cosine")]), "cosine")["x plain"] == ""


def test_several_runs_show_their_median() -> None:
    report = Report([cell(run=run, token_ms=token_ms) for run, token_ms in enumerate((30.0, 10.0, 20.0))])
    assert texts(report, "plain")["ms/token"] == "20.00"


def test_a_median_over_shares_that_some_lack_is_over_the_others() -> None:
    shares = [None, 0.2, 0.4]
    cells = [cell(drafted_wasted=share).figures or FIGURES for share in shares]
    assert median(cells).drafted_wasted == pytest.approx(0.3)
    assert median(cells[:1]).drafted_wasted is None


def test_a_refused_strategy_is_a_row_and_the_notes_say_why() -> None:
    report = Report([cell(), cell("dsi", refused="needs 2 verifiers")])
    assert texts(report, "dsi")[""] == "refused"
    assert "dsi, closed-4: refused, needs 2 verifiers" in report.notes("code")
    assert texts(report, "plain")["ms/token"] == "20.00"


def test_a_run_refused_among_others_makes_no_median() -> None:
    report = Report([cell("dsi"), cell("dsi", run=1, refused="took too long")])
    assert texts(report, "dsi")[""] == "refused"
    assert "dsi, closed-4: refused, took too long" in report.notes("code")


def test_a_row_that_could_not_keep_the_pace_is_invalid_and_not_drawn() -> None:
    report = Report([cell(), cell("cosine"), cell("cosine", run=1, overrun=0.05)])
    assert "INVALID" in texts(report, "cosine")[""]
    assert list(report.series(lambda found: found.token_ms)) == ["plain"]


def test_another_text_than_plains_is_said() -> None:
    report = Report([cell(), cell("cosine", texts=("a", "x")), cell("spin", texts=("a",))])
    assert "OTHER TEXT" in texts(report, "cosine")[""]
    assert texts(report, "spin")[""] == ""


def test_tables_are_by_load_and_leave_out_what_was_not_asked_for() -> None:
    report = Report([cell(), cell("cosine", load="open-low"), cell("cosine")])
    tables = list(report.tables())
    assert [table.title for table in tables] == ["closed-4", "open-low"]
    assert [table.row_count for table in tables] == [2, 1]
    console = Console(width=200, record=True, quiet=True)
    for table in tables:
        console.print(table)


def test_cells_of_different_code_are_noted() -> None:
    old = cell("cosine")
    mixed = Report([cell(), replace(old, sources="other code"), cell("spin")])
    said = "other code than today's measured 1 of 3 cells (1 of cosine); --again measures all anew"
    assert said in mixed.notes("code")
    assert not any("other code" in note for note in Report([cell(), old]).notes("code"))


def test_cells_that_are_all_of_one_older_version_are_noted_too() -> None:
    cells = [cell(run=run) for run in range(2)] + [cell("spin")]
    said = "other code than today's measured 3 of 3 cells (2 of plain, 1 of spin); --again measures all anew"
    assert said in Report(cells).notes("today")


def test_json_holds_every_cell_and_every_row() -> None:
    content = Report([cell(), cell("dsi", refused="no")]).as_json()
    assert [row["strategy"] for row in content["rows"]] == ["plain", "dsi"]
    assert content["rows"][1]["figures"] is None
    assert content["cells"][0]["figures"]["texts"] == ("a", "b")


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    closed = [cell(name, load=f"closed-{size}") for name in ("plain", "cosine") for size in (1, 2, 4)]
    opened = [cell("plain", load="open-low"), cell("plain", load="open-high"), cell("cosine", load="open-high")]
    assert {path.name for path in draw(Report(closed), "closed", tmp_path)} == {
        *("latency.png", "latency.svg", "throughput.png", "throughput.svg")
    }
    assert {path.stem for path in draw(Report(opened), "open", tmp_path)} == {"open-loop"}
    assert draw(Report([cell(refused="no")]), "nothing", tmp_path) == []
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir())


def test_the_notes_say_how_far_cosine_is_ahead_of_the_best_valid_other() -> None:
    mine = cell("cosine", token_ms=15.0, tokens_per_s=250.0)
    notes = list(Report([cell(), cell("spin", token_ms=5.0, overrun=0.5), mine]).notes("code"))
    words = "cosine takes 25 % less time per token than plain and serves 25 % more tokens per second than plain"
    assert f"closed-4: {words}" in notes
    assert not any("per token than" in note for note in Report([cell()]).notes("code"))
