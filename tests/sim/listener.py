"""Processes on Sync streams in fake time: they keep the snapshots that they hear of, at their pace."""

import asyncio
from collections.abc import Sequence
from enum import Enum, auto

from mesh.controller.report.publisher import Publisher, Subscriber
from mesh.routing.snapshot import DeploymentKey, Snapshot, read_snapshot
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh

_READ_S = 0.02
_LOOK_S = 0.5


class Manner(Enum):
    PROMPT = auto()
    STALLED = auto()
    """It reads nothing for the time being."""
    AWAY = auto()
    """It has closed its stream."""
    VANISHED = auto()
    """With its host: it reads nothing more, and its stream does not end."""


class Listener:
    """One process. It stays with a controller as long as that lives, comes back to the next one, and knows meanwhile
    what it knew before. Every second one can read changes of snapshots.
    """

    def __init__(self, mesh: Mesh, number: int, keys: Sequence[DeploymentKey]) -> None:
        self.manner = Manner.PROMPT
        self.is_behind = False
        """It may not have read all yet though it is prompt."""
        self._mesh = mesh
        self._keys = keys
        self._hello = control_pb2.ProcessHello(
            process_id=f"p{number}", node_id="n1", address=f"n1:{number}", reads_changes=number % 2 == 1
        )
        self.follows: Publisher | None = None
        """That of the controller to which it has a stream."""
        self._snapshots: dict[DeploymentKey, Snapshot] = {}
        self._task = asyncio.create_task(self._listen())

    def __repr__(self) -> str:
        return f"<Listener {self._hello.process_id} {self.manner.name}>"

    @property
    def is_listening(self) -> bool:
        return self.manner is Manner.PROMPT

    @property
    def known(self) -> dict[DeploymentKey, set[str]]:
        """The replicas that it would call."""
        return {
            key: {each.replica_id for each in self._snapshots[key].replicas} if key in self._snapshots else set()
            for key in self._keys
        }

    def may_call(self, key: DeploymentKey, replica_id: str) -> bool:
        """It lists the replica, and has had the time to come back and to read that it should not."""
        return self.is_listening and not self.is_behind and replica_id in self.known.get(key, ())

    def end(self) -> None:
        self._task.cancel()

    async def _listen(self) -> None:
        while True:
            if self.manner is Manner.PROMPT and self._mesh.is_up:
                self.follows = self._mesh.publisher
                await self._follow(self.follows)
                self.follows = None
            await asyncio.sleep(_LOOK_S)

    async def _follow(self, publisher: Publisher) -> None:
        """Until it goes, or the controller has ended."""
        subscriber = publisher.open(self._hello)
        publisher.subscribe(subscriber, self._keys)
        while self._mesh.lives(publisher):
            match self.manner:
                case Manner.PROMPT:
                    await self._read(publisher, subscriber)
                case Manner.STALLED:
                    self.is_behind = True
                    await asyncio.sleep(_LOOK_S)
                case Manner.AWAY:
                    publisher.close(subscriber)
                    self.is_behind = True
                    return
                case Manner.VANISHED:
                    await asyncio.Event().wait()

    async def _read(self, publisher: Publisher, subscriber: Subscriber) -> None:
        try:
            async with asyncio.timeout(_LOOK_S):
                update = await publisher.next_update(subscriber)
        except TimeoutError:
            self.is_behind = False
            return
        # On its way. Only the next call says that it has arrived.
        await asyncio.sleep(_READ_S)
        for message in update.snapshots:
            key = DeploymentKey(message.deployment.app, message.deployment.name)
            if (snapshot := read_snapshot(message, self._snapshots.get(key))) is not None:
                self._snapshots[key] = snapshot
        if not subscriber._stale:
            self.is_behind = False
