"""Owns how users read of a failed actor call: what was raised comes first, then the frames of their own code. Pure."""

from __future__ import annotations

import re

from mesh.usercode.user_failure import PREFIX

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = '  File "'
_WAY_TO_USER_CODE = re.compile(
    r'  File "(uvloop/'
    r'|.*/(mesh/(replica/\w+|controller/scaling/policy_actor|usercode/user_failure|wire/io_thread)|(concurrent/futures|asyncio)/\w+)\.py")'
)
_PROCESS = re.compile(r"^\s*pid: (\d+)$", re.MULTILINE)
_HOST = re.compile(r"^\s*ip: (\S+)$", re.MULTILINE)
_WAY_OUT = re.compile(r"^.*Worker exit type: .*$", re.MULTILINE)
_OUT_OF_MEMORY = ("OUT_OF_MEMORY", "low on memory")
_STARVED = "Ray killed its process because the node ran out of memory: let it use less, or ask for `memory`."
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
    while raised_at < len(lines) and lines[raised_at].startswith("  "):  # code, carets, "[Previous line repeated ..."
        raised_at += 1
    raised = "\n".join(lines[raised_at:]).removeprefix(PREFIX)
    return "\n".join((raised, *_users_lines(lines[:raised_at])))


def readable_death(text: str) -> str:
    """`text` is what Ray says of an actor that has died. What happened and where to look comes first, then how it died.

    Other texts come back as they are.
    """
    if any(words in text for words in _OUT_OF_MEMORY):
        return f"{_STARVED}\n{text.strip()}"
    way_out, process = _WAY_OUT.search(text), _PROCESS.search(text)
    if way_out is None or process is None:
        return text.strip()
    host = _HOST.search(text)
    where = f"{process[1]} on {host[1]}" if host else process[1]
    return (
        f"Its process exited, crashed or was killed (pid {where}). "
        f"What it wrote is in the files *-{process[1]}.* of Ray's logs there.\n"
        f"{way_out[0].strip()}"
    )


def _users_lines(traceback: list[str]) -> list[str]:
    kept: list[str] = []
    is_kept = True
    for line in traceback:
        if not line.startswith("    "):
            is_kept = not line.startswith(_HEADERS) and not _WAY_TO_USER_CODE.match(line)
        if is_kept:
            kept.append(line)
    return kept
