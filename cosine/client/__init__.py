"""The SDK: text from a mesh, with resuming, deadlines and typed errors. Needs no torch, no redis, no tokenizer."""

from cosine.client.async_client import AsyncClient
from cosine.client.options import Options
from cosine.client.persistence import RetryPolicy
from cosine.client.results import Chunk, Completion, Logprobs, Model, Peer, Speculation, Usage
from cosine.client.sync_client import Client

__all__ = [
    "AsyncClient",
    "Chunk",
    "Client",
    "Completion",
    "Logprobs",
    "Model",
    "Options",
    "Peer",
    "RetryPolicy",
    "Speculation",
    "Usage",
]
