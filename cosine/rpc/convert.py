"""Between the core's values and the wire's messages. No decisions, no checks beyond what a type needs."""

from __future__ import annotations

from collections.abc import Sequence

from cosine.core.sampling import Sampling
from cosine.core.tree import EMPTY, TokenTree
from cosine.v1 import types_pb2 as types


def sampling_to_proto(sampling: Sampling) -> types.Sampling:
    """Only what differs from the defaults travels."""
    message = types.Sampling(temperature=sampling.temperature, seed=sampling.seed)
    if sampling.top_k:
        message.top_k = sampling.top_k
    if sampling.top_p != 1.0:
        message.top_p = sampling.top_p
    if sampling.min_p:
        message.min_p = sampling.min_p
    if sampling.path_dependent:
        message.repetition_penalty = sampling.repetition_penalty
        message.presence_penalty = sampling.presence_penalty
        message.frequency_penalty = sampling.frequency_penalty
    if sampling.logprobs is not None:
        message.logprobs = sampling.logprobs
    message.logit_bias.extend(types.LogitBias(token_id=token, bias=bias) for token, bias in sampling.logit_bias)
    return message


def sampling_from_proto(message: types.Sampling) -> Sampling:
    """Absent fields take the defaults; a present zero stays zero and is for `core.sampling.validate` to refuse."""
    return Sampling(
        temperature=message.temperature,
        seed=message.seed,
        top_k=(message.top_k or -1) if message.HasField("top_k") else 0,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty if message.HasField("repetition_penalty") else 1.0,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        logit_bias=tuple((entry.token_id, entry.bias) for entry in message.logit_bias),
        logprobs=message.logprobs if message.HasField("logprobs") else None,
    )


def tree_to_proto(tree: TokenTree, figures: bool = True) -> types.TokenTree:
    """`figures` False leaves confidences and proposers at home."""
    if not figures:
        return types.TokenTree(token_ids=tree.token_ids, parents=tree.parents)
    return types.TokenTree(
        token_ids=tree.token_ids, parents=tree.parents, confidences=tree.confidences, proposers=tree.proposers
    )


def tree_from_proto(message: types.TokenTree) -> TokenTree:
    """The tree as it came; `core.tree.validate` says whether it is one."""
    if not message.token_ids:
        return EMPTY
    return TokenTree(
        tuple(message.token_ids), tuple(message.parents), tuple(message.confidences), tuple(message.proposers)
    )


def logprobs_to_proto(entries: Sequence[tuple[float, Sequence[int], Sequence[float]]]) -> list[types.TokenLogprobs]:
    """Per committed token: its log-probability, the top ids and their log-probabilities."""
    return [types.TokenLogprobs(logprob=own, top_token_ids=ids, top_logprobs=values) for own, ids, values in entries]


def status_to_proto(name: str) -> str:
    """The ItemStatus of "OK", "CACHE_MISS", "REFUSED" or "CANCELLED"; protobuf takes enum values by name."""
    return f"ITEM_STATUS_{name}"
