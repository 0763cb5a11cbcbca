"""The local applications of this process by name: what `mesh.run(..., _local_testing_mode=True)` starts."""

from __future__ import annotations

import threading

from mesh.caller import handle_family
from mesh.deployment import Application
from mesh.local.local_application import OWN_APPLICATION, LocalApplication, living_applications
from mesh.local.local_status import status_of
from mesh.status import MeshStatus

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
    """The application of this name: in its own code itself, else that of `run_local`, else the newest of `mesh_app`.

    So code of an application that starts in the place of another one gets the new one, and all others the old one.
    """
    own = OWN_APPLICATION.get()
    if own is not None and own.name == name:
        return own
    return _running.get(name) or next((each for each in reversed(living_applications()) if each.name == name), None)


def local_names() -> list[str]:
    """Names of all local applications of this process."""
    return [each.name for each in living_applications()]


def local_status() -> MeshStatus:
    """The status of all local applications of this process."""
    return status_of(living_applications())


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


handle_family.find_local_routers = local_application
