"""The options of a handle, with their checks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

from mesh.options import option_checks
from mesh.options.calls.hedge_option import HedgePolicy, hedge_policy
from mesh.options.calls.metadata_option import CallMetadata, call_metadata
from mesh.options.calls.retry_option import RetryPolicy, retry_policy
from mesh.options.default import DEFAULT
from mesh.options.keyword_advice import unexpected_keyword


@dataclass(frozen=True, slots=True, kw_only=True)
class HandleOptions:
    """What each call of a handle asks for. Raises TypeError or ValueError naming the option that is wrong."""

    method_name: str = "__call__"
    multiplexed_model_id: str = ""
    stream: bool = False
    timeout_s: float | None = None
    """Deadline of each call, from its start; the deadline of the request being served may be earlier."""
    idempotent: bool = False
    """Unary calls may be sent to another replica even when the first may have executed them."""
    retry: RetryPolicy | Mapping[str, object] | None = None
    """When unary calls that failed are sent again, to another replica if there is one."""
    queue_timeout_s: float | None = None
    """How long each call may wait for a free place; None: as long as the deployment says."""
    hedge_after_s: HedgePolicy | float | str | None = None
    """When a second copy of an idempotent unary call is sent to another replica: seconds, or "p95"."""
    session_id: str = ""
    """Calls with the same one go to the same replica as long as it has a free place; "": to any."""
    tenant: str = ""
    """For whom each call is; "": as of the request being served. Without `session_id` it counts like one."""
    metadata: CallMetadata | Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] = ()
    """gRPC metadata of each call: a mapping, or pairs of keys and values."""
    _prefer_local_routing: bool = False

    def __post_init__(self) -> None:
        option_checks.name_text("method_name", self.method_name)
        option_checks.name_text("multiplexed_model_id", self.multiplexed_model_id)
        option_checks.name_text("session_id", self.session_id)
        option_checks.flag("stream", self.stream)
        option_checks.flag("idempotent", self.idempotent)
        option_checks.flag("_prefer_local_routing", self._prefer_local_routing)
        option_checks.name_text("tenant", self.tenant)
        option_checks.seconds("timeout_s", self.timeout_s)
        if self.queue_timeout_s is not None:
            option_checks.number("queue_timeout_s", self.queue_timeout_s, may_equal=False)
        object.__setattr__(self, "retry", retry_policy(self.retry))
        object.__setattr__(self, "hedge_after_s", hedge_policy(self.hedge_after_s))
        if self.metadata != ():
            object.__setattr__(self, "metadata", call_metadata(self.metadata))
        self._check_hedge()

    def with_checked(self, changes: Mapping[str, object]) -> HandleOptions:
        """A copy with values that were checked before, at a quarter of the cost of `replace`.

        Raises ValueError for a second copy of calls that are not idempotent.
        """
        changed = object.__new__(HandleOptions)
        for name, read, write in _SLOTS:
            write(changed, changes[name] if name in changes else read(self))
        changed._check_hedge()
        return changed

    def _check_hedge(self) -> None:
        if self.hedge_after_s is not None and not self.idempotent:
            raise ValueError("hedge_after_s may execute a call twice: it needs idempotent=True as well.")


_SLOTS = [
    (name, slot.__get__, slot.__set__) for name in HandleOptions.__slots__ for slot in [vars(HandleOptions)[name]]
]
"""How each field is read and written, past what keeps the record frozen."""


class OptionKeywords(TypedDict, total=False):
    """For type checkers: the options of a handle that leave the kind of its responses as it is."""

    method_name: str | DEFAULT
    multiplexed_model_id: str | DEFAULT
    timeout_s: float | DEFAULT | None
    idempotent: bool | DEFAULT
    retry: Mapping[str, object] | DEFAULT | None
    queue_timeout_s: float | DEFAULT | None
    hedge_after_s: float | str | DEFAULT | None
    session_id: str | DEFAULT
    tenant: str | DEFAULT
    metadata: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] | DEFAULT
    use_new_handle_api: bool | DEFAULT
    request_serialization: str | DEFAULT
    response_serialization: str | DEFAULT
    _prefer_local_routing: bool | DEFAULT
    _by_reference: bool | DEFAULT
    _source: object


class IgnoredOptions(TypedDict, total=False):
    """Options of Ray Serve that are checked and change nothing: all values travel by value, in one encoding."""

    use_new_handle_api: bool | DEFAULT
    request_serialization: str | DEFAULT
    response_serialization: str | DEFAULT
    _by_reference: bool | DEFAULT
    _source: object


_SERIALIZATIONS = ("cloudpickle", "pickle", "msgpack", "orjson", "noop")


def check_ignored(given: Mapping[str, object]) -> None:
    """Raises TypeError for a keyword that no handle takes, TypeError or ValueError for a wrong value of the others."""
    for name, value in given.items():
        if name not in IgnoredOptions.__annotations__:
            raise unexpected_keyword("DeploymentHandle.options", name, _public(OptionKeywords.__annotations__))
        if value is DEFAULT.VALUE:
            continue
        if name == "use_new_handle_api":
            warnings.warn("use_new_handle_api has no effect any more; leave it out.", stacklevel=4)
        elif name == "_by_reference":
            option_checks.flag(name, value)
        elif name.endswith("_serialization") and value not in _SERIALIZATIONS:
            names = ", ".join(_SERIALIZATIONS)
            raise ValueError(f"{name} must be one of {names}, got {value!r}. None has an effect here: leave it out.")


def _public(names: Iterable[str]) -> list[str]:
    return ["stream", *(name for name in names if not name.startswith("_"))]
