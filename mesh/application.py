"""The step from a bound `Application` to the `ApplicationSpec` that the controller stores. Pure: needs no cluster."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mesh.config import DeploymentConfig, with_options
from mesh.deployment import Application, Deployment, instead_of
from mesh.exceptions import MeshException
from mesh.options import logging_options, option_checks
from mesh.options.deployments import autoscaling_policy
from mesh.options.deployments.autoscaling_policy import AutoscalingPolicy, PolicyForm
from mesh.options.deployments.option_effects import replica_version
from mesh.options.keyword_advice import with_field_advice
from mesh.options.logging_options import LoggingConfig
from mesh.usercode import user_code
from mesh.usercode.model_id_sources import model_ids_of
from mesh.usercode.served_descriptors import descriptors_of
from mesh.usercode.served_methods import TypedMethod, typed_methods, unwritten_methods
from mesh.usercode.user_code import UserCode
from mesh.v1 import control_pb2
from mesh.web.ingress import ingress_app_of, takes_web_requests

logger = logging.getLogger("mesh")

MakeHandle = Callable[[str, str], object]
"""(deployment name, app name) -> the argument that replaces a nested Application in its caller's constructor."""

VersionOf = Callable[[UserCode, bytes], str]
"""(code of a deployment, the same packed) -> version of the code."""


Pack = Callable[[UserCode, user_code.Replace], bytes]
"""(code of a deployment, what replaces nested Applications in its arguments) -> `DeploymentSpec.code`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRules:
    """What besides the code determines the deployments."""

    make_handle: MakeHandle
    version_of: VersionOf
    """Called for every deployment without a version."""
    pack: Pack = user_code.pack
    servicer_functions: tuple[Callable[..., Any], ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options by deployment; they override those in the code."""
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    """Inherited by every deployment, whose own values override it."""
    logging_config: LoggingConfig | None = None
    """The logs of deployments that have no `logging_config` of their own."""
    autoscaling_policy: AutoscalingPolicy | None = None
    """Decides about all deployments that autoscale and have no policy of their own."""


@with_field_advice
@dataclass(frozen=True, slots=True)
class RunTarget:
    """One application for `run_many`. The fields are the arguments of `run`."""

    target: Application
    name: str = "default"
    route_prefix: str | None = "/"
    logging_config: LoggingConfig | Mapping[str, Any] | None = None
    autoscaling_policy: PolicyForm | None = None


def check_target(asked: RunTarget) -> None:
    """Raises TypeError, ValueError or MeshException for what cannot be run."""
    if not isinstance(asked, RunTarget):
        raise TypeError(f"mesh.run_many takes RunTargets: write mesh.RunTarget(app, name=...), not {asked!r}.")
    if not isinstance(asked.target, Application):
        raise TypeError(
            f"mesh.run takes an application, the result of Deployment.bind(...), not {asked.target!r}."
            f"{instead_of(asked.target)}"
        )
    checked_name(asked.name)
    checked_route_prefix(asked.route_prefix)
    _parsed(asked.logging_config)
    _parsed_policy(asked.autoscaling_policy)


def check_arguments(application: Application) -> None:
    """Raises TypeError for bound arguments that cannot be pickled, also of the applications among them."""
    seen: set[int] = set()

    def visit(value: object) -> object:
        if not isinstance(value, Application):
            return value
        if id(value) not in seen:
            seen.add(id(value))
            user_code.check_arguments(UserCode(value.deployment.func_or_class, value.args, value.kwargs), visit)
        return None

    visit(application)


def spec_of(asked: RunTarget, rules: BuildRules) -> control_pb2.ApplicationSpec:
    """What the controller stores of it. Raises as `build` does."""
    rules = replace(
        rules,
        logging_config=_parsed(asked.logging_config),
        autoscaling_policy=_parsed_policy(asked.autoscaling_policy),
    )
    return build(asked.target, name=asked.name, route_prefix=asked.route_prefix, rules=rules)


def build(
    application: Application, *, name: str, route_prefix: str | None, rules: BuildRules
) -> control_pb2.ApplicationSpec:
    """The spec of `application`, which is the ingress, and of all applications bound below it.

    Raises TypeError for bound arguments that cannot be pickled, ValueError for overrides that do not fit and for too
    large descriptors.
    """
    graph = _Graph(checked_name(name), application, rules)
    ingress = graph.add(application)
    _check_one_asgi(name, graph.deployments)
    _check_overridden(name, rules.overrides, graph.deployments)
    if rules.autoscaling_policy is not None:
        _set_policy(name, rules.autoscaling_policy, graph.specs)
    return control_pb2.ApplicationSpec(
        name=name,
        route_prefix=claimed_route_prefix(application, route_prefix),
        ingress=ingress,
        deployments=graph.specs,
        descriptors=descriptors_of(graph.methods.values(), name),
    )


def _set_policy(name: str, policy: AutoscalingPolicy, specs: Sequence[control_pb2.DeploymentSpec]) -> None:
    scaled = [spec.options.autoscaling for spec in specs if spec.options.HasField("autoscaling")]
    open_to_it = [each for each in scaled if not each.HasField("policy") and not each.is_external]
    if not open_to_it:
        raise ValueError(
            f"Application {name!r} has an autoscaling_policy and no deployment for it: each has a fixed number of "
            "replicas, an external scaler or a policy of its own. Give one an autoscaling_config with its bounds."
        )
    for each in open_to_it:
        each.policy.CopyFrom(policy.to_message(is_of_application=True))


def deployments_of(application: Application) -> dict[str, Deployment]:
    """The deployments of `application` by their unique names, callees before callers."""
    rules = BuildRules(make_handle=lambda name, app: name, version_of=lambda code, packed: "-")
    graph = _Graph("-", application, rules)
    graph.add(application)
    return graph.deployments


def checked_name(name: object) -> str:
    """Raises MeshException for what is not a name of an application."""
    if not isinstance(name, str) or not name:
        advice = "leave it out, or give it one" if name is None else "put it into quotes"
        got = "" if isinstance(name, str) else f", got {name!r}: {advice}"
        raise MeshException(f"Application name must be a non-empty string{got}.")
    return name


def claimed_route_prefix(application: Application, route_prefix: str | None) -> str:
    """The prefix that no other application may have; empty: none.

    `/`, the default, is claimed only by an ingress that HTTP requests can call, so that applications which serve
    nothing but gRPC do not compete for it.
    """
    prefix = checked_route_prefix(route_prefix)
    return "" if prefix == "/" and not takes_web_requests(application.deployment.func_or_class) else prefix


def checked_route_prefix(route_prefix: str | None) -> str:
    """The prefix as the controller stores it; empty: no HTTP."""
    if route_prefix is None:
        return ""
    option_checks.text("route_prefix", route_prefix)
    if not route_prefix.startswith("/"):
        raise ValueError(
            f"route_prefix must start with '/', got {route_prefix!r}. "
            "For no HTTP route write None in Python, null in a file and none on the command line."
        )
    if route_prefix != "/" and route_prefix.endswith("/"):
        raise ValueError(f"route_prefix must not end with '/' unless it is '/', got {route_prefix!r}.")
    if "{" in route_prefix or "}" in route_prefix:
        raise ValueError(f"route_prefix must not contain wildcards, got {route_prefix!r}.")
    return route_prefix


class UnknownDeploymentError(ValueError):
    """Options were given for a deployment that the application does not have."""

    def __init__(self, deployment: str, message: str) -> None:
        super().__init__(message)
        self.deployment = deployment

    def __reduce__(self) -> tuple[Any, ...]:
        return UnknownDeploymentError, (self.deployment, str(self))


class _Graph:
    """Visits each Application once, callees before callers. Equal names are numbered in this order."""

    def __init__(self, app_name: str, ingress: Application, rules: BuildRules) -> None:
        self.specs: list[control_pb2.DeploymentSpec] = []
        self.deployments: dict[str, Deployment] = {}
        self._app_name = app_name
        self._ingress = ingress
        self._rules = rules
        # Keyed by identity: the same object is one deployment, two equal objects are two.
        self._names: dict[int, str] = {}
        self._open: set[int] = set()

    @functools.cached_property
    def methods(self) -> dict[str, TypedMethod]:
        """The gRPC methods of the ingress."""
        if wrong := unwritten_methods(self._ingress.deployment.func_or_class):
            logger.warning("application %r: %s Calls of such methods are UNIMPLEMENTED.", self._app_name, wrong)
        return typed_methods(self._ingress.deployment.func_or_class, self._rules.servicer_functions)

    def add(self, application: Application) -> str:
        """Name of the deployment, unique in the application."""
        key = id(application)
        if key in self._names:
            return self._names[key]
        if key in self._open:
            raise ValueError(f"{application!r} is bound to itself. Deployments must not form a cycle.")
        self._open.add(key)
        callees: set[str] = set()
        code = self._code(application)
        packed = self._rules.pack(code, functools.partial(self._replace, callees))
        name = self._unique_name(application.deployment.name)
        self._names[key] = name
        self.deployments[name] = application.deployment
        version = application.deployment.version or self._rules.version_of(code, packed)
        self.specs.append(self._spec(application, name, version, packed))
        self.specs[-1].callees.extend(sorted(callees))
        return name

    def _replace(self, callees: set[str], value: object) -> object:
        """The handle that replaces an Application argument, whose name is added to `callees`."""
        if not isinstance(value, Application):
            return value
        name = self.add(value)
        callees.add(name)
        return self._rules.make_handle(name, self._app_name)

    def _unique_name(self, wanted: str) -> str:
        taken = set(self._names.values())
        if wanted not in taken:
            return wanted
        number = 1
        while f"{wanted}_{number}" in taken:
            number += 1
        name = f"{wanted}_{number}"
        logger.warning(
            "application %r has several deployments named %r; one of them becomes %r. "
            "Name them with .options(name=...), or bind once and share the result.",
            self._app_name, wanted, name,
        )  # fmt: skip
        return name

    def _code(self, application: Application) -> UserCode:
        return UserCode(
            application.deployment.func_or_class,
            application.args,
            application.kwargs,
            self._rules.servicer_functions if application is self._ingress else (),
        )

    def _spec(self, application: Application, name: str, version: str, packed: bytes) -> control_pb2.DeploymentSpec:
        config = _overridden(name, application.deployment.config, self._rules.overrides.get(name, {}))
        if config.logging_config is None:
            config = replace(config, logging_config=self._rules.logging_config)
        spec = control_pb2.DeploymentSpec(
            name=name,
            version=version,
            options=config.to_message(),
            code=packed,
            grpc_methods=self._grpc_methods(application),
        )
        if application is self._ingress:
            code, asgi = application.deployment.func_or_class, ingress_app_of(application.deployment.func_or_class)
            spec.serves_web = takes_web_requests(code)
            spec.docs_path = asgi.docs_path if asgi is not None else ""
            spec.model_id_paths.extend(model_ids_of(code).paths)
        _inherit_runtime_env(spec.options.actor, self._rules.runtime_env)
        # Computed last, from the complete options.
        spec.version = replica_version(spec)
        return spec

    def _grpc_methods(self, application: Application) -> list[control_pb2.GrpcMethod]:
        if application is not self._ingress:
            return []
        fields = model_ids_of(application.deployment.func_or_class).fields
        return [
            control_pb2.GrpcMethod(
                full_name=method.full_name,
                streams_request=method.streams_request,
                streams_response=method.streams_response,
                is_idempotent=method.is_idempotent,
                model_id_fields=fields.get(method.full_name, ()),
            )
            for method in self.methods.values()
        ]


def _overridden(name: str, config: DeploymentConfig, options: Mapping[str, Any]) -> DeploymentConfig:
    try:
        return with_options(config, options) if options else config
    except (TypeError, ValueError) as error:
        raise type(error)(f"Deployment {name!r}, combined with the options in its code: {error}") from error


def _check_one_asgi(app: str, deployments: Mapping[str, Deployment]) -> None:
    """Only the ingress gets web requests (item 110)."""
    found = {name: ingress_app_of(each.func_or_class) for name, each in deployments.items()}
    asgi = [name for name, each in found.items() if each is not None and not each.is_optional]
    if len(asgi) > 1:
        raise MeshException(
            f"Application {app!r} has several deployments with @mesh.ingress: {', '.join(asgi)}. Only the one that "
            "mesh.run() gets can serve web requests: take the decorator off the others, and call them by their handles."
        )


def _check_overridden(app: str, overrides: Mapping[str, object], deployments: Mapping[str, Deployment]) -> None:
    for name in overrides:
        if name not in deployments:
            advice = option_checks.did_you_mean(name, deployments)
            raise UnknownDeploymentError(
                name, f"Deployment {name!r} does not exist: application {app!r} has {', '.join(deployments)}.{advice}"
            )


def _inherit_runtime_env(actor: control_pb2.ActorOptions, inherited: Mapping[str, Any]) -> None:
    if not inherited:
        return
    own = json.loads(actor.runtime_env_json or "{}")
    merged = {**inherited, **own}
    if "env_vars" in inherited and "env_vars" in own:
        merged["env_vars"] = {**inherited["env_vars"], **own["env_vars"]}
    actor.runtime_env_json = json.dumps(merged)


def _parsed(config: LoggingConfig | Mapping[str, Any] | None) -> LoggingConfig | None:
    return None if config is None else logging_options.parse(config)


def _parsed_policy(policy: PolicyForm | None) -> AutoscalingPolicy | None:
    return None if policy is None else autoscaling_policy.parse(policy)
