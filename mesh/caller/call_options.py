"""The options of single calls: a value that overrides those of a handle, without a handle of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from mesh.caller.handle_options import HandleOptions
from mesh.options.calls.hedge_option import HedgePolicy
from mesh.options.calls.metadata_option import CallMetadata
from mesh.options.calls.retry_option import RetryPolicy
from mesh.options.default import DEFAULT
from mesh.options.keyword_advice import with_field_advice


@with_field_advice
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CallOptions:
    """Options for `handle.remote_with`: those that are given replace the handle's for this call.

        urgent = mesh.CallOptions(timeout_s=0.5, metadata={"priority": "high"})
        word = await handle.translate.remote_with(urgent, "chien")

    They mean what they mean in `handle.options`, None and "" included. The value is checked once, and can be used for
    any calls of any handles, compared, pickled, and changed into another one by `dataclasses.replace`. `method_name`
    and `stream` are not among them: they choose what is called and what `remote` returns, so the handle has them.

    Raises: TypeError or ValueError for a wrong value.
    """

    multiplexed_model_id: str | DEFAULT = DEFAULT.VALUE
    timeout_s: float | DEFAULT | None = DEFAULT.VALUE
    """Deadline of the call, in seconds from its start; None for none."""
    idempotent: bool | DEFAULT = DEFAULT.VALUE
    retry: RetryPolicy | Mapping[str, object] | DEFAULT | None = DEFAULT.VALUE
    queue_timeout_s: float | DEFAULT | None = DEFAULT.VALUE
    """How long the call may wait for a free place, in seconds; None for what the deployment says."""
    hedge_after_s: HedgePolicy | float | str | DEFAULT | None = DEFAULT.VALUE
    session_id: str | DEFAULT = DEFAULT.VALUE
    tenant: str | DEFAULT = DEFAULT.VALUE
    metadata: CallMetadata | Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] | DEFAULT = DEFAULT.VALUE
    """gRPC metadata of the call, in the place of all that the handle has."""

    _given: Mapping[str, object] = field(init=False, compare=False)
    """The checked values of the options that are given."""

    def __post_init__(self) -> None:
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        given = {name: value for name, value in given.items() if value is not DEFAULT.VALUE}
        checked = HandleOptions(**{"idempotent": True, **given})  # as a handle may be, which a second copy needs
        object.__setattr__(self, "_given", {name: getattr(checked, name) for name in given})
        for name, value in self._given.items():
            object.__setattr__(self, name, value)

    def over(self, options: HandleOptions) -> HandleOptions:
        """The options of a handle, with these in their place.

        Raises ValueError if both together ask for a second copy of calls that are not idempotent.
        """
        return options.with_checked(self._given)

    def __repr__(self) -> str:
        return f"CallOptions({', '.join(f'{name}={value!r}' for name, value in self._given.items())})"
