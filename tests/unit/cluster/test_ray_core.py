"""mesh.cluster.ray_core, as far as it needs no cluster: addresses, and what of Ray's warnings reaches users."""

import contextlib
import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

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


@pytest.mark.parametrize("from_environment", [False, True])
def test_ray_gets_an_address_that_was_found_to_be_reachable(
    init_calls: list[str], monkeypatch: pytest.MonkeyPatch, from_environment: bool
) -> None:
    checked: list[str] = []
    monkeypatch.setattr(ray_core, "require_reachable", checked.append)
    if from_environment:
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_core.attach_ray(None if from_environment else "10.0.0.1:6379")
    assert checked == init_calls == ["10.0.0.1:6379"]


def test_the_word_local_finds_no_cluster_and_starts_one(init_calls: list[str]) -> None:
    assert not ray_core.attach_ray("local")
    assert not init_calls
    ray_core.ensure_ray("local")
    assert init_calls == ["local"]


def test_threads_that_attach_at_once_attach_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises in the second of two threads, and the first use of a handle may come from any (item 16)."""
    both = threading.Barrier(2)
    calls: list[str] = []

    def init(address: str, **options: object) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.1)  # for the other one, which must not come
        calls.append(address)

    monkeypatch.setattr(ray, "is_initialized", lambda: bool(calls))
    monkeypatch.setattr(ray, "init", init)
    with ThreadPoolExecutor() as threads:
        list(threads.map(ray_core.ensure_ray, ["local", "local"]))
    assert calls == ["local"]


def test_an_empty_address_is_none(init_calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(ray_core, "is_ray_here", lambda: True)
    assert ray_core.attach_ray()
    assert init_calls == ["auto"]


def test_ray_is_not_asked_for_a_cluster_that_is_not_here(
    init_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_core, "is_ray_here", lambda: False)
    assert not ray_core.attach_ray()
    assert not init_calls


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
