"""A chat over WebSockets: any number of replicas hold the sockets, and one holds the rooms.

`mesh run examples.apps.chat:app`, then open ws://localhost:8000/rooms/den?name=ada.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

import mesh

web = FastAPI()
UNREAD_MAX = 100
"""Of one member; a member that reads too slowly misses the oldest lines."""


class Rooms:
    def __init__(self) -> None:
        self.members: dict[str, dict[str, asyncio.Queue[str]]] = {}

    async def listen(self, room: str, name: str) -> AsyncIterator[str]:
        """The lines of the others, until the member leaves; one that joins again hears them there."""
        members = self.members.setdefault(room, {})
        lines = members[name] = asyncio.Queue(UNREAD_MAX)
        self.tell(room, name, f"{name} is here")
        try:
            while True:
                yield await lines.get()
        finally:
            if members.get(name) is lines:
                del members[name]
                self.tell(room, name, f"{name} has left")
            if not members:
                self.members.pop(room, None)

    async def say(self, room: str, name: str, text: str) -> None:
        self.tell(room, name, f"{name}: {text}")

    def tell(self, room: str, but: str, line: str) -> None:
        for name, lines in self.members.get(room, {}).items():
            if name != but:
                if lines.full():
                    lines.get_nowait()
                lines.put_nowait(line)

    async def who(self, room: str) -> list[str]:
        return sorted(self.members.get(room, ()))

    async def how_many(self) -> int:
        """Rooms with someone in them."""
        return len(self.members)


@mesh.ingress(web)
class Chat:
    def __init__(self, rooms: mesh.DeploymentHandle) -> None:
        self.rooms = rooms

    @web.get("/rooms/{room}")
    async def who(self, room: str) -> list[str]:
        names: list[str] = await self.rooms.who.remote(room)
        return names

    @web.websocket("/rooms/{room}")
    async def join(self, websocket: WebSocket, room: str, name: str) -> None:
        await websocket.accept()
        lines = self.rooms.options(stream=True).listen.remote(room, name)
        reader = asyncio.create_task(pass_on(lines, websocket))
        try:
            async for text in websocket.iter_text():
                await self.rooms.say.remote(room, name, text)
        except WebSocketDisconnect:
            pass
        finally:
            lines.cancel()
            reader.cancel()


async def pass_on(lines: AsyncIterator[str], websocket: WebSocket) -> None:
    async for line in lines:
        await websocket.send_text(line)


rooms = mesh.deployment(Rooms, max_ongoing_requests=1000)
chat = mesh.deployment(Chat, num_replicas=2, max_ongoing_requests=1000)
app = chat.bind(rooms.bind())
