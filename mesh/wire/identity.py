"""`Identity`: the client that a gateway has authenticated, as it travels with its requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.v1 import common_pb2


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls. Not changed once it is made; it is sent to every deployment that works for the request."""

    name: str
    """Unique among clients; limits count by it."""
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What else is known of the client, for instance {"role": "admin"}. Never the credentials themselves."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"the name of an Identity must be a string that is not empty, got {self.name!r}")
        if not isinstance(self.attributes, Mapping) or not all(
            isinstance(each, str) for pair in self.attributes.items() for each in pair
        ):
            raise TypeError(f"the attributes of Identity {self.name!r} must be a dict of strings")

    def write(self, message: common_pb2.Identity) -> None:
        """Fill a protobuf message."""
        message.name = self.name
        message.attributes.update(self.attributes)

    @classmethod
    def read(cls, message: common_pb2.Identity) -> Identity:
        return cls(message.name, dict(message.attributes))
