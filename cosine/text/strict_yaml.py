"""YAML files that people write: what would be guessed at elsewhere is an error here. What keys mean is for others."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from cosine.core.errors import BadRequest, NotFound

MERGE_TAG = "tag:yaml.org,2002:merge"


def read_mapping(path: Path, reason: str, expected: str) -> dict[str, Any]:
    """The keys of a file. Raises NotFound(reason) or BadRequest(reason), naming the file; `expected` says what it
    should hold."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise NotFound(reason, f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, KeyError, RecursionError) as error:  # the last three: tags, nesting
        raise BadRequest(reason, f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadRequest(reason, f"{path}: {expected}")
    return {str(key): value for key, value in content.items()}


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error, not the last one's victory; `<<` may bring keys that are
    overwritten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE_TAG:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.YAMLError(f"the key in line {key_node.start_mark.line + 1} is no word")
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} comes twice, the second time in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)
