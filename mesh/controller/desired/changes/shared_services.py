"""gRPC services that several applications serve: which of them calls reach that name none. Pure."""

from __future__ import annotations

from mesh.controller.desired.changes.serving_order import servers_by_method
from mesh.v1 import control_pb2

Servers = dict[str, list[str]]
"""The applications that serve a method, the first one first, by its full name."""


def new_warnings(before: control_pb2.DesiredState, after: control_pb2.DesiredState) -> list[str]:
    """A line for users about each service that this change makes several applications serve.

    And one about each whose calls without a name go to another application from now on.
    """
    old, new = _by_service(servers_by_method(before)), _by_service(servers_by_method(after))
    lines = []
    for service, servers in sorted(new.items()):
        known = old.get(service, {})
        if _sharing(servers) - _sharing(known):
            lines.append(_shared_line(service, servers))
        lines += _moved_lines(service, known, servers)
    return lines


def _by_service(servers: Servers) -> dict[str, Servers]:
    services: dict[str, Servers] = {}
    for full_name, apps in servers.items():
        services.setdefault(full_name[1:].rpartition("/")[0], {})[full_name] = apps
    return services


def _sharing(servers: Servers) -> set[str]:
    """The applications that serve a method together with others."""
    return {app for apps in servers.values() if len(apps) > 1 for app in apps}


def _shared_line(service: str, servers: Servers) -> str:
    shared = {full_name: apps for full_name, apps in sorted(servers.items()) if len(apps) > 1}
    first: dict[str, list[str]] = {}
    for full_name, apps in shared.items():
        first.setdefault(apps[0], []).append(full_name.rpartition("/")[2])
    if len(first) == 1:
        (owner,) = first
        others = sorted(_sharing(servers) - {owner})
        which = f"{owner}, which was deployed with it first"
        way = f"Clients reach {', '.join(others)} by the metadata 'application'"
    else:
        which = " and ".join(f"{app} ({', '.join(methods)})" for app, methods in sorted(first.items()))
        which = f"the application that was deployed with their method first: {which}"
        way = "Clients reach the others by the metadata 'application'"
    names = ", ".join(sorted(_sharing(servers)))
    return (
        f"{service} is now served by {names}: calls that name no application go to {which}. {way}, which is the header"
        " of that name over HTTP."
    )


def _moved_lines(service: str, before: Servers, after: Servers) -> list[str]:
    moved: dict[tuple[str, str], list[str]] = {}
    for full_name, apps in sorted(after.items()):
        known = before.get(full_name)
        if known and known[0] != apps[0]:
            moved.setdefault((known[0], apps[0]), []).append(full_name.rpartition("/")[2])
    return [
        f"Calls of {service} ({', '.join(methods)}) that name no application go to {now} from now on: {then} does not"
        " serve them any more."
        for (then, now), methods in moved.items()
    ]
