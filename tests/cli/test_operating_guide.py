"""What docs/operating.md says of metrics and mesh files is so."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from cosine.cli.meshfile import read_spec
from cosine.cli.roster import roster
from cosine.rpc import metrics
from services.gateway import metrics as gateway_metrics
from services.scheduler.__main__ import SchedulerSettings

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "operating.md"


def named_in_table() -> set[str]:
    """The metrics of the guide's table."""
    rows = re.findall(r"^\| (`cosine_.*?) \|", GUIDE.read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}


def test_every_metric_is_in_the_guide_and_no_other() -> None:
    found = (*vars(metrics).values(), *vars(gateway_metrics).values())
    exported = {metric.describe()[0].name for metric in found if isinstance(metric, MetricWrapperBase)}
    assert len(exported) > 20
    assert named_in_table() == exported


def test_the_bounds_of_a_batch_in_the_guide_are_the_schedulers_defaults() -> None:
    named = dict(re.findall(r"`--((?:batch|prefill)-[a-z-]+)` \((\d+)", GUIDE.read_text()))
    fields = SchedulerSettings.model_fields
    bounds = [name for name in fields if name.startswith(("batch", "prefill")) and name != "batch_deadline_s"]
    assert {name.replace("-", "_"): int(value) for name, value in named.items()} == {
        name: fields[name].default for name in bounds
    }


def test_the_mesh_file_of_the_guide_reaches_every_peer(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(GUIDE.read_text().split("```yaml\n")[1].split("```")[0])
    flags = {plan.peer_id: plan.arguments for plan in roster(read_spec(path, {}))}
    listening = [peer for peer, words in flags.items() if any(word.startswith("--metrics-listen=") for word in words)]
    assert listening == ["gateway", "scheduler", "near", "far"]
