from cosine.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DraftRequest(_message.Message):
    __slots__ = ("hello", "step", "close", "cancel")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    hello: _types_pb2.Hello
    step: DraftStep
    close: _types_pb2.CloseSessions
    cancel: _types_pb2.CancelWork
    def __init__(self, hello: _Optional[_Union[_types_pb2.Hello, _Mapping]] = ..., step: _Optional[_Union[DraftStep, _Mapping]] = ..., close: _Optional[_Union[_types_pb2.CloseSessions, _Mapping]] = ..., cancel: _Optional[_Union[_types_pb2.CancelWork, _Mapping]] = ...) -> None: ...

class DraftResponse(_message.Message):
    __slots__ = ("hello", "candidates")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    hello: _types_pb2.Hello
    candidates: DraftCandidates
    def __init__(self, hello: _Optional[_Union[_types_pb2.Hello, _Mapping]] = ..., candidates: _Optional[_Union[DraftCandidates, _Mapping]] = ...) -> None: ...

class DraftStep(_message.Message):
    __slots__ = ("step_id", "items", "traceparent")
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    step_id: int
    items: _containers.RepeatedCompositeFieldContainer[DraftItem]
    traceparent: str
    def __init__(self, step_id: _Optional[int] = ..., items: _Optional[_Iterable[_Union[DraftItem, _Mapping]]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class DraftItem(_message.Message):
    __slots__ = ("session_id", "base_length", "append_token_ids", "step_count", "width", "beam", "sampling", "value_min", "tree", "run_ahead", "sibling_min")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    APPEND_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    BEAM_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    VALUE_MIN_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    RUN_AHEAD_FIELD_NUMBER: _ClassVar[int]
    SIBLING_MIN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    base_length: int
    append_token_ids: _containers.RepeatedScalarFieldContainer[int]
    step_count: int
    width: int
    beam: int
    sampling: _types_pb2.Sampling
    value_min: float
    tree: _types_pb2.TokenTree
    run_ahead: bool
    sibling_min: float
    def __init__(self, session_id: _Optional[str] = ..., base_length: _Optional[int] = ..., append_token_ids: _Optional[_Iterable[int]] = ..., step_count: _Optional[int] = ..., width: _Optional[int] = ..., beam: _Optional[int] = ..., sampling: _Optional[_Union[_types_pb2.Sampling, _Mapping]] = ..., value_min: _Optional[float] = ..., tree: _Optional[_Union[_types_pb2.TokenTree, _Mapping]] = ..., run_ahead: _Optional[bool] = ..., sibling_min: _Optional[float] = ...) -> None: ...

class DraftCandidates(_message.Message):
    __slots__ = ("step_id", "results", "forward_us")
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_US_FIELD_NUMBER: _ClassVar[int]
    step_id: int
    results: _containers.RepeatedCompositeFieldContainer[DraftResult]
    forward_us: int
    def __init__(self, step_id: _Optional[int] = ..., results: _Optional[_Iterable[_Union[DraftResult, _Mapping]]] = ..., forward_us: _Optional[int] = ...) -> None: ...

class DraftResult(_message.Message):
    __slots__ = ("session_id", "status", "cached_length", "tree")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CACHED_LENGTH_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    status: _types_pb2.ItemStatus
    cached_length: int
    tree: _types_pb2.TokenTree
    def __init__(self, session_id: _Optional[str] = ..., status: _Optional[_Union[_types_pb2.ItemStatus, str]] = ..., cached_length: _Optional[int] = ..., tree: _Optional[_Union[_types_pb2.TokenTree, _Mapping]] = ...) -> None: ...
