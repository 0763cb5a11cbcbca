"""The commands for configuration files: deploy one, show the deployed one, write one from code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from mesh import api, application
from mesh.cli import status_text
from mesh.cli.command_errors import ADDRESS_HELP, interruptible_wait, one_line_errors, require_ray
from mesh.cli.gateway_flags import port_option
from mesh.cli.run_target import Target, expected_revisions, prune_option, read_target, target_options
from mesh.client import mesh_lifecycle, port_check, rollout_wait, running_gateways
from mesh.client.control_client import revisions_of
from mesh.declarative.builder_args import parse_pairs, typed_args
from mesh.declarative.import_path import import_attribute, is_builder, load_application
from mesh.declarative.template import BuiltApplication, render
from mesh.options import option_checks
from mesh.options.gateway import gateway_options
from mesh.v1 import control_pb2


@click.command()
@target_options
@click.option("--no-wait", is_flag=True, help="Return when it is stored, without waiting until it runs.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--expect",
    multiple=True,
    metavar="APP=REVISION",
    help="Refuse if the application has another revision than `mesh diff` showed. May be repeated.",
)
@prune_option
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def deploy(target: str, pairs: tuple[str, ...], app_dir: str, no_wait: bool, dry_run: bool, **given: Any) -> None:
    """Deploy a configuration file or an application to a running cluster.

    \b
    mesh deploy mesh.yaml               all applications of the file
    mesh deploy shop.app:app            one application, with the options in its code
    mesh deploy shop.app:build size=3   one that the function `build` returns for these arguments
    mesh deploy mesh.yaml --dry-run     only shows what would change
    mesh deploy mesh.yaml --prune       also deletes the applications of other files
    mesh deploy shop.app:app --name shop --traffic-percent 10
                                        as a canary beside the application shop, for a tenth of its requests

    Deploying a file again updates what changed in the file or the code, and restarts nothing else. Applications that a
    file of this name deployed before, and that are not in it any more, are deleted. Applications of files with other
    names stay unless you say --prune; those that programs deployed always stay. With an import path no other
    application is affected.

    Two people who deploy one application at once do not overwrite each other: the command is refused if another one has
    changed the application since it began, or, with --expect, since `mesh diff` showed what would change.

    Gateways get what `proxy_location`, `http_options` and `grpc_options` of the file say, one node at a time and
    without a failed call; without such a section they stay as they are.

    The mesh is started if the cluster has none. The command returns when everything runs, or with status 1 and the
    reason when something cannot run. Ctrl-C ends the command, not the deployment.
    """
    asked = read_target(target, pairs, app_dir, given)
    prunes = given["prune"]
    require_ray(given["address"])
    if dry_run:
        if mesh_lifecycle.find() is None:
            click.echo(not_running_text(asked))
        else:
            lines = [line for each in planned_changes(asked, prunes=prunes) for line in each.lines]
            lines += planned_gateway_changes(asked)
            click.echo("\n".join(lines) or "Nothing would change.")
        return
    start_mesh(asked)
    client = mesh_lifecycle.require()
    before = client.status()
    expected = revisions_of(before) | (expected_revisions(given["expect"]) if given["expect"] else {})
    others = [each for each in before.applications if _is_of_a_file(each) and each.name not in asked.names]
    changes = client.apply(
        asked.specs(), asked.config_text(prunes=prunes), asked.config.target_capacity, expected=expected
    )
    if asked.text is not None:
        for line in sorted(_fate(each, asked, prunes=prunes) for each in others):
            click.echo(line)
    if no_wait:
        click.echo(f"Stored: {', '.join(asked.names) or 'no application'}.")
        return
    with interruptible_wait("The deployment continues; see `mesh status`."):
        changed = {each.application for each in changes if each.lines}
        follow(asked, [name for name in asked.names if name not in changed])


def not_running_text(asked: Target) -> str:
    return f"No mesh is running. It would be started with {', '.join(asked.names) or 'no application'}."


def planned_changes(asked: Target, *, prunes: bool) -> list[control_pb2.ApplicationChange]:
    """What a deployment would change on the running mesh."""
    config_file = asked.config_text(prunes=prunes)
    return mesh_lifecycle.require().apply(asked.specs(), config_file, asked.config.target_capacity, is_dry_run=True)


def planned_gateway_changes(asked: Target, **ports: Any) -> list[str]:
    """What a deployment would change about the gateways of the running mesh."""
    location, http, grpc, logging, tracing, _ = _start_options(asked, ports)
    return running_gateways.change_lines(mesh_lifecycle.require(), location, http, grpc, logging, tracing)


def _is_of_a_file(app: control_pb2.ApplicationStatus) -> bool:
    return app.deployer == control_pb2.DEPLOYER_FILE


def _fate(app: control_pb2.ApplicationStatus, asked: Target, *, prunes: bool) -> str:
    """Says what happens to an application that an earlier file deployed and that this file does not name."""
    if app.config_name in ("", asked.file_name):
        return f"Deleting {app.name}, which is no longer in the file."
    if prunes:
        return f"Deleting {app.name}, which is of {app.config_name}."
    return f"Keeping {app.name}, which is of {app.config_name}; --prune would delete it."


def start_mesh(asked: Target, **ports: Any) -> None:
    """Start it with the gateway options of the file, which `ports` override. Gateways that run adopt them."""
    if mesh_lifecycle.find() is None:
        click.echo("Starting the mesh ...")
    else:
        for line in planned_gateway_changes(asked, **ports):
            click.echo(line)
    api.start(*_start_options(asked, ports))


def require_free_ports(asked: Target, **ports: Any) -> None:
    """Raises OSError naming a port of the gateways that is taken, where this machine is to be the head of a new Ray.

    `api.start` finds that too, but only once Ray runs.
    """
    port_check.require_free_here(gateway_options.parse(*_start_options(asked, ports)).to_message())


def _start_options(asked: Target, ports: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of `api.start`."""
    config = asked.config
    http = {**config.whole_http_options, **port_option(ports.get("http_port"))}
    grpc = {**config.whole_grpc_options, **port_option(ports.get("grpc_port"))}
    location = ports.get("proxy_location") or config.proxy_location
    return location, http, grpc, config.logging_config, config.tracing_config, config.controller_options


def follow(asked: Target, unchanged: Sequence[str] = (), check: Callable[[], object] = lambda: None) -> None:
    """Show progress until all applications run. Raises RuntimeError with the reasons if some cannot.

    `unchanged`: the names of those that are as they were. `check` is called at each look, and may end the wait.
    """
    client = mesh_lifecycle.require()
    progress = status_text.Progress(click.echo)

    def show(application: control_pb2.ApplicationStatus) -> None:
        check()
        progress(application)

    changed = [name for name in asked.names if name not in unchanged]
    if unchanged:
        click.echo(f"Unchanged: {', '.join(unchanged)}.")
    if changed or not unchanged:
        click.echo(f"Deploying {', '.join(changed) or 'no application'}:")
    rollout_wait.until_all_running(client, asked.names, show)
    if asked.canaries:
        rollout_wait.until_canaries_run(client, asked.canaries)
        click.echo(f"Canaries run: {', '.join(asked.canaries)}. `mesh promote` or `mesh rollback` ends each.")
    for line in status_text.listening_lines(client.status()):
        click.echo(line)


@click.command()
@click.option("--name", help="Show only this application.")
@click.option("--address", "-a", help=ADDRESS_HELP)
@one_line_errors
def config(name: str | None, address: str | None) -> None:
    """Show the configuration file that was deployed last.

    \b
    mesh config                      the whole file
    mesh config --name shop          one application of it

    The text is unchanged, with its comments. It does not contain applications deployed by programs or import paths;
    `mesh status` shows everything that runs.
    """
    require_ray(address)
    text = mesh_lifecycle.require().config_file()
    if text is None:
        raise ValueError("No configuration file was deployed on this mesh. Deploy one with `mesh deploy FILE`.")
    click.echo(text if name is None else _part_of(text, name), nl=False)


def _part_of(text: str, name: str) -> str:
    applications = (yaml.safe_load(text) or {}).get("applications") or []
    found = {each.get("name", "default"): each for each in applications}
    if name not in found:
        advice = option_checks.did_you_mean(name, found)
        raise ValueError(f"The file has no application {name!r}. It has: {', '.join(found) or 'none'}.{advice}")
    return yaml.safe_dump(found[name], sort_keys=False)


@click.command()
@click.argument("words", metavar="MODULE:APP [KEY=VALUE]...", nargs=-1, required=True)
@click.option("--output", "-o", metavar="FILE", help="Write to this file, which must not exist. Default: print.")
@click.option(
    "--app-dir",
    "-d",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    show_default=True,
    help="Directory from which modules are imported.",
)
@one_line_errors
def build(words: tuple[str, ...], output: str | None, app_dir: str) -> None:
    """Write a configuration file from code.

    \b
    mesh build shop.app:app -o mesh.yaml
    mesh build shop.app:build size=3 blog.app:app       two applications, one of them built with arguments

    The file lists every deployment with the options that the code sets, and all other options as comments with their
    defaults. Deploying it unchanged is the same as deploying the code.
    """
    sys.path.insert(0, os.path.abspath(app_dir))
    asked = _with_arguments(words)
    text = render([_built(path, pairs, number, len(asked)) for number, (path, pairs) in enumerate(asked)], output)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with Path(output).open("x") as file:
            file.write(text)
    except FileExistsError as error:
        raise ValueError(f"{output} exists already: remove it, or choose another file.") from error
    click.echo(f"Wrote {output}. Deploy it with `mesh deploy {output}`.")


def _with_arguments(words: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Import paths, each with the KEY=VALUE words that follow it."""
    asked: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" not in word:
            asked.append((word, []))
        elif asked:
            asked[-1][1].append(word)
        else:
            raise ValueError(f"{word!r} must follow the MODULE:APP that it belongs to.")
    return asked


def _built(import_path: str, pairs: list[str], number: int, count: int) -> BuiltApplication:
    target = import_attribute(import_path)
    words = parse_pairs(pairs)
    name = "default" if count == 1 else f"app{number + 1}"
    return BuiltApplication(
        import_path=import_path,
        name=name,
        route_prefix="/" if count == 1 else f"/{name}",
        deployments=application.deployments_of(load_application(import_path, words)),
        is_builder=is_builder(target),
        args=typed_args(target, words) if is_builder(target) else words,
    )
