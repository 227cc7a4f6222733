"""constraints.txt pins what pyproject.toml asks for, within its ranges."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def pins() -> dict[str, str]:
    lines = (PROJECT_ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[Requirement]:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for text in (*project["dependencies"], *(text for extra in extras for text in extra))]


def test_every_direct_dependency_has_a_pin_within_its_range() -> None:
    for requirement in requirements():
        version = pins()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), (requirement, version)


def test_no_package_is_pinned_twice() -> None:
    lines = (PROJECT_ROOT / "constraints.txt").read_text().splitlines()
    assert len(pins()) == sum(1 for line in lines if "==" in line and not line.startswith("#"))
