from mesh.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CancelReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_REASON_UNSPECIFIED: _ClassVar[CancelReason]
    CANCEL_REASON_CLIENT: _ClassVar[CancelReason]
    CANCEL_REASON_PARENT: _ClassVar[CancelReason]
    CANCEL_REASON_DEADLINE: _ClassVar[CancelReason]
    CANCEL_REASON_LINK_BROKEN: _ClassVar[CancelReason]
    CANCEL_REASON_DRAIN: _ClassVar[CancelReason]
CANCEL_REASON_UNSPECIFIED: CancelReason
CANCEL_REASON_CLIENT: CancelReason
CANCEL_REASON_PARENT: CancelReason
CANCEL_REASON_DEADLINE: CancelReason
CANCEL_REASON_LINK_BROKEN: CancelReason
CANCEL_REASON_DRAIN: CancelReason

class Frames(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    def __init__(self, frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("call_id", "hello", "welcome", "open", "item", "half_close", "result", "cancel", "credit", "reject", "load", "drain", "part", "release", "models", "decline", "initial_metadata", "compression", "routing_stats")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    HALF_CLOSE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    INITIAL_METADATA_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    ROUTING_STATS_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    hello: Hello
    welcome: Welcome
    open: Open
    item: Item
    half_close: HalfClose
    result: Result
    cancel: Cancel
    credit: Credit
    reject: Reject
    load: _common_pb2.Load
    drain: Drain
    part: Part
    release: Release
    models: Models
    decline: Decline
    initial_metadata: InitialMetadata
    compression: Compression
    routing_stats: RoutingStats
    def __init__(self, call_id: _Optional[int] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., item: _Optional[_Union[Item, _Mapping]] = ..., half_close: _Optional[_Union[HalfClose, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., load: _Optional[_Union[_common_pb2.Load, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., models: _Optional[_Union[Models, _Mapping]] = ..., decline: _Optional[_Union[Decline, _Mapping]] = ..., initial_metadata: _Optional[_Union[InitialMetadata, _Mapping]] = ..., compression: _Optional[_Union[Compression, _Mapping]] = ..., routing_stats: _Optional[_Union[RoutingStats, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "replica_id", "token")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    replica_id: str
    token: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., replica_id: _Optional[str] = ..., token: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "load", "model_ids", "copies_min", "metadata_json", "routing_stats_json")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    COPIES_MIN_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    ROUTING_STATS_JSON_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    load: _common_pb2.Load
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    copies_min: int
    metadata_json: str
    routing_stats_json: str
    def __init__(self, protocol_version: _Optional[int] = ..., load: _Optional[_Union[_common_pb2.Load, _Mapping]] = ..., model_ids: _Optional[_Iterable[str]] = ..., copies_min: _Optional[int] = ..., metadata_json: _Optional[str] = ..., routing_stats_json: _Optional[str] = ...) -> None: ...

class RoutingStats(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("method", "context", "deadline_ms", "payload", "streams_response", "streams_request", "credit", "metadata", "peer", "shared_bytes", "beyond_limit")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    STREAMS_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    STREAMS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BEYOND_LIMIT_FIELD_NUMBER: _ClassVar[int]
    method: str
    context: _common_pb2.RequestContext
    deadline_ms: int
    payload: _common_pb2.Payload
    streams_response: bool
    streams_request: bool
    credit: int
    metadata: _containers.RepeatedCompositeFieldContainer[_common_pb2.Metadatum]
    peer: str
    shared_bytes: int
    beyond_limit: bool
    def __init__(self, method: _Optional[str] = ..., context: _Optional[_Union[_common_pb2.RequestContext, _Mapping]] = ..., deadline_ms: _Optional[int] = ..., payload: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., streams_response: bool = ..., streams_request: bool = ..., credit: _Optional[int] = ..., metadata: _Optional[_Iterable[_Union[_common_pb2.Metadatum, _Mapping]]] = ..., peer: _Optional[str] = ..., shared_bytes: _Optional[int] = ..., beyond_limit: bool = ...) -> None: ...

class InitialMetadata(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[_common_pb2.Metadatum]
    def __init__(self, entries: _Optional[_Iterable[_Union[_common_pb2.Metadatum, _Mapping]]] = ...) -> None: ...

class Compression(_message.Message):
    __slots__ = ("encoding", "skips_next")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SKIPS_NEXT_FIELD_NUMBER: _ClassVar[int]
    encoding: str
    skips_next: bool
    def __init__(self, encoding: _Optional[str] = ..., skips_next: bool = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("payload",)
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    payload: _common_pb2.Payload
    def __init__(self, payload: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ...) -> None: ...

class HalfClose(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Result(_message.Message):
    __slots__ = ("status", "payload", "load", "queue_us", "user_us")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    USER_US_FIELD_NUMBER: _ClassVar[int]
    status: _common_pb2.Status
    payload: _common_pb2.Payload
    load: _common_pb2.Load
    queue_us: int
    user_us: int
    def __init__(self, status: _Optional[_Union[_common_pb2.Status, _Mapping]] = ..., payload: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., load: _Optional[_Union[_common_pb2.Load, _Mapping]] = ..., queue_us: _Optional[int] = ..., user_us: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: CancelReason
    def __init__(self, reason: _Optional[_Union[CancelReason, str]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("credits",)
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    credits: int
    def __init__(self, credits: _Optional[int] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("load", "draining")
    LOAD_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    load: _common_pb2.Load
    draining: bool
    def __init__(self, load: _Optional[_Union[_common_pb2.Load, _Mapping]] = ..., draining: bool = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Part(_message.Message):
    __slots__ = ("total_bytes", "head_bytes", "data")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    head_bytes: int
    data: bytes
    def __init__(self, total_bytes: _Optional[int] = ..., head_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Decline(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Release(_message.Message):
    __slots__ = ("object_id",)
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    object_id: bytes
    def __init__(self, object_id: _Optional[bytes] = ...) -> None: ...

class Models(_message.Message):
    __slots__ = ("model_ids",)
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model_ids: _Optional[_Iterable[str]] = ...) -> None: ...
