from cosine.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VerifyRequest(_message.Message):
    __slots__ = ("hello", "batch", "close", "cancel")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    hello: _types_pb2.Hello
    batch: VerifyBatch
    close: _types_pb2.CloseSessions
    cancel: _types_pb2.CancelWork
    def __init__(self, hello: _Optional[_Union[_types_pb2.Hello, _Mapping]] = ..., batch: _Optional[_Union[VerifyBatch, _Mapping]] = ..., close: _Optional[_Union[_types_pb2.CloseSessions, _Mapping]] = ..., cancel: _Optional[_Union[_types_pb2.CancelWork, _Mapping]] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("hello", "verdicts")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    hello: _types_pb2.Hello
    verdicts: VerdictBatch
    def __init__(self, hello: _Optional[_Union[_types_pb2.Hello, _Mapping]] = ..., verdicts: _Optional[_Union[VerdictBatch, _Mapping]] = ...) -> None: ...

class VerifyBatch(_message.Message):
    __slots__ = ("batch_id", "items", "traceparent")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    items: _containers.RepeatedCompositeFieldContainer[VerifyItem]
    traceparent: str
    def __init__(self, batch_id: _Optional[int] = ..., items: _Optional[_Iterable[_Union[VerifyItem, _Mapping]]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class VerifyItem(_message.Message):
    __slots__ = ("session_id", "base_length", "append_token_ids", "tree", "sampling", "prompt_length", "prefill_only", "judge")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    APPEND_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    PREFILL_ONLY_FIELD_NUMBER: _ClassVar[int]
    JUDGE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    base_length: int
    append_token_ids: _containers.RepeatedScalarFieldContainer[int]
    tree: _types_pb2.TokenTree
    sampling: _types_pb2.Sampling
    prompt_length: int
    prefill_only: bool
    judge: bool
    def __init__(self, session_id: _Optional[str] = ..., base_length: _Optional[int] = ..., append_token_ids: _Optional[_Iterable[int]] = ..., tree: _Optional[_Union[_types_pb2.TokenTree, _Mapping]] = ..., sampling: _Optional[_Union[_types_pb2.Sampling, _Mapping]] = ..., prompt_length: _Optional[int] = ..., prefill_only: _Optional[bool] = ..., judge: _Optional[bool] = ...) -> None: ...

class VerdictBatch(_message.Message):
    __slots__ = ("batch_id", "verdicts", "forward_us")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_US_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    forward_us: int
    def __init__(self, batch_id: _Optional[int] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., forward_us: _Optional[int] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("session_id", "status", "committed_token_ids", "accepted_nodes", "cached_length", "logprobs", "reason", "judged_nodes", "agreements")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_NODES_FIELD_NUMBER: _ClassVar[int]
    CACHED_LENGTH_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    JUDGED_NODES_FIELD_NUMBER: _ClassVar[int]
    AGREEMENTS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    status: _types_pb2.ItemStatus
    committed_token_ids: _containers.RepeatedScalarFieldContainer[int]
    accepted_nodes: _containers.RepeatedScalarFieldContainer[int]
    cached_length: int
    logprobs: _containers.RepeatedCompositeFieldContainer[_types_pb2.TokenLogprobs]
    reason: str
    judged_nodes: _containers.RepeatedScalarFieldContainer[int]
    agreements: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, session_id: _Optional[str] = ..., status: _Optional[_Union[_types_pb2.ItemStatus, str]] = ..., committed_token_ids: _Optional[_Iterable[int]] = ..., accepted_nodes: _Optional[_Iterable[int]] = ..., cached_length: _Optional[int] = ..., logprobs: _Optional[_Iterable[_Union[_types_pb2.TokenLogprobs, _Mapping]]] = ..., reason: _Optional[str] = ..., judged_nodes: _Optional[_Iterable[int]] = ..., agreements: _Optional[_Iterable[float]] = ...) -> None: ...
