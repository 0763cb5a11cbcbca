"""The variable-length integers of protobuf: seven bits a byte, least significant first. Pure."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A non-negative integer as it stands on the wire."""
    if number < 0x80:
        return b"%c" % number
    if number < 0x4000:
        return b"%c%c" % (number & 0x7F | 0x80, number >> 7)
    if number < 0x200000:
        return b"%c%c%c" % (number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14)
    return b"%c%b" % (number & 0x7F | 0x80, varint(number >> 7))


def varint_at(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The integer at `position` and the position behind it.

    Raises IndexError where the data end too early, or for an integer of more than ten bytes.
    """
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    second = data[position + 1]
    if second < 0x80:
        return byte & 0x7F | second << 7, position + 2
    number, shift = byte & 0x7F | (second & 0x7F) << 7, 14
    position += 2
    while shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    raise IndexError("it has more than ten bytes")
