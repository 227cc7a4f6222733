"""Generates `cosine/v1` from `protos/cosine/v1`; `--check` fails where the committed stubs are stale.

The package of a proto file, its directory and its Python path are the same, so the stubs import as they lie.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("cosine/v1")


def generate(out: Path) -> None:
    """Writes the stubs of every proto file below `out`."""
    includes = [str(PROTOS), str(resources.files("grpc_tools") / "_proto"), _googleapis()]
    files = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / PACKAGE).glob("*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    status = protoc.main(["protoc", *(f"-I{path}" for path in includes), *outputs, *files])
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


def _googleapis() -> str:
    import google.rpc

    return str(Path(google.rpc.__path__[0]).parent.parent)


def stale() -> list[str]:
    """Names the committed stubs that differ from freshly generated ones."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_bytes() for path in (Path(folder) / PACKAGE).iterdir()}
    kept = {path.name: path.read_bytes() for path in (ROOT / PACKAGE).glob("*_pb2*")}
    return sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare with the committed stubs")
    if not parser.parse_args().check:
        generate(ROOT)
    elif names := stale():
        sys.exit(f"stale stubs, run `make protos`: {', '.join(names)}")


if __name__ == "__main__":
    main()
