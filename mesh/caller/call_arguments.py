"""The arguments of a handle call: encodes them into one payload, after waiting for responses among them.

One argument may be a stream, whose items follow the others. Responses of other calls and object references may be
passed un-awaited, as top-level arguments. Each argument of such a call is pickled separately: ordinary ones
immediately, because the caller may change them; a response as the bytes in which it arrives, without being unpickled
here. What has to be pickled after the wait is pickled in a thread, never on the I/O loop: it may be large, or of a
class whose pickling takes its time.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterable
from types import GeneratorType
from typing import Any

from mesh.caller.response import DeploymentResponse, DeploymentResponseGenerator
from mesh.cluster import ray_objects
from mesh.exceptions import MeshException
from mesh.memory.sliced_copy import bytes_of
from mesh.routing.snapshot import DeploymentKey
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.outcome import Outcome, failed, failed_in_user_code
from mesh.wire.payload import STREAM_PLACE, Payload, decode, encode

_NOT_YET_VALUES = (DeploymentResponse, DeploymentResponseGenerator, ray_objects.ObjectRef)
_PLAIN_TYPES = frozenset((str, bytes, int, float, bool, type(None), list, tuple, dict))
"""Types of nearly all arguments: none of them is a response or an object reference."""
PENDING = 1
"""A kind of argument: it has to be waited for."""
STREAM = 2
"""Another: its items are sent one by one."""


class UpstreamError(Exception):
    """An argument's own call failed; carries the outcome for the call it was passed to."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


def survey(arguments: Iterable[object]) -> int:
    """The kinds of arguments that there are, as flags. Raises RuntimeError for streaming responses."""
    found = 0
    for argument in arguments:
        kind = type(argument)
        if kind in _PLAIN_TYPES:
            continue
        if isinstance(argument, DeploymentResponseGenerator):
            raise RuntimeError(
                "Streaming deployment handle results cannot be passed to downstream handle calls. Iterate over the "
                "response and pass its items, one by one or as a stream: (item async for item in response)."
            )
        if isinstance(argument, _NOT_YET_VALUES):
            found |= PENDING
        elif _is_stream(argument):
            found |= STREAM
    return found


def take_stream(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object], object]:
    """The arguments with a mark in the place of the stream, and the stream. Raises TypeError if there are several."""
    streams = [each for each in (*args, *kwargs.values()) if _is_stream(each)]
    if len(streams) > 1:
        raise TypeError("A call has one request stream: pass only one async iterable or generator.")
    marked = tuple(STREAM_PLACE if _is_stream(each) else each for each in args)
    named = {name: STREAM_PLACE if _is_stream(each) else each for name, each in kwargs.items()}
    return marked, named, streams[0]


def _is_stream(argument: object) -> bool:
    kind = type(argument)
    return kind is GeneratorType or (hasattr(kind, "__aiter__") and not isinstance(argument, DeploymentResponse))


class PendingArguments:
    """Arguments, of which some are responses or references that have to be awaited."""

    def __init__(self, target: DeploymentKey, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self._target = target
        self._args = [_begin(argument) for argument in args]
        self._kwargs = {name: _begin(argument) for name, argument in kwargs.items()}

    async def collect(self) -> Payload:
        """Wait for all. On the I/O loop. Raises UpstreamError as soon as one fails."""
        parts = [*self._args, *self._kwargs.values()]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._resolve(part)) for part in parts]
        values = [task.result() for task in tasks]
        count = len(self._args)
        arguments = tuple(values[:count]), dict(zip(self._kwargs, values[count:], strict=True))
        return await run_blocking(Work.ENCODE, encode, arguments, "arguments")

    async def _resolve(self, part: Any) -> _Encoded:
        if isinstance(part, _Encoded):
            return part
        if isinstance(part, DeploymentResponse):
            outcome = await part._future.wait(is_shielded=True)
            if not outcome.is_ok:
                raise UpstreamError(self._blame(part, outcome))
            return _Encoded(outcome.payload or encode(None))
        try:
            value = await asyncio.wrap_future(ray_objects.object_future(part))
        except Exception as error:  # any error of the task that made the object
            raise UpstreamError(await run_blocking(Work.ENCODE, failed_in_user_code, error)) from error
        return _Encoded(await run_blocking(Work.ENCODE, encode, value, "object"))

    def _blame(self, upstream: DeploymentResponse[Any], outcome: Outcome) -> Outcome:
        """A lost replica is reported with both deployments; an exception of user code is passed on unchanged."""
        if outcome.exception_type != "ReplicaUnavailableError":
            return outcome
        error = MeshException(
            f"The call to {self._target} was not sent: its argument, a call to {upstream._future.router.key}, failed: "
            f"{outcome.message}"
        )
        return failed(error)


class _Encoded:
    """A pickled value; unpickling it gives the value itself."""

    def __init__(self, payload: Payload) -> None:
        self.payload = payload

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        payload = self.payload
        if payload.stored is not None:
            return _decoded_stored, (
                bytes_of(payload.data),
                payload.stored.object_id,
                payload.stored.owner,
                payload.stored.status,
            )
        return _decoded, (payload.codec, bytes_of(payload.data), [pickle.PickleBuffer(b) for b in payload.buffers])


def _begin(argument: object) -> object:
    if isinstance(argument, DeploymentResponse | ray_objects.ObjectRef):
        return argument
    return _Encoded(encode(argument, "argument"))


def _decoded(codec: int, data: bytes, buffers: list[Any]) -> Any:
    return decode(Payload(codec, data, [memoryview(buffer) for buffer in buffers]))


def _decoded_stored(data: bytes, object_id: bytes, owner: bytes, status: bytes) -> Any:
    return pickle.loads(data, buffers=ray_objects.load_buffers(ray_objects.StoredObject(object_id, owner, status)))
