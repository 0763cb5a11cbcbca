"""A change of the desired state that is refused."""

from __future__ import annotations

import grpc


class InvalidChangeError(Exception):
    """The change makes no sense; `code` is what the caller gets."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
