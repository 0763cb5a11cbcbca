"""Owns how users read of a failed actor call: what was raised comes first, then the frames of their own code. Pure."""

from __future__ import annotations

import re

from mesh.user_failure import PREFIX

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = '  File "'
_WAY_TO_USER_CODE = re.compile(
    r'  File ".*/(mesh/(replica/\w+|policy_actor|user_failure)|(concurrent/futures|asyncio)/\w+)\.py"'
)
_HEADERS = ("ray::", "Traceback ")


def readable(text: str) -> str:
    """`text` is what Ray makes of an exception: a line about the actor, the remote traceback, and last what was raised.

    Other texts come back as they are, without colours.
    """
    lines = _COLOUR.sub("", text).strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(_FRAME)]
    if not frames:
        return "\n".join(lines)
    raised_at = frames[-1] + 1
    while raised_at < len(lines) and lines[raised_at].startswith("    "):
        raised_at += 1
    raised = "\n".join(lines[raised_at:]).removeprefix(PREFIX)
    return "\n".join((raised, *_users_lines(lines[:raised_at])))


def _users_lines(traceback: list[str]) -> list[str]:
    kept: list[str] = []
    is_kept = True
    for line in traceback:
        if not line.startswith("    "):
            is_kept = not line.startswith(_HEADERS) and not _WAY_TO_USER_CODE.match(line)
        if is_kept:
            kept.append(line)
    return kept
