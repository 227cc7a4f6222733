"""The one tokenizer of the test bed, and the token streams that training draws its windows from.

A byte-level BPE with one special token that ends a document. Digits are split, so that sums stay learnable.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|end|>"
END_ID = 0

Tokens = npt.NDArray[np.int64]


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of exactly `vocab_size` tokens, the end token being number 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wrap(tokenizer: Tokenizer, context_length: int) -> PreTrainedTokenizerFast:
    """The same tokenizer in the form that `save_pretrained` writes into a model folder."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )


def token_stream(tokenizer: Tokenizer, texts: list[str]) -> Tokens:
    """All documents one after the other, each closed by the end token."""
    pieces = [[*encoding.ids, END_ID] for encoding in tokenizer.encode_batch(texts)]
    return np.concatenate([np.asarray(piece, dtype=np.int64) for piece in pieces])


def windows(stream: Tokens, count: int, length: int, dice: np.random.Generator) -> Tokens:
    """`[count, length]` windows of the stream at random places."""
    starts = dice.integers(0, len(stream) - length, size=count)
    rows: Tokens = stream[starts[:, None] + np.arange(length)[None, :]]
    return rows


def load_or_train(path: Path, texts: list[str], vocab_size: int) -> Tokenizer:
    """The tokenizer stored at `path`, trained and stored first if it is not there."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = train_tokenizer(texts, vocab_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer
