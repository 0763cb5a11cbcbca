"""Owns the commands around configuration files: deploy one, show what was deployed, write one from code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from mesh import api, application
from mesh.cli import status_text
from mesh.cli.command_errors import ADDRESS_HELP, INTERRUPTED, one_line_errors, require_ray
from mesh.cli.run_target import Target, read_target, target_options
from mesh.client import mesh_lifecycle, rollout_wait
from mesh.declarative.builder_args import parse_pairs
from mesh.declarative.import_path import import_attribute, is_builder, load_application
from mesh.declarative.template import BuiltApplication, render
from mesh.options import option_checks


@click.command()
@target_options
@click.option("--no-wait", is_flag=True, help="Return when it is stored, without waiting until it runs.")
@click.option("--address", help=ADDRESS_HELP)
@one_line_errors
def deploy(target: str, pairs: tuple[str, ...], app_dir: str, no_wait: bool, address: str | None, **given: Any) -> None:
    """Bring a running cluster to what a configuration file says.

    \b
    mesh deploy mesh.yaml               all of the file
    mesh deploy shop.app:app            one application, with what its code says
    mesh deploy shop.app:build size=3   one that the function `build` makes of arguments

    Deploying a file again changes what the file or the code have changed, and restarts nothing else. Applications
    that an earlier file named and this one does not are deleted; those that programs deployed are left alone. With
    an import path all other applications are left alone.

    The mesh is started if the cluster has none. Returns when everything runs; with status 1 when something cannot be
    run, and then says why. Ctrl-C ends the waiting and not the deployment.
    """
    asked = read_target(target, pairs, app_dir, given)
    require_ray(address)
    start_mesh(asked)
    specs = asked.specs()
    client = mesh_lifecycle.require()
    obsolete = {each.name for each in client.status().applications if each.is_declarative} - set(asked.names)
    client.apply(specs, asked.text, asked.config.target_capacity)
    if asked.text is not None:
        for name in sorted(obsolete):
            click.echo(f"Deleting {name}, which the file no longer names.")
    if no_wait:
        click.echo(f"Stored: {', '.join(asked.names) or 'no application'}.")
        return
    try:
        follow(asked)
    except KeyboardInterrupt:
        click.echo("\nThe deployment goes on; see `mesh status`.")
        sys.exit(INTERRUPTED)


def start_mesh(asked: Target, **ports: Any) -> None:
    """With the gateways that the file asks for; `ports` win over it."""
    config = asked.config
    http = {**config.http_options, **({} if ports.get("http_port") is None else {"port": ports["http_port"]})}
    grpc = {**config.grpc_options, **({} if ports.get("grpc_port") is None else {"port": ports["grpc_port"]})}
    if mesh_lifecycle.find() is None:
        click.echo("Starting the mesh ...")
    api.start(ports.get("proxy_location") or config.proxy_location, http, grpc)


def follow(asked: Target) -> None:
    """Show what happens until all applications run. Raises RuntimeError with why one does not."""
    client = mesh_lifecycle.require()
    progress = status_text.Progress(click.echo)
    click.echo(f"Deploying {', '.join(asked.names) or 'no application'}:")
    rollout_wait.until_all_running(client, asked.names, progress)
    for line in status_text.listening_lines(client.status()):
        click.echo(line)


@click.command()
@click.option("--name", help="Only the part of this application.")
@click.option("--address", help=ADDRESS_HELP)
@one_line_errors
def config(name: str | None, address: str | None) -> None:
    """Show the configuration file that was deployed last.

    \b
    mesh config                      all of it
    mesh config --name shop          the part of one application

    Word for word, with its comments. What programs and import paths have deployed is not in it; `mesh status` shows
    everything that runs.
    """
    require_ray(address)
    text = mesh_lifecycle.require().config_file()
    if text is None:
        raise ValueError("No configuration file was deployed on this mesh. `mesh deploy FILE` does.")
    click.echo(text if name is None else _part_of(text, name), nl=False)


def _part_of(text: str, name: str) -> str:
    applications = (yaml.safe_load(text) or {}).get("applications") or []
    found = {each.get("name", "default"): each for each in applications}
    if name not in found:
        advice = option_checks.did_you_mean(name, found)
        raise ValueError(f"The file names no application {name!r}. It has: {', '.join(found) or 'none'}.{advice}")
    return yaml.safe_dump(found[name], sort_keys=False)


@click.command()
@click.argument("words", metavar="MODULE:APP [KEY=VALUE]...", nargs=-1, required=True)
@click.option("--output", "-o", metavar="FILE", help="Write to this file, which must not exist. Default: print.")
@click.option(
    "--app-dir",
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

    The file has every deployment of the applications with the options that its code sets, and all others as comments
    with their defaults. Deployed as it is, it runs what the code says.
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
        raise ValueError(f"{output} exists already: remove it, or name another file.") from error
    click.echo(f"Wrote {output}. Deploy it with `mesh deploy {output}`.")


def _with_arguments(words: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Import paths, each with the KEY=VALUE words behind it."""
    asked: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" not in word:
            asked.append((word, []))
        elif asked:
            asked[-1][1].append(word)
        else:
            raise ValueError(f"{word!r} comes before the MODULE:APP that it is for.")
    return asked


def _built(import_path: str, pairs: list[str], number: int, count: int) -> BuiltApplication:
    args = parse_pairs(pairs)
    name = "default" if count == 1 else f"app{number + 1}"
    return BuiltApplication(
        import_path=import_path,
        name=name,
        route_prefix="/" if count == 1 else f"/{name}",
        deployments=application.deployments_of(load_application(import_path, args)),
        is_builder=is_builder(import_attribute(import_path)),
        args=args,
    )
