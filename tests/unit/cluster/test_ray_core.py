"""mesh.cluster.ray_core, as far as it needs no cluster: wrong addresses and what of Ray's warnings reaches users."""

import logging
import signal
import socket

import pytest
import ray

from mesh.cluster import ray_core


@pytest.fixture
def init_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that Ray was asked to attach to."""
    calls: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **options: calls.append(address))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return calls


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_without_a_listener_fails_immediately(init_calls: list[str], scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"No Ray cluster answers at {address}: .* Is the address right?"):
            ray_core.attach_ray(address)
    assert not init_calls


def test_an_address_that_answers_and_the_words_of_ray_go_to_ray(init_calls: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        assert ray_core.attach_ray(address)
    assert ray_core.attach_ray("auto")
    assert init_calls == [address, "auto"]


@pytest.mark.usefixtures("init_calls")
def test_a_cluster_that_refuses_may_ask_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at x")

    monkeypatch.setattr(ray, "init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=r"cluster at x\. If .* set RAY_AUTH_MODE=token\."):
            ray_core.attach_ray(address)


@pytest.mark.usefixtures("init_calls")
@pytest.mark.parametrize(("state", "is_shown"), [("enabled", False), ("disabled", True)])
def test_that_ray_is_safe_is_no_warning(caplog: pytest.LogCaptureFixture, state: str, is_shown: bool) -> None:
    ray_core.attach_ray("auto")
    logger = logging.getLogger(ray_core._TOKEN_LOGGER)
    logger.addHandler(caplog.handler)
    try:
        logger.warning("Token authentication is %s for this Ray cluster.", state)
    finally:
        logger.removeHandler(caplog.handler)
    assert bool(caplog.records) is is_shown


def test_an_interrupt_waits_until_ray_has_started(init_calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def start(address: str, **options: object) -> None:
        signal.raise_signal(signal.SIGINT)
        init_calls.append(address)

    monkeypatch.setattr(ray, "init", start)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ray_core.attach_ray("auto")
    assert init_calls == ["auto"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_does_not_wait(init_calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def start(address: str, **options: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        init_calls.append(address)

    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(KeyboardInterrupt):
        ray_core.attach_ray("auto")
    assert not init_calls
