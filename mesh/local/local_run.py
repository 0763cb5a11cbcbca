"""The local applications of this process by name: what `mesh.run(..., _local_testing_mode=True)` starts."""

from __future__ import annotations

import threading

from mesh.context import local_replica
from mesh.deployment import Application
from mesh.local.local_application import LocalApplication, living_applications

_lock = threading.Lock()
_running: dict[str, LocalApplication] = {}


def run_local(target: Application, name: str, route_prefix: str | None) -> LocalApplication:
    """Start an application; then it takes the place of the one of the same name, which ends.

    Raises the errors of `LocalApplication`.
    """
    application = LocalApplication(target, name, route_prefix)
    application.start()
    with _lock:
        before = _running.get(name)
        _running[name] = application
    if before is not None:
        before.close()
    return application


def local_application(name: str) -> LocalApplication | None:
    """The application of this name, also of the fixture `mesh_app`.

    While another one starts in its place, code of replicas gets the new one, which may be their own; others do not.
    """
    newest = next((each for each in reversed(living_applications()) if each.name == name), None)
    return newest if local_replica() is not None else _running.get(name, newest)


def local_names() -> list[str]:
    """Of all local applications of this process."""
    return [each.name for each in living_applications()]


def delete_local(name: str) -> bool:
    """End an application. Returns whether there was one."""
    with _lock:
        application = _running.pop(name, None)
    if application is not None:
        application.close()
    return application is not None


def delete_all_local() -> bool:
    """End all applications. Returns whether there was one."""
    return any([delete_local(name) for name in list(_running)])
