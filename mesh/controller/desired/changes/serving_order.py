"""The order in which applications were deployed with gRPC methods: a call that names none goes to the first. Pure.

Each method of an ingress has a place in one order of all, which is stored with it. It gets the last place when its
application is deployed with it, and keeps its place while the wanted version of the application has the method, or the
version before that is kept. So a place outlives updates, other ingresses and restarts of the controller; an application
that goes, or no longer serves the method, is behind the others when it comes back. Applications that are deployed in
one step come in the order in which they were named. One that gets another name in one step, as in a file, keeps its
places: one goes, and another one comes with the same ingress and all its methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from mesh.controller.desired.changes.state_edits import ingress_of
from mesh.v1 import control_pb2

Served = tuple[str, str]
"""An application, and the full name of a method that its ingress serves."""

_LAST = 2**64


def set_serving_order(
    changed: control_pb2.DesiredState,
    before: control_pb2.DesiredState,
    restored: control_pb2.DesiredState | None = None,
) -> None:
    """Give each method of `changed` its place. `before`: the state that was changed.

    `restored`: the state of a backup; what was not in `before` comes in the order of that.
    """
    places = _places(before)
    places.update(
        {
            (now, method): places[then, method]
            for then, now in _renamed(before, changed)
            for app, method in list(places)
            if app == then
        }
    )
    saved = _places(restored) if restored is not None else {}
    served = _methods(changed)
    new = sorted((each for each in served if each not in places), key=lambda each: saved.get(each, _LAST))
    start = max(places.values(), default=0) + 1
    places.update({each: place for place, each in enumerate(new, start)})
    for each, methods in served.items():
        for method in methods:
            method.serving_order = places[each]


def servers_by_method(state: control_pb2.DesiredState) -> dict[str, list[str]]:
    """The applications whose wanted version serves a method, the first one first."""
    servers: dict[str, list[tuple[int, str]]] = {}
    for app in state.applications:
        for method in ingress_of(app).grpc_methods:
            servers.setdefault(method.full_name, []).append((method.serving_order, app.name))
    return {full_name: [name for _, name in sorted(places)] for full_name, places in servers.items()}


def _renamed(before: control_pb2.DesiredState, after: control_pb2.DesiredState) -> Iterator[tuple[str, str]]:
    """The former and the present name of applications that have another one."""
    names = {app.name for app in before.applications}, {app.name for app in after.applications}
    gone = [app for app in before.applications if app.name not in names[1]]
    for app in after.applications:
        if app.name not in names[0]:
            known = next((each for each in gone if _continues(app, each)), None)
            if known is not None:
                gone.remove(known)
                yield known.name, app.name


def _continues(app: control_pb2.ApplicationSpec, known: control_pb2.ApplicationSpec) -> bool:
    now, then = ({method.full_name for method in ingress_of(each).grpc_methods} for each in (app, known))
    return app.ingress == known.ingress and bool(then) and then <= now


def _places(state: control_pb2.DesiredState) -> dict[Served, int]:
    """By what has one."""
    return {each: place for each, methods in _methods(state).items() if (place := methods[0].serving_order)}


def _methods(state: control_pb2.DesiredState) -> dict[Served, list[control_pb2.GrpcMethod]]:
    """The methods of the wanted versions, in the order of the state, then those of the versions before."""
    found: dict[Served, list[control_pb2.GrpcMethod]] = {}
    for app in chain(state.applications, state.predecessors):
        for method in ingress_of(app).grpc_methods:
            found.setdefault((app.name, method.full_name), []).append(method)
    return found
