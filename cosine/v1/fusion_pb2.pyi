from cosine.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Cooperation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COOPERATION_UNSPECIFIED: _ClassVar[Cooperation]
    COOPERATION_SINGLE: _ClassVar[Cooperation]
    COOPERATION_MERGED: _ClassVar[Cooperation]
    COOPERATION_FUSED: _ClassVar[Cooperation]
    COOPERATION_VOTED: _ClassVar[Cooperation]

class Reading(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READING_UNSPECIFIED: _ClassVar[Reading]
    READING_REPLACE: _ClassVar[Reading]
    READING_FORK: _ClassVar[Reading]
COOPERATION_UNSPECIFIED: Cooperation
COOPERATION_SINGLE: Cooperation
COOPERATION_MERGED: Cooperation
COOPERATION_FUSED: Cooperation
COOPERATION_VOTED: Cooperation
READING_UNSPECIFIED: Reading
READING_REPLACE: Reading
READING_FORK: Reading

class FuseRequest(_message.Message):
    __slots__ = ("hello", "plan", "close")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    hello: _types_pb2.Hello
    plan: DraftPlan
    close: _types_pb2.CloseSessions
    def __init__(self, hello: _Optional[_Union[_types_pb2.Hello, _Mapping]] = ..., plan: _Optional[_Union[DraftPlan, _Mapping]] = ..., close: _Optional[_Union[_types_pb2.CloseSessions, _Mapping]] = ...) -> None: ...

class FuseResponse(_message.Message):
    __slots__ = ("hello", "trees", "drafters")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    TREES_FIELD_NUMBER: _ClassVar[int]
    DRAFTERS_FIELD_NUMBER: _ClassVar[int]
    hello: _types_pb2.Hello
    trees: DraftedTrees
    drafters: DrafterList
    def __init__(self, hello: _Optional[_Union[_types_pb2.Hello, _Mapping]] = ..., trees: _Optional[_Union[DraftedTrees, _Mapping]] = ..., drafters: _Optional[_Union[DrafterList, _Mapping]] = ...) -> None: ...

class DraftPlan(_message.Message):
    __slots__ = ("round_id", "cooperation", "fusion_interval", "deadline_ms", "items", "traceparent", "reading", "lookahead", "raw_confidences", "opinions")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    COOPERATION_FIELD_NUMBER: _ClassVar[int]
    FUSION_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    LOOKAHEAD_FIELD_NUMBER: _ClassVar[int]
    RAW_CONFIDENCES_FIELD_NUMBER: _ClassVar[int]
    OPINIONS_FIELD_NUMBER: _ClassVar[int]
    round_id: int
    cooperation: Cooperation
    fusion_interval: int
    deadline_ms: int
    items: _containers.RepeatedCompositeFieldContainer[PlanItem]
    traceparent: str
    reading: Reading
    lookahead: int
    raw_confidences: bool
    opinions: bool
    def __init__(self, round_id: _Optional[int] = ..., cooperation: _Optional[_Union[Cooperation, str]] = ..., fusion_interval: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., items: _Optional[_Iterable[_Union[PlanItem, _Mapping]]] = ..., traceparent: _Optional[str] = ..., reading: _Optional[_Union[Reading, str]] = ..., lookahead: _Optional[int] = ..., raw_confidences: _Optional[bool] = ..., opinions: _Optional[bool] = ...) -> None: ...

class PlanItem(_message.Message):
    __slots__ = ("session_id", "base_length", "append_token_ids", "drafters", "depth", "width", "beam", "node_budget", "value_min", "sampling")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    APPEND_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    DRAFTERS_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    BEAM_FIELD_NUMBER: _ClassVar[int]
    NODE_BUDGET_FIELD_NUMBER: _ClassVar[int]
    VALUE_MIN_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    base_length: int
    append_token_ids: _containers.RepeatedScalarFieldContainer[int]
    drafters: _containers.RepeatedScalarFieldContainer[str]
    depth: int
    width: int
    beam: int
    node_budget: int
    value_min: float
    sampling: _types_pb2.Sampling
    def __init__(self, session_id: _Optional[str] = ..., base_length: _Optional[int] = ..., append_token_ids: _Optional[_Iterable[int]] = ..., drafters: _Optional[_Iterable[str]] = ..., depth: _Optional[int] = ..., width: _Optional[int] = ..., beam: _Optional[int] = ..., node_budget: _Optional[int] = ..., value_min: _Optional[float] = ..., sampling: _Optional[_Union[_types_pb2.Sampling, _Mapping]] = ...) -> None: ...

class DraftedTrees(_message.Message):
    __slots__ = ("round_id", "results")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    round_id: int
    results: _containers.RepeatedCompositeFieldContainer[DraftedTree]
    def __init__(self, round_id: _Optional[int] = ..., results: _Optional[_Iterable[_Union[DraftedTree, _Mapping]]] = ...) -> None: ...

class DraftedTree(_message.Message):
    __slots__ = ("session_id", "status", "base_length", "tree", "exchange_count", "forward_us", "kept_depth", "opinions")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BASE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FORWARD_US_FIELD_NUMBER: _ClassVar[int]
    KEPT_DEPTH_FIELD_NUMBER: _ClassVar[int]
    OPINIONS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    status: _types_pb2.ItemStatus
    base_length: int
    tree: _types_pb2.TokenTree
    exchange_count: int
    forward_us: int
    kept_depth: int
    opinions: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, session_id: _Optional[str] = ..., status: _Optional[_Union[_types_pb2.ItemStatus, str]] = ..., base_length: _Optional[int] = ..., tree: _Optional[_Union[_types_pb2.TokenTree, _Mapping]] = ..., exchange_count: _Optional[int] = ..., forward_us: _Optional[int] = ..., kept_depth: _Optional[int] = ..., opinions: _Optional[_Iterable[float]] = ...) -> None: ...

class DrafterList(_message.Message):
    __slots__ = ("drafters",)
    DRAFTERS_FIELD_NUMBER: _ClassVar[int]
    drafters: _containers.RepeatedCompositeFieldContainer[DrafterEntry]
    def __init__(self, drafters: _Optional[_Iterable[_Union[DrafterEntry, _Mapping]]] = ...) -> None: ...

class DrafterEntry(_message.Message):
    __slots__ = ("peer_id", "model_id", "incarnation", "tokenizer_fingerprint", "vocab_size", "base_ms", "row_ms", "processor")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    BASE_MS_FIELD_NUMBER: _ClassVar[int]
    ROW_MS_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_FIELD_NUMBER: _ClassVar[int]
    peer_id: str
    model_id: str
    incarnation: int
    tokenizer_fingerprint: str
    vocab_size: int
    base_ms: float
    row_ms: float
    processor: _types_pb2.Processor
    def __init__(self, peer_id: _Optional[str] = ..., model_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., tokenizer_fingerprint: _Optional[str] = ..., vocab_size: _Optional[int] = ..., base_ms: _Optional[float] = ..., row_ms: _Optional[float] = ..., processor: _Optional[_Union[_types_pb2.Processor, _Mapping]] = ...) -> None: ...
