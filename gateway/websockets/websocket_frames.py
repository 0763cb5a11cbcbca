"""The framing of one WebSocket, server's side: bytes in, messages out, and the reverse. Without I/O.

The parser is that of the library `websockets`. It answers pings and closes by itself; what it wants to send is in
`to_send`.
"""

from __future__ import annotations

from codecs import getincrementaldecoder

from websockets.exceptions import ProtocolError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

Message = str | bytes
"""Text or binary."""

_COMPRESSED_MIN_BYTES = 1_024
_COMPRESSED_MAX_BYTES = 256 * 1024
"""To compress a longer one would hold up all requests of the gateway for milliseconds."""
_REASON_MAX_BYTES = 123
_SLICE_MIN_BYTES = 4 * 1024
_SLICE_MAX_BYTES = 64 * 1024
_SLICE_FRAMES_USUAL = 64
_SLICE_SMALL_BYTES = 1024
"""Behind a slice with more frames: each takes the loop some microseconds, and six bytes are one."""
_Utf8Decoder = getincrementaldecoder("utf-8")


class WebSocketFrames:
    """The state of the framing from the handshake on."""

    def __init__(
        self, message_max_bytes: int, deflate: PerMessageDeflate | None = None, decompressed_max_bytes: int = 0
    ) -> None:
        """`decompressed_max_bytes`: of one compressed frame; 0: as much as a message."""
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=message_max_bytes)
        self._extensions: list[Extension] = []
        if deflate is not None:
            self._extensions.append(_LimitedDeflate(deflate, decompressed_max_bytes or message_max_bytes))
        self._protocol.extensions = self._extensions
        self._begun = bytearray()
        """The bytes of a message that comes in fragments."""
        self._is_text = False
        self._decoder = _Utf8Decoder()
        """Checks a text in fragments: what is wrong in one of them ends the socket before the others have come."""
        self._is_closing = False
        """By our side: what the client still sends is not wanted."""
        self._has_failed = False
        """Because of what the client does: nothing behind that is a message."""
        self.received = 0
        """Frames of all kinds."""
        self.slice_bytes = _SLICE_MIN_BYTES
        """As much should be received next in one go: little of what is much work, as compressed bytes may be."""
        self.is_over = False
        """The connection is to be closed, behind what is to be sent."""

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self._protocol.state is State.OPEN

    @property
    def begun_bytes(self) -> int:
        """Bytes that are kept of a message that is not complete."""
        return len(self._begun) + len(self._protocol.reader.buffer)

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason with which the client has closed, or with which it was failed; None: not yet."""
        protocol = self._protocol
        close = protocol.close_rcvd or (protocol.close_sent if self.is_over else None)
        return None if close is None else (int(close.code), close.reason)

    def receive(self, data: bytes) -> list[Message]:
        """The messages that are complete with these bytes; none once we have begun to close.

        If they are wrong, the socket closes and says why.
        """
        self._protocol.receive_data(data)
        messages: list[Message] = []
        events = self._protocol.events_received()
        self.received += len(events)
        if len(events) > _SLICE_FRAMES_USUAL:
            self.slice_bytes = _SLICE_SMALL_BYTES
        else:
            self.slice_bytes = min(4 * self.slice_bytes, _SLICE_MIN_BYTES if self._extensions else _SLICE_MAX_BYTES)
        for event in events:
            if self._has_failed:
                break
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._add(event, messages)
                # The parser keeps the frame until the next one comes.
                event.data = b""
        return [] if self._is_closing else messages

    def encode(self, message: Message) -> bytes:
        """The frame of one message."""
        is_text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        may_compress = _COMPRESSED_MIN_BYTES <= len(data) <= _COMPRESSED_MAX_BYTES
        frame = Frame(Opcode.TEXT if is_text else Opcode.BINARY, data)
        return frame.serialize(mask=False, extensions=self._extensions if may_compress else ())

    def ping(self) -> None:
        if self.is_open:
            self._protocol.send_ping(b"")

    def close(self, code: int, reason: str = "") -> None:
        """Begin to close. A code that may not be on the wire becomes 1000 or 1011."""
        self._is_closing = True
        if self.is_open:
            self._protocol.send_close(sendable_code(code), _cut(reason))

    def fail(self, code: int, reason: str) -> None:
        """End the socket because of what the client does."""
        self._has_failed = True
        self._begun.clear()
        self._protocol.fail(code, reason)

    def drop_begun(self) -> None:
        """The rest of a message that is not complete will not come."""
        self._begun.clear()
        self._protocol.reader.discard()

    def to_send(self) -> list[bytes]:
        """What is to be sent now, without messages."""
        parts = self._protocol.data_to_send()
        if b"" in parts:  # how the library says that the connection is to be closed
            self.is_over = True
        return [part for part in parts if part]

    def _add(self, frame: Frame, messages: list[Message]) -> None:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._complete(bytes(frame.data), messages)
                return
            self._decoder.reset()
        self._begun += frame.data
        if frame.fin:
            data = bytes(self._begun)
            self._begun.clear()
            self._complete(data, messages)
        elif self._is_text:
            try:
                self._decoder.decode(frame.data)
            except UnicodeDecodeError:
                self._fail_text()

    def _complete(self, data: bytes, messages: list[Message]) -> None:
        if not self._is_text:
            messages.append(data)
            return
        try:
            messages.append(data.decode())
        except UnicodeDecodeError:
            self._fail_text()

    def _fail_text(self) -> None:
        self.fail(CloseCode.INVALID_DATA, "a text message is not UTF-8")


class _LimitedDeflate(Extension):
    """The extension with a limit of its own: 16 KB may become 16 MiB, which takes 80 ms of the event loop."""

    def __init__(self, deflate: PerMessageDeflate, max_bytes: int) -> None:
        self.name = deflate.name
        self._deflate = deflate
        self._max_bytes = max_bytes

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        return self._deflate.decode(
            frame, max_size=self._max_bytes if max_size is None else min(max_size, self._max_bytes)
        )

    def encode(self, frame: Frame) -> Frame:
        return self._deflate.encode(frame)


def sendable_code(code: int) -> int:
    """A close code that may be on the wire."""
    if code == CloseCode.NO_STATUS_RCVD:
        return CloseCode.NORMAL_CLOSURE
    try:
        Close(code, "").check()
    except ProtocolError:
        return CloseCode.INTERNAL_ERROR
    return code


def _cut(reason: str) -> str:
    return reason.encode("utf-8", "replace")[:_REASON_MAX_BYTES].decode("utf-8", "ignore")
