"""Handles and responses in the ways in which applications of Ray Serve use them."""

import asyncio
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from mesh.cluster import ray_core
from mesh.handle import DeploymentHandle
from mesh.options.default import DEFAULT
from tests.unit.fakes.small_mesh import SmallMesh


def test_local_routing_is_preferred_by_options_and_by_init() -> None:
    """Neither changes the handle that it came from (items 6, 7, C4)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    assert not handle.init_options._prefer_local_routing
    handle._init(_prefer_local_routing=True)
    assert handle.init_options._prefer_local_routing
    assert not handle.options(_prefer_local_routing=False).init_options._prefer_local_routing
    assert handle.options(stream=True).init_options._prefer_local_routing


def test_the_old_switch_warns_and_changes_nothing() -> None:
    """It was for the handles of a release long ago (item 10, C5)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    with pytest.warns(UserWarning, match="use_new_handle_api has no effect"):
        assert handle.options(use_new_handle_api=True)._options == handle._options


def test_a_handle_tells_its_options(mesh: SmallMesh) -> None:
    """The defaults, and what was chosen (items 1, 7)."""
    options = DeploymentHandle[Any]("Store", "shop").handle_options
    assert (options.method_name, options.multiplexed_model_id, options.stream) == ("__call__", "", False)
    assert not options._prefer_local_routing
    chosen = mesh.handle("count", stream=True).handle_options
    assert (chosen.method_name, chosen.stream) == ("count", True)
    assert DeploymentHandle[Any]("Store", "shop", handle_options=chosen).handle_options == chosen


def test_what_is_not_given_is_inherited(mesh: SmallMesh) -> None:
    """`DEFAULT.VALUE` says so; None is a value like any other, and options have names (item 6)."""
    chosen = mesh.handle("count", stream=True, multiplexed_model_id="m", _prefer_local_routing=True)
    same = chosen.options(
        method_name=DEFAULT.VALUE,
        multiplexed_model_id=DEFAULT.VALUE,
        stream=DEFAULT.VALUE,
        use_new_handle_api=DEFAULT.VALUE,
        _prefer_local_routing=DEFAULT.VALUE,
        _source=DEFAULT.VALUE,
    )
    assert same is not chosen
    assert same.handle_options == chosen.handle_options
    with pytest.raises(TypeError, match="method_name"):
        chosen.options(method_name=None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"options\(\) takes method_name, .* by name"):
        chosen.options("count")  # type: ignore[call-overload]


def test_every_name_is_a_method_but_those_of_python(mesh: SmallMesh) -> None:
    """So copies are made as of any object, and work (items 4, 11)."""
    handle = mesh.handle("plain")
    assert hasattr(handle, "anything")
    assert handle.anything.handle_options == handle.options(method_name="anything").handle_options
    assert not any(hasattr(handle, name) for name in ("__len__", "__copy__", "__deepcopy__", "__array__", "__await__"))
    for copied in (copy.copy(handle), copy.deepcopy([handle])[0]):
        assert copied.handle_options == handle.handle_options
        assert copied._router is None


def test_derived_handles_have_one_id() -> None:
    """Another handle of the deployment has another one, also a copy in another process (items 8, 11)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    derived = handle.options(stream=True).count
    assert derived.handle_id == handle.handle_id
    assert handle.handle_id not in ("", DeploymentHandle[Any]("Store", "shop").handle_id)
    assert pickle.loads(pickle.dumps(handle)).handle_id != handle.handle_id


@pytest.mark.parametrize("use", [lambda handle: handle.options(), lambda handle: handle.count, DeploymentHandle._init])
def test_a_handle_is_initialized_by_its_first_use(use: Callable[[DeploymentHandle[Any]], object]) -> None:
    """From then on `_init` raises (items 17, 18)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    assert not handle.is_initialized
    use(handle)
    assert handle.is_initialized
    with pytest.raises(RuntimeError, match="before the first"):
        handle._init()


def test_ways_to_carry_values_are_accepted_and_change_nothing() -> None:
    """All values travel in one encoding, which carries what each of those does (item 19)."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    for name in ("cloudpickle", "pickle", "msgpack", "orjson", "noop"):
        same = handle.options(request_serialization=name, response_serialization=name, _by_reference=False)
        assert same._options == handle._options
    with pytest.raises(ValueError, match=r"request_serialization must be one of cloudpickle, pickle, .*got 'json'"):
        handle.options(request_serialization="json")
    with pytest.raises(TypeError, match="_by_reference must be True or False, got 1"):
        handle.options(_by_reference=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'strem'\. Did you mean 'stream'"):
        handle.options(strem=True)  # type: ignore[call-overload]


def test_a_response_has_its_request_id_and_travels_by_value(mesh: SmallMesh) -> None:
    """Both kinds do (item 41)."""
    for response in (mesh.handle("plain").remote(), mesh.handle("count", stream=True).remote(0)):
        assert response.request_id
        assert response.by_reference is False


def test_ray_client_has_no_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to do instead; other options work (item 9)."""
    monkeypatch.setattr(ray_core, "is_ray_client", lambda: True)
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop")
    with pytest.raises(RuntimeError, match="Streaming DeploymentHandles are not currently supported when connected"):
        handle.options(stream=True)
    assert not handle.options(stream=False)._options.stream


def test_a_stream_is_the_body_of_a_streaming_reply(mesh: SmallMesh) -> None:
    """Starlette takes it as it is (item 51)."""
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        raise AssertionError("nothing is received")

    async def reply() -> None:
        response = StreamingResponse(mesh.handle("large", stream=True).remote(3, 2))
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)

    asyncio.run(reply())
    assert [chunk for chunk in sent if chunk] == [b"\0\0", b"\1\1", b"\2\2"]
