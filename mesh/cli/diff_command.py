"""`mesh diff`: what a deployment would change, by its effect, with an exit status for scripts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from mesh.cli.command_errors import ADDRESS_HELP, one_line_errors, require_ray
from mesh.cli.config_commands import not_running_text, planned_changes, planned_gateway_changes
from mesh.cli.run_target import prune_option, read_target, target_options
from mesh.client import mesh_lifecycle
from mesh.client.running_gateways import EFFECT
from mesh.options.deployments.option_effects import Effect
from mesh.v1 import control_pb2

_DIFFERENT = 1

_TITLES = {
    ": deleted": "Removed:",
    ": new": "New:",
    f" ({EFFECT})": "Gateways are replaced, one node at a time:",
    f" ({Effect.REPLACE})": "Replicas are replaced:",
    f" ({Effect.IN_PLACE})": "Replicas adopt it while they serve:",
    f" ({Effect.NONE})": "Nothing restarts:",
}
"""By the end of the line that says what changes."""
_OTHER_TITLE = "Other changes:"


class _UnknownDifferenceError(click.ClickException):
    exit_code = 2


@click.command()
@target_options
@prune_option
@click.option("--address", "-a", help=ADDRESS_HELP)
def diff(**given: Any) -> None:
    """Show what `mesh deploy` of a file or an application would change, and change nothing.

    \b
    mesh diff mesh.yaml                what would be removed, restarted, changed in place
    mesh diff mesh.yaml --prune        as `mesh deploy mesh.yaml --prune` would
    mesh diff shop.app:app             one application

    The code is imported here and compared with what is deployed, so a change in a module shows too.

    The last line names what `mesh deploy` takes to deploy just this: it refuses if one of the applications was
    changed after it was shown.

    The exit status is 0 if nothing would change, 1 if something would, and 2 if that cannot be said, because the file
    has mistakes or no cluster is there.
    """
    try:
        lines = _compared(**given)
    except click.ClickException as error:
        raise _UnknownDifferenceError(error.message) from error
    if lines:
        click.echo("\n".join(lines))
        sys.exit(_DIFFERENT)
    click.echo("Nothing would change.")


@one_line_errors
def _compared(
    target: str, pairs: tuple[str, ...], app_dir: str, prune: bool, address: str | None, **given: Any
) -> list[str]:
    asked = read_target(target, pairs, app_dir, given)
    require_ray(address)
    if mesh_lifecycle.find() is None:
        return [not_running_text(asked)]
    changes = [each for each in planned_changes(asked, prunes=prune) if each.lines]
    lines = [*planned_gateway_changes(asked), *(line for each in changes for line in each.lines)]
    return [*_by_effect(lines), *_advice(changes)]


def _advice(changes: Sequence[control_pb2.ApplicationChange]) -> Iterator[str]:
    if changes:
        expected = " ".join(f"--expect {shlex.quote(f'{each.application}={each.revision}')}" for each in changes)
        yield f"To deploy this only while no one changes it, add {expected}"


def _by_effect(changes: Sequence[str]) -> Iterator[str]:
    """The most drastic first."""
    groups: dict[str, list[str]] = {title: [] for title in (*_TITLES.values(), _OTHER_TITLE)}
    for change in changes:
        end = next((end for end in _TITLES if change.endswith(end)), "")
        groups[_TITLES.get(end, _OTHER_TITLE)].append(change.removesuffix(end))
    for title, members in groups.items():
        if members:
            yield title
            yield from (f"  {member}" for member in members)
