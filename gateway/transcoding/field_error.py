"""What is wrong with a request that a client sent, and in which field."""

from __future__ import annotations

_ECHO_MAX_CHARS = 60


class FieldError(ValueError):
    """A request that does not fit its message: INVALID_ARGUMENT."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        """A sentence without the name of the field."""
        self.path = path
        """Dotted, with indexes: "order.items[2].count"; empty for the whole message."""
        self.place = ""
        """Which one of several messages it is about, such as "line 2"."""

    def within(self, name: str) -> FieldError:
        """The same error, seen from the message or list that holds the field."""
        separator = "" if not self.path or self.path.startswith("[") else "."
        self.path = f"{name}{separator}{self.path}"
        return self

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.place, self.path, self.problem)))


def echoed(value: object) -> str:
    """What a client sent, as messages show it: short, and on one line."""
    match value:
        case dict():
            return "an object"
        case list():
            return "an array"
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case str():
            return repr(value if len(value) <= _ECHO_MAX_CHARS else value[:_ECHO_MAX_CHARS] + "…")
        case int() if value.bit_length() > 128:
            return "a number with more than 38 digits"
    return repr(value)
