"""Fakes of the cluster and of the controller, for tests of the public functions and the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mesh import api
from mesh.client import mesh_lifecycle, port_check
from mesh.client.control_client import ConfigText, RunOwner
from mesh.client.ray_guard import RayGuard
from mesh.cluster import ray_core, ray_watch
from mesh.cluster.keys import CONTROLLER_NAME
from mesh.controller.desired.changes.change_text import changes_by_application
from mesh.exceptions import MeshException
from mesh.settings import Settings, settings
from mesh.v1 import control_pb2


def client_settings(**changes: float) -> Settings:
    """The settings of this process with other ones for API calls."""
    return replace(settings(), client=replace(settings().client, **changes))  # type: ignore[arg-type]


class FakeController:
    """Answers like a ControlClient, at once and from memory."""

    def __init__(self, options: control_pb2.GatewayOptions | None = None) -> None:
        self.reply = control_pb2.StatusReply(gateway_options=options)
        self.deployed: list[control_pb2.ApplicationSpec] = []
        self.on_status: Callable[[control_pb2.StatusReply], None] = lambda reply: None
        self.deploy_result = ("RUNNING", "")
        self.is_closed = False
        self.target_capacity: float | None = None
        self._config_file: str | None = None
        self.history_reply = control_pb2.HistoryReply()
        self.rolled_back: list[str] = []
        self.scaled: list[tuple[str, str, int]] = []
        self.promoted: list[str] = []
        self.pauses: list[tuple[str, str, bool]] = []
        self.backup_reply = control_pb2.MeshBackup()
        self.restored: list[tuple[control_pb2.MeshBackup, bool, bool]] = []
        """With `may_replace` and `is_dry_run`."""
        self.expected: list[Mapping[str, int] | None] = []
        """What changes came with."""
        self.event_list: list[control_pb2.Event] = []
        self.cordoned: list[tuple[str, bool]] = []
        self.uncordoned: list[str] = []

    def deploy(self, application: control_pb2.ApplicationSpec) -> None:
        self.deployed.append(application)
        status, message = self.deploy_result
        self.add(
            application.name, status, message, application.ingress, [each.name for each in application.deployments]
        )

    def apply(
        self,
        applications: Sequence[control_pb2.ApplicationSpec],
        config_file: ConfigText | None = None,
        target_capacity: float | None = None,
        run: RunOwner | None = None,
        is_dry_run: bool = False,
        expected: Mapping[str, int] | None = None,
    ) -> list[control_pb2.ApplicationChange]:
        self.expected.append(expected)
        before = control_pb2.DesiredState(applications=self.deployed)
        after = control_pb2.DesiredState(applications=[*self.deployed, *applications])
        changes = [
            control_pb2.ApplicationChange(application=name, lines=lines, revision=7)
            for name, lines in changes_by_application(before, after).items()
        ]
        if is_dry_run:
            return changes
        run_id = run.run_id if run is not None else ""
        taken = {each.name for each in self.reply.applications if each.run_id != run_id}
        if run is not None and not run.may_replace and taken & {each.name for each in applications}:
            raise MeshException("The mesh runs it already: add --replace.")
        if config_file is not None or target_capacity is not None:
            self.target_capacity = target_capacity
        if config_file is not None:
            from_files = [each for each in self.reply.applications if each.deployer == control_pb2.DEPLOYER_FILE]
            for app in from_files:
                if config_file.prunes or app.config_name == config_file.name:
                    self.delete(app.name)
            self._config_file = config_file.text
        for application in applications:
            self.deploy(application)
            deployer = control_pb2.DEPLOYER_PROGRAM if config_file is None else control_pb2.DEPLOYER_FILE
            self.reply.applications[-1].deployer = control_pb2.DEPLOYER_RUN if run_id else deployer
            self.reply.applications[-1].run_id = run_id
            self.reply.applications[-1].config_name = config_file.name if config_file is not None else ""
        return changes

    def configure_gateways(self, options: control_pb2.GatewayOptions, expected: control_pb2.GatewayOptions) -> None:
        if self.reply.gateway_options != expected:
            raise MeshException("Call again to change them.")
        self.reply.gateway_options.CopyFrom(options)
        self.reply.gateways_revision += 1
        for gateway in self.reply.gateways:
            gateway.revision += 1

    def rollback(
        self, application: str, is_dry_run: bool = False, expected: Mapping[str, int] | None = None
    ) -> list[control_pb2.ApplicationChange]:
        self.expected.append(expected)
        if not self.history_reply.HasField("rollback_unix_time_s"):
            raise MeshException(f"Application {application!r} has no version to go back to.")
        if not is_dry_run:
            self.rolled_back.append(application)
        return [control_pb2.ApplicationChange(application=application, lines=[f"{application}/Front: code"])]

    def promote(
        self, application: str, is_dry_run: bool = False, expected: Mapping[str, int] | None = None
    ) -> list[control_pb2.ApplicationChange]:
        self.expected.append(expected)
        if not is_dry_run:
            self.promoted.append(application)
        return [control_pb2.ApplicationChange(application=application, lines=[f"{application}: canary ended"])]

    def backup(self) -> control_pb2.MeshBackup:
        return self.backup_reply

    def restore(
        self,
        backup: control_pb2.MeshBackup,
        *,
        may_replace: bool = False,
        is_dry_run: bool = False,
        expected: Mapping[str, int] | None = None,
    ) -> list[control_pb2.ApplicationChange]:
        self.expected.append(expected)
        self.restored.append((backup, may_replace, is_dry_run))
        return [
            control_pb2.ApplicationChange(application=app.name, lines=[f"{app.name}: new"])
            for app in backup.state.applications
        ]

    def cordon(self, node: str, *, is_draining: bool = False) -> control_pb2.CordonReply:
        self.cordoned.append((node, is_draining))
        return self._set_node(node, "DRAINING" if is_draining else "CORDONED")

    def uncordon(self, node: str) -> control_pb2.CordonReply:
        self.uncordoned.append(node)
        return self._set_node(node, "READY")

    def _set_node(self, name: str, status: str) -> control_pb2.CordonReply:
        found = next((each for each in self.reply.nodes if name in (each.node_id, each.address)), None)
        if found is None:
            raise MeshException(f"There is no node {name!r}.")
        is_new, found.status = found.status != status, status
        return control_pb2.CordonReply(node=found, is_new=is_new)

    def events(self, after: int = 0) -> list[control_pb2.Event]:
        return [event for event in self.event_list if event.number > after]

    def scale(
        self,
        application: str,
        deployment: str,
        num_replicas: int = 0,
        change: int = 0,
        expected: Mapping[str, int] | None = None,
    ) -> list[control_pb2.ApplicationChange]:
        self.expected.append(expected)
        self.scaled.append((application, deployment, change or num_replicas))
        return [control_pb2.ApplicationChange(application=application, lines=[f"{application}/{deployment}: more"])]

    def pause(
        self, application: str, deployment: str, *, is_paused: bool, expected: Mapping[str, int] | None = None
    ) -> list[control_pb2.ApplicationChange]:
        self.expected.append(expected)
        self.pauses.append((application, deployment, is_paused))
        return [control_pb2.ApplicationChange(application=application, lines=["rollouts stand still"])]

    def history(self, application: str) -> control_pb2.HistoryReply:
        return self.history_reply

    def config_file(self) -> str | None:
        return self._config_file

    def add(
        self, name: str, status: str, message: str = "", ingress: str = "", deployments: list[str] | None = None
    ) -> None:
        self.delete(name)
        deployment_statuses = [
            control_pb2.DeploymentStatus(name=each, status="HEALTHY", target_replicas=1) for each in deployments or []
        ]
        self.reply.applications.add(
            name=name, status=status, message=message, ingress=ingress, deployments=deployment_statuses
        )

    def delete(self, application: str, run_id: str = "", expected: Mapping[str, int] | None = None) -> None:
        self.expected.append(expected)
        left = [each for each in self.reply.applications if each.name != application or run_id not in ("", each.run_id)]
        del self.reply.applications[:]
        self.reply.applications.extend(left)

    def status(self, *applications: str) -> control_pb2.StatusReply:
        self.on_status(self.reply)
        return self.reply

    def shutdown(self, mesh_id: bytes = b"", expected: Mapping[str, int] | None = None) -> None:
        self.expected.append(expected)
        del self.reply.applications[:]
        del self.reply.gateways[:]

    def close(self) -> None:
        self.is_closed = True


class FakeActor:
    """Its method `ready` answers at once."""

    def __init__(self) -> None:
        self.ready = self

    def remote(self) -> None:
        return None


@dataclass
class FakeCluster:
    """Stands for Ray: a KV and named actors."""

    controller: FakeController = field(default_factory=FakeController)
    is_there: bool = True
    kv: dict[str, bytes] = field(default_factory=dict)
    actors: dict[str, FakeActor] = field(default_factory=dict)
    job_runtime_env: dict[str, Any] = field(default_factory=dict)
    is_owned: bool = False
    """This process has started it."""

    def run_controller(self, options: control_pb2.GatewayOptions | None = None) -> FakeController:
        """As if the mesh had been started before."""
        self.controller = FakeController(options)
        if self.controller.reply.gateway_options.location != control_pb2.GATEWAY_LOCATION_DISABLED:
            self.controller.reply.gateways.add(node_id="n1", status="HEALTHY", grpc_address="h:9000")
        self.actors[CONTROLLER_NAME] = FakeActor()
        return self.controller

    def attach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of Ray and of the control client, of which handles that were looked up before know nothing."""
        api._handle.cache_clear()
        stand_ins: dict[str, Callable[..., Any]] = {
            "attach_ray": self._attach,
            "ensure_ray": self._ensure,
            "is_connected": lambda: self.is_there,
            "find_actor": self.actors.get,
            "list_actor_names": lambda: list(self.actors),
            "kill_actor": self._kill,
            "list_nodes": lambda: [],
            "node_id": lambda: "n1",
            "spawn_actor": self._spawn,
            "get_object": lambda reference, timeout_s=None: reference,
            "job_runtime_env": lambda: self.job_runtime_env,
            "kv_put": self._kv_put,
            "kv_get": self.kv.get,
            "kv_delete": self.kv.pop,
            "kv_keys": lambda prefix: [key for key in self.kv if key.startswith(prefix)],
        }
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(ray_core, name, stand_in)
        monkeypatch.setattr(ray_watch, "owns_ray", lambda: self.is_owned)
        monkeypatch.setattr(RayGuard, "_run", lambda guard: None)
        monkeypatch.setattr(mesh_lifecycle, "_client", lambda: self.controller)
        monkeypatch.setattr(port_check, "_is_free", lambda host, port: True)

    def _attach(self, address: str | None = None, **job: Any) -> bool:
        self.job_runtime_env = job.get("runtime_env", self.job_runtime_env)
        return self.is_there

    def _ensure(self, address: str | None = None, **job: Any) -> None:
        self.is_owned = self.is_owned or not self.is_there
        self.is_there = True

    def _spawn(self, import_path: str, arguments: tuple[bytes, ...], *, name: str, **options: Any) -> FakeActor:
        if not (options.get("get_if_exists") and name in self.actors):
            self.run_controller(control_pb2.GatewayOptions.FromString(arguments[0]))
        return self.actors[name]

    def _kill(self, actor: FakeActor) -> None:
        for name in [name for name, each in self.actors.items() if each is actor]:
            del self.actors[name]

    def _kv_put(self, key: str, value: bytes, *, overwrite: bool = True) -> bool:
        if not overwrite and key in self.kv:
            return False
        self.kv[key] = value
        return True
