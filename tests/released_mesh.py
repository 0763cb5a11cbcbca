"""What an earlier version of the mesh speaks and stores, recorded, so that later versions are tested against it.

`python -m tests.released_mesh NAME` records the version in this directory as tests/released/NAME: its .proto files as a
descriptor set, the methods of its actors, and the entries of the key-value store that its controller has made of a
small mesh. Record each version that runs somewhere before its successor changes a message, and keep those that may
still be upgraded from.
"""

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.message import Message

from gateway.gateway_actor import GatewayActor
from mesh.cluster.keys import GATEWAY_PREFIX, POLICY_PREFIX, REPLICA_PREFIX
from mesh.controller.control_servicer import ControlServicer
from mesh.controller.event_log import EventLog
from mesh.controller.scaling.policy_actor import PolicyActor
from mesh.replica.replica_actor import ReplicaActor
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.unit.controller.builders import application
from tests.unit.controller.servicer_context import IDENTITY, Context

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "released"
_PROTOS, _METHODS, _STORED = "protos.binpb", "methods.json", "stored.json"
_ACTORS = {REPLICA_PREFIX: ReplicaActor, GATEWAY_PREFIX: GatewayActor, POLICY_PREFIX: PolicyActor}


@dataclass(frozen=True)
class Release:
    """One recorded version."""

    name: str

    @cached_property
    def files(self) -> descriptor_pb2.FileDescriptorSet:
        return descriptor_pb2.FileDescriptorSet.FromString((FOLDER / self.name / _PROTOS).read_bytes())

    @cached_property
    def pool(self) -> descriptor_pool.DescriptorPool:
        pool = descriptor_pool.DescriptorPool()
        for file in self.files.file:
            pool.Add(file)
        return pool

    def described_files(self) -> list[FileDescriptor]:
        return [self.pool.FindFileByName(file.name) for file in self.files.file]

    def messages(self) -> Iterator[Descriptor]:
        """Of all files, nested ones too."""
        for file in self.described_files():
            for message in file.message_types_by_name.values():
                yield from _with_nested(message)

    def passed_on(self, message: Message) -> Any:
        """`message` as it reaches us through a program of that version, which keeps what it knows."""
        released = self.new(message.DESCRIPTOR.full_name)
        released.ParseFromString(message.SerializeToString())
        released.DiscardUnknownFields()
        return type(message).FromString(released.SerializeToString())

    def new(self, full_name: str) -> Message:
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(full_name))()

    @cached_property
    def methods(self) -> dict[str, list[str]]:
        """Those of its actors that a controller may call, by the prefix of their names."""
        methods: dict[str, list[str]] = json.loads((FOLDER / self.name / _METHODS).read_text())
        return methods

    def stored(self) -> dict[str, bytes]:
        """The key-value store that its controller has left."""
        entries = json.loads((FOLDER / self.name / _STORED).read_text())
        return {key: base64.b64decode(value) for key, value in entries.items()}


RELEASES = [Release(path.name) for path in sorted(FOLDER.iterdir())] if FOLDER.exists() else []


def _with_nested(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for nested in message.nested_types:
        yield from _with_nested(nested)


def record(name: str) -> None:
    folder = FOLDER / name
    folder.mkdir(parents=True)
    (folder / _PROTOS).write_bytes(_present_protos())
    methods = {prefix: [each for each in vars(actor) if each[0] != "_"] for prefix, actor in _ACTORS.items()}
    (folder / _METHODS).write_text(json.dumps(methods, indent=1) + "\n")
    entries = {key: base64.b64encode(value).decode() for key, value in sorted(run_in_fake_time(_stored_here()).items())}
    (folder / _STORED).write_text(json.dumps(entries, indent=1) + "\n")


def _present_protos() -> bytes:
    files = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos" / "mesh" / "v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "all.binpb"
        command = [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", f"--descriptor_set_out={output}", *files]
        subprocess.run([*command, "--include_imports"], cwd=ROOT, check=True, timeout=60)
        return output.read_bytes()


async def _stored_here() -> dict[str, bytes]:
    """An application whose update fails, one that was updated, with a canary and a pause, and one that scales."""
    mesh = Mesh(seed=1)
    mesh.cluster.broken_versions = {"failed-o"}
    await mesh.boot()
    servicer = ControlServicer(mesh.loop, mesh.publisher, lambda: 12.5, IDENTITY, EventLog(lambda: 12.5))

    async def deploy(*applications: Any, config_file: str | None = None) -> None:
        request = control_pb2.ApplyRequest(applications=applications, config_file=config_file, author="ann@host")
        await servicer.Apply(request, Context())

    scaling = control_pb2.AutoscalingOptions(
        min_replicas=1, max_replicas=9, target_ongoing_requests=1.0, is_external=True
    )
    await deploy(application("failing", "good-o"), application("updated", "one-o", 3), config_file="the file")
    await deploy(application("scaled", "only-o", 1, scaling))
    await mesh.until(lambda: len(mesh.cluster.serving()) == 6)
    await mesh.until(lambda: all(spec.is_proven for app in mesh.stored().applications for spec in app.deployments))
    await deploy(application("failing", "failed-o"), application("updated", "two-o", 3))
    await mesh.until(lambda: len(mesh.cluster.serving("two-o")) == 3 and not mesh.cluster.serving("one-o"))
    await mesh.until(lambda: [app.name for app in mesh.stored().predecessors] == ["failing"])
    canary = application("updated", "canary-o", 3)
    canary.traffic.percent = 25.0
    await deploy(canary)
    number = control_pb2.ScaleRequest(application="scaled", deployment="Model", num_replicas=4, request_id="scale")
    await servicer.Scale(number, Context())
    await servicer.Pause(control_pb2.PauseRequest(application="updated", is_paused=True), Context())
    await mesh.until(lambda: len(mesh.cluster.serving("canary-o")) == 1 and len(mesh.cluster.serving("only-o")) == 4)
    await mesh.crash()
    return mesh.kv.entries


if __name__ == "__main__":
    record(sys.argv[1])
