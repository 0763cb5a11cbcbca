from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ForecastRequest(_message.Message):
    __slots__ = ("city", "hour", "resamples", "label")
    CITY_FIELD_NUMBER: _ClassVar[int]
    HOUR_FIELD_NUMBER: _ClassVar[int]
    RESAMPLES_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    city: str
    hour: float
    resamples: int
    label: str
    def __init__(self, city: _Optional[str] = ..., hour: _Optional[float] = ..., resamples: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

class ForecastReply(_message.Message):
    __slots__ = ("city", "hour", "celsius", "standard_error", "served_by")
    CITY_FIELD_NUMBER: _ClassVar[int]
    HOUR_FIELD_NUMBER: _ClassVar[int]
    CELSIUS_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    city: str
    hour: float
    celsius: float
    standard_error: float
    served_by: str
    def __init__(self, city: _Optional[str] = ..., hour: _Optional[float] = ..., celsius: _Optional[float] = ..., standard_error: _Optional[float] = ..., served_by: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("city", "first_hour", "hours", "interval_ms", "label")
    CITY_FIELD_NUMBER: _ClassVar[int]
    FIRST_HOUR_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    city: str
    first_hour: float
    hours: int
    interval_ms: int
    label: str
    def __init__(self, city: _Optional[str] = ..., first_hour: _Optional[float] = ..., hours: _Optional[int] = ..., interval_ms: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("city", "hour", "celsius")
    CITY_FIELD_NUMBER: _ClassVar[int]
    HOUR_FIELD_NUMBER: _ClassVar[int]
    CELSIUS_FIELD_NUMBER: _ClassVar[int]
    city: str
    hour: float
    celsius: float
    def __init__(self, city: _Optional[str] = ..., hour: _Optional[float] = ..., celsius: _Optional[float] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("observations", "mean_absolute_error")
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    MEAN_ABSOLUTE_ERROR_FIELD_NUMBER: _ClassVar[int]
    observations: int
    mean_absolute_error: float
    def __init__(self, observations: _Optional[int] = ..., mean_absolute_error: _Optional[float] = ...) -> None: ...

class CancellationsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CancellationsReply(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Cancellation]
    def __init__(self, entries: _Optional[_Iterable[_Union[Cancellation, _Mapping]]] = ...) -> None: ...

class Cancellation(_message.Message):
    __slots__ = ("label", "replica_id", "seen_at_s")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    SEEN_AT_S_FIELD_NUMBER: _ClassVar[int]
    label: str
    replica_id: str
    seen_at_s: float
    def __init__(self, label: _Optional[str] = ..., replica_id: _Optional[str] = ..., seen_at_s: _Optional[float] = ...) -> None: ...
