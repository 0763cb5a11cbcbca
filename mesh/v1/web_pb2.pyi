from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WebRequest(_message.Message):
    __slots__ = ("method", "raw_path", "query_string", "scheme", "http_version", "headers", "client_host", "client_port", "server_host", "server_port", "root_path", "subprotocols", "is_websocket", "body", "head_bytes")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RAW_PATH_FIELD_NUMBER: _ClassVar[int]
    QUERY_STRING_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    HTTP_VERSION_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_HOST_FIELD_NUMBER: _ClassVar[int]
    CLIENT_PORT_FIELD_NUMBER: _ClassVar[int]
    SERVER_HOST_FIELD_NUMBER: _ClassVar[int]
    SERVER_PORT_FIELD_NUMBER: _ClassVar[int]
    ROOT_PATH_FIELD_NUMBER: _ClassVar[int]
    SUBPROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    IS_WEBSOCKET_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    HEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    method: str
    raw_path: bytes
    query_string: bytes
    scheme: str
    http_version: str
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    client_host: str
    client_port: int
    server_host: str
    server_port: int
    root_path: str
    subprotocols: _containers.RepeatedScalarFieldContainer[str]
    is_websocket: bool
    body: bytes
    head_bytes: int
    def __init__(self, method: _Optional[str] = ..., raw_path: _Optional[bytes] = ..., query_string: _Optional[bytes] = ..., scheme: _Optional[str] = ..., http_version: _Optional[str] = ..., headers: _Optional[_Iterable[bytes]] = ..., client_host: _Optional[str] = ..., client_port: _Optional[int] = ..., server_host: _Optional[str] = ..., server_port: _Optional[int] = ..., root_path: _Optional[str] = ..., subprotocols: _Optional[_Iterable[str]] = ..., is_websocket: bool = ..., body: _Optional[bytes] = ..., head_bytes: _Optional[int] = ...) -> None: ...

class WebResponse(_message.Message):
    __slots__ = ("status", "headers", "body", "route", "head_bytes")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    HEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    status: int
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    body: bytes
    route: str
    head_bytes: int
    def __init__(self, status: _Optional[int] = ..., headers: _Optional[_Iterable[bytes]] = ..., body: _Optional[bytes] = ..., route: _Optional[str] = ..., head_bytes: _Optional[int] = ...) -> None: ...

class WebSocketEvent(_message.Message):
    __slots__ = ("accept", "deny", "text", "binary", "close")
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BINARY_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    accept: WebSocketAccept
    deny: WebResponse
    text: str
    binary: bytes
    close: WebSocketClose
    def __init__(self, accept: _Optional[_Union[WebSocketAccept, _Mapping]] = ..., deny: _Optional[_Union[WebResponse, _Mapping]] = ..., text: _Optional[str] = ..., binary: _Optional[bytes] = ..., close: _Optional[_Union[WebSocketClose, _Mapping]] = ...) -> None: ...

class WebSocketAccept(_message.Message):
    __slots__ = ("subprotocol", "headers", "route")
    SUBPROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    subprotocol: str
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    route: str
    def __init__(self, subprotocol: _Optional[str] = ..., headers: _Optional[_Iterable[bytes]] = ..., route: _Optional[str] = ...) -> None: ...

class WebSocketClose(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
