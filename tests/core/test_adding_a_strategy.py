"""The strategy that docs/strategies.md adds by example works as written: followed step by step in a copy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PATIENCE_S = 60
TRY = """
import json
from harness import TARGET, Mesh
from cosine.core import events as ev

mesh = Mesh({"a": f"{TARGET},own=9,skill=0", "b": f"{TARGET},own=8,skill=0.3", "right": TARGET})
texts = [mesh.ask("r", count=80, strategy="leader"), mesh.ask("s", (2, 3), strategy="leader:depth=6")]
mesh.run()
plans = [command.plan for command in mesh.sent if isinstance(command, ev.SendPlan)]
used = [item.drafters for plan in plans for item in plan.items if item.session_id == plans[0].items[0].session_id]
print(json.dumps({"plain": [text.tokens == text.plain for text in texts], "used": used}))
"""


def steps() -> list[str]:
    """The example's four pieces of code."""
    page = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    example = page[page.index("## Adding one") : page.index("## What each one really does")]
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in BLOCK.findall(example)]


def insert(path: Path, before: str, code: str) -> None:
    """Puts code in front of the only place where `before` stands."""
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path.name} has changed: {before!r}"
    path.write_text(text.replace(before, code + before), encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package with the example's strategy added."""
    shutil.copytree(ROOT / "cosine", tmp_path / "cosine", ignore=shutil.ignore_patterns("__pycache__"))
    core = tmp_path / "cosine" / "core"
    if (core / "leader.py").exists():  # somebody has followed the page
        return tmp_path
    file, member, question, row = steps()
    (core / "leader.py").write_text(file, encoding="utf-8")
    insert(core / "strategy.py", '    BANDIT = "bandit"\n', member)
    insert(core / "planner.py", "    if strategy.choice is Choice.ROUTED:\n", question)
    insert(core / "planner.py", "from cosine.core.live import Live\n", "from cosine.core.leader import leader\n")
    insert(core / "strategy.py", "PRESETS = {", f"{row}\n")
    insert(core / "strategy.py", "PLAIN, VANILLA, ", "LEADER, ")
    return tmp_path


def test_the_example_of_the_docs_works_as_written(copy: Path) -> None:
    path = os.pathsep.join([str(copy), str(ROOT / "tests" / "core")])
    command = [sys.executable, "-c", textwrap.dedent(TRY)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=copy, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["plain"] == [True, True], "the text is plain decoding's"
    assert {name for (name,) in seen["used"]} == {"a", "b", "right"}, "each is tried"
    assert seen["used"][-5:] == [["right"]] * 5, "then the leader is followed"
