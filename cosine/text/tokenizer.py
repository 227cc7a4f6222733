"""Loads the target's tokenizer, names it by a fingerprint, and finds the tokens that end a text.

A source is a Hugging Face folder, a hub id, or a toy ("toy", "toy:seed=3"), whose tokenizer is built in code: ids
0..255 are the bytes, 256 ends the text. Only `tokenizer.json` and two small JSON files are read, never weights; chat
templates and other model files are none of this module's business.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cosine.core.errors import MeshError, Mismatch, NotFound, Unavailable

TOY_END = "<|end|>"
TOY_END_ID = 256
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_toy(source: str) -> bool:
    """True where `source` names a toy model: "toy", or "toy:" and its numbers."""
    return source == "toy" or source.startswith("toy:")


def load_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a model.

    Raises NotFound where there is no such model or it has no tokenizer.json, Mismatch where the file is damaged,
    Unavailable where the hub does not answer.
    """
    if is_toy(source):
        return _toy_tokenizer()
    path = _model_file(source, "tokenizer.json")
    if path is None:
        raise NotFound(
            "TOKENIZER_NOT_FOUND",
            f"model {source!r} has no tokenizer.json; save its fast tokenizer beside the weights",
            {"model": source},
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise _damaged(path, error) from error


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256, hex, of the sorted (token, id) pairs, added tokens included: equal where token ids mean the same."""
    vocabulary = sorted(tokenizer.get_vocab(with_added_tokens=True).items())
    return hashlib.sha256(json.dumps(vocabulary, separators=(",", ":")).encode()).hexdigest()


def vocab_size(tokenizer: Tokenizer) -> int:
    """One more than the largest token id: ids below it may be sent."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def eos_token_ids(source: str) -> tuple[int, ...]:
    """The tokens that end a text, from generation_config.json, else config.json; empty where neither names one."""
    if is_toy(source):
        return (TOY_END_ID,)
    for name in ("generation_config.json", "config.json"):
        path = _model_file(source, name)
        if path is not None and (found := _eos_of(path)):
            return found
    return ()


def _toy_tokenizer() -> Tokenizer:
    """Byte-level, without merges: the vocabulary is the byte alphabet in byte order, then the end token."""
    tokenizer = Tokenizer(models.BPE(vocab={_byte_name(byte): byte for byte in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([TOY_END])
    assert tokenizer.token_to_id(TOY_END) == TOY_END_ID
    return tokenizer


def _byte_name(byte: int) -> str:
    """The character that stands for a byte in byte-level vocabularies: itself where printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + sum(1 for other in range(byte) if other not in printable))


def _model_file(source: str, name: str) -> Path | None:
    """The file `name` of a model, or None where the model exists without it."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        path = folder / name
        return path if path.is_file() else None
    if not HUB_ID.fullmatch(source):
        raise NotFound("MODEL_NOT_FOUND", f"there is no folder {source!r}; check the path", {"model": source})
    return _hub_file(source, name)


def _hub_file(source: str, name: str) -> Path | None:
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(source, name))
    except errors.LocalEntryNotFoundError as error:
        raise Unavailable(
            "HUB_UNREACHABLE",
            f"there is no folder {source!r}, and the Hugging Face hub does not answer; check the path, or the network "
            "(HF_ENDPOINT, HF_HUB_OFFLINE)",
            {"model": source},
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NotFound(
            "MODEL_NOT_FOUND",
            f"there is neither a folder {source!r} nor a model of that name on the hub; check the name (and HF_TOKEN)",
            {"model": source},
        ) from error
    except errors.EntryNotFoundError:
        return None
    except (errors.HfHubHTTPError, OSError) as error:
        raise Unavailable("HUB_UNREACHABLE", f"the hub refused {source!r}: {error}", {"model": source}) from error


def _eos_of(path: Path) -> tuple[int, ...]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        value = content.get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        return tuple(int(token) for token in ids)
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> MeshError:
    return Mismatch(
        "MODEL_DAMAGED", f"{path} cannot be read: {error}; fetch or save the model again", {"path": str(path)}
    )
