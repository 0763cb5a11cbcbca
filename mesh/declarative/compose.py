"""The step from an application's entry in a file to the spec that the controller stores.

Without a runtime environment the user's module is imported in this process, or in a new one if this process may have
imported an older version of it. With one it is imported in a Ray task that has the environment, because its packages
may exist nowhere else. The controller never imports user code.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

from mesh import application
from mesh.application import RunTarget, UnknownDeploymentError
from mesh.cluster import ray_core
from mesh.declarative.builder_args import BadArgsError
from mesh.declarative.content_version import make_version_of, source_digest
from mesh.declarative.error_field import repeated
from mesh.declarative.file_schema import ApplicationEntry, MeshConfig
from mesh.declarative.import_path import load_application
from mesh.declarative.yaml_positions import Finding, Path, Source
from mesh.deployment import Application
from mesh.handle import DeploymentHandle
from mesh.options.deployments.rollout_policy import traffic_rule
from mesh.settings import settings
from mesh.usercode.served_methods import load_servicer_function
from mesh.usercode.user_code import UserCode, pack, unpack
from mesh.v1 import control_pb2

_USERS_ERRORS = (ImportError, TypeError, ValueError)

Say = Callable[[str], object]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the cluster adds to every application."""

    servicer_functions: tuple[Callable[..., Any], ...] = ()
    job_runtime_env: Mapping[str, Any] = field(default_factory=dict)


def named_services(config: MeshConfig, of_mesh: tuple[Callable[..., Any], ...]) -> tuple[Callable[..., Any], ...]:
    """The servicer functions that the mesh will have when the file is deployed: its own, if it says what gRPC does."""
    named = config.whole_grpc_options.get("grpc_servicer_functions")
    return of_mesh if named is None else tuple(load_servicer_function(each) for each in named)


def load(config: MeshConfig, source: Source | None = None) -> list[Application | None]:
    """The applications imported in this process; None for those with a runtime environment. Needs no cluster.

    The servicer functions that the file names are imported too, for their errors, and bound arguments that cannot be
    pickled are refused: a Ray that has to be started takes seconds.

    Raises ConfigError with all errors, each at its place in `source`. Without a source the first error is raised.
    """
    with _Collected(source) as collected:
        for number, function in enumerate(config.grpc_options.get("grpc_servicer_functions", ())):
            collected.servicer_function(number, function)
        loaded = [
            collected.of(number, entry, lambda entry=entry: _loaded(entry))  # type: ignore[misc]
            for number, entry in enumerate(config.applications)
        ]
        # Which prefixes those with a runtime environment claim, only the controller learns in time.
        collected.add(
            repeated(
                "route_prefix",
                [
                    application.claimed_route_prefix(target, entry.route_prefix) if target is not None else None
                    for entry, target in zip(config.applications, loaded, strict=True)
                ],
            )
        )
    return loaded


def compose(
    config: MeshConfig, source: Source | None, loaded: Sequence[Application | None], around: Surroundings, say: Say
) -> list[control_pb2.ApplicationSpec]:
    """One spec for each application. Those that are not `loaded` are imported elsewhere. Raises like `load`."""
    with _Collected(source) as collected:
        specs = [
            collected.of(number, entry, lambda entry=entry, target=target: _composed(entry, target, around, say))  # type: ignore[misc]
            for number, (entry, target) in enumerate(zip(config.applications, loaded, strict=True))
        ]
    return [spec for spec in specs if spec is not None]


def _loaded(entry: ApplicationEntry) -> Application | None:
    if entry.runtime_env:
        return None
    loaded = load_application(entry.import_path, entry.args)
    application.check_arguments(loaded)
    return loaded


def _composed(
    entry: ApplicationEntry, target: Application | None, around: Surroundings, say: Say
) -> control_pb2.ApplicationSpec:
    if target is not None:
        return _build(entry, target, around)
    # Packed, because the other process may not be able to import the modules of these functions.
    functions = pack(UserCode(tuple, servicer_functions=around.servicer_functions))
    request = pickle.dumps((entry, functions, dict(around.job_runtime_env)))
    timeout_s = settings().client.import_timeout_s
    if entry.runtime_env:
        say(f"Importing {entry.import_path} in its runtime environment ...")
        answer = ray_core.run_task(
            "mesh.declarative.compose:_build_elsewhere", (request,), dict(entry.runtime_env), timeout_s
        )
    else:
        answer = _in_new_process(request, timeout_s)
    result = pickle.loads(answer)
    if isinstance(result, Exception):
        raise result
    return control_pb2.ApplicationSpec.FromString(result)


def _in_new_process(request: bytes, timeout_s: float) -> bytes:
    """What `_build_elsewhere` returns in a process with the search path of this one. Raises RuntimeError."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_built, args=(sender, request), name="mesh-import")
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout_s):
            raise RuntimeError(f"Importing the application was not done within {timeout_s:.0f} s.")
        return receiver.recv_bytes()
    except EOFError as error:
        process.join(timeout_s)
        raise RuntimeError(f"The process that imports the application has ended with {process.exitcode}.") from error
    finally:
        receiver.close()
        process.kill()
        process.join()


def _send_built(sender: Connection, request: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits, which then ends this one
    sender.send_bytes(_build_elsewhere(request))


def _build_elsewhere(request: bytes) -> bytes:
    """Runs in the other process. Returns the pickled spec, or the pickled error for the user."""
    entry, functions, job_runtime_env = pickle.loads(request)
    around = Surroundings(servicer_functions=unpack(functions).servicer_functions, job_runtime_env=job_runtime_env)
    try:
        target = load_application(entry.import_path, entry.args)
        result: Any = _build(entry, target, around).SerializeToString()
    except _USERS_ERRORS as error:
        # The class of its cause may exist in this environment only.
        result = error.with_traceback(None)
        result.__cause__ = result.__context__ = None
    return pickle.dumps(result)


def _build(entry: ApplicationEntry, target: Application, around: Surroundings) -> control_pb2.ApplicationSpec:
    recipe = json.dumps([entry.import_path, dict(entry.args), dict(entry.runtime_env)], sort_keys=True)
    rules = application.BuildRules(
        make_handle=DeploymentHandle,
        version_of=make_version_of(recipe.encode()),
        servicer_functions=around.servicer_functions,
        overrides=entry.deployments,
        runtime_env={**around.job_runtime_env, **entry.runtime_env},
    )
    asked = RunTarget(target, entry.name, entry.route_prefix, entry.logging_config, entry.autoscaling_policy)
    spec = application.spec_of(asked, rules)
    for deployment in spec.deployments:
        policy = deployment.options.autoscaling.policy
        if policy.function:
            policy.source_digest = source_digest(policy.function.partition(":")[0])
    traffic = traffic_rule(entry.traffic_percent, entry.traffic_match)
    if traffic is not None:
        spec.traffic.CopyFrom(traffic)
    return spec


class _Collected:
    """Collects the errors of all applications and raises them together at the end."""

    def __init__(self, source: Source | None) -> None:
        self._source = source
        self._findings: list[Finding] = []

    def of(self, number: int, entry: ApplicationEntry, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except (*_USERS_ERRORS, RuntimeError, TimeoutError) as error:
            if self._source is None:
                raise
            self._findings.extend(_findings(("applications", number), entry, error))
            return None

    def add(self, findings: Iterable[Finding]) -> None:
        self._findings.extend(findings)

    def servicer_function(self, number: int, function: object) -> None:
        try:
            load_servicer_function(function)  # type: ignore[arg-type]
        except _USERS_ERRORS as error:
            if self._source is None:
                raise
            self._findings.append(Finding(("grpc_options", "grpc_servicer_functions", number), str(error)))

    def __enter__(self) -> _Collected:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._findings and error is None and self._source is not None:
            raise self._source.error(self._findings)


def _findings(path: Path, entry: ApplicationEntry, error: Exception) -> list[Finding]:
    """The error with the path of the field that caused it."""
    match error:
        case BadArgsError():
            return [Finding((*path, "args", *each.path), each.message, each.is_about_key) for each in error.findings]
        case RuntimeError() | TimeoutError():  # raised by the task, not by user code
            return [Finding((*path, "runtime_env"), str(error))]
        case UnknownDeploymentError():
            number = list(entry.deployments).index(error.deployment)
            return [Finding((*path, "deployments", number, "name"), str(error))]
    return [Finding((*path, "import_path"), str(error))]
