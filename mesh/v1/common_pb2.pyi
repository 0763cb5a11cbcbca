from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_RAW: _ClassVar[Codec]
    CODEC_PICKLE: _ClassVar[Codec]
    CODEC_PICKLE_BUFFERS: _ClassVar[Codec]
CODEC_RAW: Codec
CODEC_PICKLE: Codec
CODEC_PICKLE_BUFFERS: Codec

class DeploymentId(_message.Message):
    __slots__ = ("app", "name")
    APP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    app: str
    name: str
    def __init__(self, app: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class RequestContext(_message.Message):
    __slots__ = ("request_id", "route", "app", "multiplexed_model_id", "traceparent", "tracestate", "identity", "tenant", "track")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    MULTIPLEXED_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    TRACK_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    route: str
    app: str
    multiplexed_model_id: str
    traceparent: str
    tracestate: str
    identity: Identity
    tenant: str
    track: str
    def __init__(self, request_id: _Optional[str] = ..., route: _Optional[str] = ..., app: _Optional[str] = ..., multiplexed_model_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., identity: _Optional[_Union[Identity, _Mapping]] = ..., tenant: _Optional[str] = ..., track: _Optional[str] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("name", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StoredBuffers(_message.Message):
    __slots__ = ("object_id", "owner", "object_status")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    OBJECT_STATUS_FIELD_NUMBER: _ClassVar[int]
    object_id: bytes
    owner: bytes
    object_status: bytes
    def __init__(self, object_id: _Optional[bytes] = ..., owner: _Optional[bytes] = ..., object_status: _Optional[bytes] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("codec", "data", "buffers", "stored", "section_bytes")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    SECTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    codec: Codec
    data: bytes
    buffers: _containers.RepeatedScalarFieldContainer[bytes]
    stored: StoredBuffers
    section_bytes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, codec: _Optional[_Union[Codec, str]] = ..., data: _Optional[bytes] = ..., buffers: _Optional[_Iterable[bytes]] = ..., stored: _Optional[_Union[StoredBuffers, _Mapping]] = ..., section_bytes: _Optional[_Iterable[int]] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("ongoing", "offers_place")
    ONGOING_FIELD_NUMBER: _ClassVar[int]
    OFFERS_PLACE_FIELD_NUMBER: _ClassVar[int]
    ongoing: int
    offers_place: bool
    def __init__(self, ongoing: _Optional[int] = ..., offers_place: bool = ...) -> None: ...

class Metadatum(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message", "trailers", "pickled_exception", "exception_type", "remote_traceback", "backpressure")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRAILERS_FIELD_NUMBER: _ClassVar[int]
    PICKLED_EXCEPTION_FIELD_NUMBER: _ClassVar[int]
    EXCEPTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    REMOTE_TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    trailers: _containers.RepeatedCompositeFieldContainer[Metadatum]
    pickled_exception: bytes
    exception_type: str
    remote_traceback: str
    backpressure: BackpressureAnswer
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., trailers: _Optional[_Iterable[_Union[Metadatum, _Mapping]]] = ..., pickled_exception: _Optional[bytes] = ..., exception_type: _Optional[str] = ..., remote_traceback: _Optional[str] = ..., backpressure: _Optional[_Union[BackpressureAnswer, _Mapping]] = ...) -> None: ...

class BackpressureAnswer(_message.Message):
    __slots__ = ("status_code", "retry_after_s")
    STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    status_code: int
    retry_after_s: float
    def __init__(self, status_code: _Optional[int] = ..., retry_after_s: _Optional[float] = ...) -> None: ...
