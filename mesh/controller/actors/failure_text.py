"""The text of a failed actor call for users: first what was raised, then the frames of their own code. Pure."""

from __future__ import annotations

import re

from mesh.usercode.user_failure import PREFIX

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = '  File "'
_OUR_FRAME = re.compile(
    r'  File "(uvloop/'
    r'|.*/(mesh/(replica/\w+|controller/scaling/policy_actor|usercode/user_failure|wire/io_thread)|(concurrent/futures|asyncio)/\w+)\.py")'
)
_PROCESS = re.compile(r"^\s*pid: (\d+)$", re.MULTILINE)
_HOST = re.compile(r"^\s*ip: (\S+)$", re.MULTILINE)
_FACT = re.compile(r"\t(class_name|actor_id|pid|name|namespace|ip): ")
_DIED = "The actor died unexpectedly before finishing this task."
_EXIT_TYPE = re.compile(r"^.*Worker exit type: .*$", re.MULTILINE)
_OUT_OF_MEMORY = ("OUT_OF_MEMORY", "low on memory")
_OUT_OF_MEMORY_TEXT = "Ray killed its process because the node ran out of memory: let it use less, or ask for `memory`."
_HEADERS = ("ray::", "Traceback ")


def readable(text: str) -> str:
    """Reorder Ray's text of an exception, which is a line about the actor, the remote traceback and what was raised.

    Any other text is returned as it is, without colours.
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
    """Reorder Ray's text about a dead actor: first what happened and where to look, then the exit type.

    Without an exit type, as when its node has died, that is one line. Any other text is returned as it is.
    """
    if any(words in text for words in _OUT_OF_MEMORY):
        return f"{_OUT_OF_MEMORY_TEXT}\n{text.strip()}"
    exit_type, process = _EXIT_TYPE.search(text), _PROCESS.search(text)
    if exit_type is None or process is None:
        return _reason(text)
    host = _HOST.search(text)
    where = f"{process[1]} on {host[1]}" if host else process[1]
    return (
        f"Its process exited, crashed or was killed (pid {where}). "
        f"`mesh logs` shows what it logged; output of libraries is in the files *-{process[1]}.* of Ray's logs there.\n"
        f"{exit_type[0].strip()}"
    )


def _reason(text: str) -> str:
    """Without what Ray says of any dead actor: its name, ids and address, which the reader knows."""
    lines = text.strip().splitlines()
    said = [line.strip() for line in lines if line != _DIED and not _FACT.match(line)]
    return " ".join(said) if said and len(said) < len(lines) else text.strip()


def _users_lines(traceback: list[str]) -> list[str]:
    kept: list[str] = []
    is_kept = True
    for line in traceback:
        if not line.startswith("    "):
            is_kept = not line.startswith(_HEADERS) and not _OUR_FRAME.match(line)
        if is_kept:
            kept.append(line)
    return kept
