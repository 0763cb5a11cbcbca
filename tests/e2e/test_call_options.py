"""Options of single calls, by `mesh.CallOptions` and `remote_with`."""

from collections.abc import Iterator
from typing import Any

import pytest

import mesh
from mesh.context import current_request
from mesh.exceptions import DeadlineExceededError
from tests.e2e.conftest import Deploy
from tests.e2e.gate import Gate, small

Handle = mesh.DeploymentHandle[Any]
DEADLINE_S = 20.0


@small(max_ongoing_requests=100)
class Desk:
    """Says what has arrived with a call, and fails two calls of three."""

    def __init__(self, gate: Handle) -> None:
        self._gate = gate
        self._failures = 0

    async def arrived(self, word: str, *, grpc_context: Any, mark: str = "") -> dict[str, Any]:
        request = current_request()
        assert request is not None
        return {
            "word": word + mark,
            "metadata": dict(grpc_context.invocation_metadata()),
            "has deadline": request.remaining_s is not None,
            "tenant": request.tenant,
            "model": request.multiplexed_model_id,
        }

    def spell(self, word: str) -> Iterator[str]:
        yield from f"{word}:{mesh.get_multiplexed_model_id()}"

    async def fail_twice(self) -> int:
        self._failures += 1
        if self._failures % 3:
            raise OSError(f"failure {self._failures}")
        return self._failures

    async def wait_at_gate(self, label: str) -> str:
        """Its own calls have options of their own too."""
        waited: str = await self._gate.wait.remote_with(mesh.CallOptions(timeout_s=0.05), label)
        return waited

    async def remote_with(self, word: str) -> str:
        return f"method of the class: {word}"


@pytest.fixture(scope="module")
def desk(deploy: Deploy) -> Handle:
    return deploy(Desk.bind(Gate.bind()), "call_options")


def test_options_of_a_call_replace_those_of_its_handle_and_of_no_other_call(desk: Handle) -> None:
    """What is not given is the handle's (items 6, 13, 19)."""
    handle = desk.arrived.options(metadata={"a": "1"}, tenant="acme", timeout_s=30, multiplexed_model_id="m")
    options = mesh.CallOptions(metadata={"b": "2"}, timeout_s=None, multiplexed_model_id="")
    own = {"word": "word", "metadata": {"a": "1"}, "has deadline": True, "tenant": "acme", "model": "m"}
    changed = {"word": "word?", "metadata": {"b": "2"}, "has deadline": False, "tenant": "acme", "model": ""}
    for _ in range(2):
        assert handle.remote_with(options, "word", mark="?").result(timeout_s=DEADLINE_S) == changed
        assert handle.remote("word").result(timeout_s=DEADLINE_S) == own


def test_a_stream_has_options_of_its_own(desk: Handle) -> None:
    """The handle says that it is one (items 5, 42)."""
    letters = desk.spell.options(stream=True).remote_with(mesh.CallOptions(multiplexed_model_id="m"), "ox")
    assert "".join(letters) == "ox:m"


def test_a_deadline_of_one_call_ends_it_in_the_code_of_a_replica(desk: Handle) -> None:
    with pytest.raises(DeadlineExceededError):
        desk.wait_at_gate.remote("never opened").result(timeout_s=DEADLINE_S)


def test_one_call_is_retried_and_the_next_is_not(desk: Handle) -> None:
    """As its options say (item 166)."""
    patient = mesh.CallOptions(retry={"attempts": 3, "codes": ["INTERNAL"]})
    assert desk.fail_twice.remote_with(patient).result(timeout_s=DEADLINE_S) == 3
    with pytest.raises(OSError, match="failure 4"):
        desk.fail_twice.remote().result(timeout_s=DEADLINE_S)


def test_responses_of_other_calls_are_arguments(desk: Handle) -> None:
    """As of `remote` (item 29)."""
    options = mesh.CallOptions(tenant="globex")
    found = desk.arrived.remote_with(options, desk.options(method_name="remote_with").remote("word"))
    assert found.result(timeout_s=DEADLINE_S)["word"] == "method of the class: word"


def test_a_method_with_a_name_of_the_handle_s_own_is_called_by_its_name_as_an_option(desk: Handle) -> None:
    """As one that is called `options` or `broadcast` is (item 4)."""
    named = desk.options(method_name="remote_with")
    assert named.remote("a").result(timeout_s=DEADLINE_S) == "method of the class: a"
    options = mesh.CallOptions(timeout_s=DEADLINE_S)
    assert named.remote_with(options, "b").result(timeout_s=DEADLINE_S) == "method of the class: b"
