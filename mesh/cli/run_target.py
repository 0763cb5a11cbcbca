"""The target of `mesh run` and `mesh deploy`: a configuration file, or an import path with arguments."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from mesh.client import mesh_lifecycle
from mesh.client.control_client import ConfigText
from mesh.declarative import compose
from mesh.declarative.builder_args import parse_pairs
from mesh.declarative.config_file import read_config
from mesh.declarative.file_schema import ApplicationEntry, MeshConfig
from mesh.declarative.import_path import parse_import_path
from mesh.declarative.yaml_positions import Source
from mesh.deployment import Application
from mesh.options import runtime_env
from mesh.options.deployments.rollout_policy import traffic_rule
from mesh.v1 import control_pb2

F = TypeVar("F", bound=Callable[..., Any])

_FILE_SUFFIXES = (".yaml", ".yml", ".json")
_TARGET_OPTIONS = (
    "name",
    "route_prefix",
    "runtime_env",
    "runtime_env_json",
    "working_dir_uri",
    "traffic_percent",
    "traffic_match",
)


@dataclass(frozen=True, slots=True)
class Target:
    """The applications to run. Those that are already imported are `loaded`."""

    config: MeshConfig
    loaded: tuple[Application | None, ...]
    source: Source | None = None
    text: str | None = None
    """Text of the file. None, like `source`, for an import path."""
    file_name: str = ""
    """Without directories."""

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.config.applications]

    @property
    def canaries(self) -> list[str]:
        """Names of those that become canaries."""
        applications = self.config.applications
        return [each.name for each in applications if each.traffic_percent is not None or each.traffic_match]

    def config_text(self, *, prunes: bool = False) -> ConfigText | None:
        """The file as it is deployed; None for an import path."""
        return None if self.text is None else ConfigText(self.text, self.file_name, prunes)

    def specs(self) -> list[control_pb2.ApplicationSpec]:
        """The specs for the controller of the running mesh."""
        around = compose.Surroundings(
            servicer_functions=compose.named_services(self.config, mesh_lifecycle.servicer_functions()),
            job_runtime_env=mesh_lifecycle.inherited_runtime_env(),
        )
        return compose.compose(self.config, self.source, self.loaded, around, click.echo)


prune_option = click.option(
    "--prune", is_flag=True, help="Also delete the applications that files with other names deployed."
)


def target_options(command: F) -> F:
    """The arguments and options of commands that take a target."""
    decorators = (
        click.argument("target", metavar="FILE|MODULE:APP"),
        click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]..."),
        click.option("--name", help="Name of the application.  [default: default]"),
        click.option("--route-prefix", help="HTTP path prefix; none: no HTTP.  [default: /]"),
        click.option(
            "--runtime-env",
            type=click.Path(exists=True, dir_okay=False),
            help="YAML file with the Ray runtime environment in which it is imported and runs.",
        ),
        click.option("--runtime-env-json", help="The same as JSON."),
        click.option(
            "--traffic-percent",
            type=click.FloatRange(0, 100),
            help="Run it as a canary beside the application of that name, which gets this share of its requests.",
        ),
        click.option(
            "--traffic-match",
            metavar="NAME=VALUE",
            help="Run it as a canary that gets the requests with this header field or metadata entry.",
        ),
        click.option(
            "--app-dir",
            "-d",
            type=click.Path(exists=True, file_okay=False),
            default=".",
            show_default=True,
            help="Directory from which modules are imported.",
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def read_target(target: str, pairs: tuple[str, ...], app_dir: str, given: dict[str, Any]) -> Target:
    """Read, check and import it before anything is started. Raises errors that say what to correct."""
    sys.path.insert(0, os.path.abspath(app_dir))
    if os.path.isdir(target):
        raise ValueError(f"{target} is a directory: name a configuration file in it, or MODULE:APP.")
    if target.endswith(".py"):
        raise ValueError(f"{target} is code: name the application in it, {_import_path_of(target, app_dir)}.")
    asked = read_target_again(target, pairs, given)
    return replace(asked, loaded=tuple(compose.load(asked.config, asked.source)))


def read_target_again(target: str, pairs: tuple[str, ...], given: dict[str, Any]) -> Target:
    """Read and check it, and import nothing: what is imported in this process may have changed meanwhile."""
    options = {name: given[name] for name in _TARGET_OPTIONS if given.get(name) is not None}
    if is_file(target):
        return _of_file(target, pairs, options)
    parse_import_path(target)
    return Target(MeshConfig(applications=(_entry(target, pairs, options),)), (None,))


def expected_revisions(words: Iterable[str]) -> dict[str, int]:
    """By application, from words APP=REVISION."""
    expected: dict[str, int] = {}
    for word in words:
        name, _, revision = word.rpartition("=")
        if not name or not (revision.isascii() and revision.isdigit()):
            raise ValueError(f"--expect takes APP=REVISION as `mesh diff` prints it, got {word!r}.")
        expected[name] = int(revision)
    return expected


def is_file(target: str) -> bool:
    """Whether it is a configuration file and no import path."""
    return target.endswith(_FILE_SUFFIXES) or os.path.isfile(target)


def _import_path_of(file: str, app_dir: str) -> str:
    """How an application in the file is named, for instance shop.app:app."""
    directory, module = os.path.split(os.path.relpath(file.removesuffix(".py"), app_dir))
    if directory.startswith(os.pardir):
        return f"for instance --app-dir {os.path.dirname(file) or os.curdir} {module}:app"
    return f"for instance {'.'.join(filter(None, (*directory.split(os.sep), module)))}:app"


def _of_file(path: str, pairs: tuple[str, ...], options: dict[str, Any]) -> Target:
    if pairs or options:
        what = [*(f"--{name.removesuffix('_uri').replace('_', '-')}" for name in options), *pairs]
        raise ValueError(f"{what[0]} needs MODULE:APP; for {path} write it into the file.")
    if not os.path.exists(path):
        raise ValueError(f"There is no file {os.path.abspath(path)}.{_similar_file(path)}")
    text = _text_of(path)
    config, source = read_config(text, path)
    return Target(config, (None,) * len(config.applications), source, text, os.path.basename(path))


def _similar_file(path: str) -> str:
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        return ""
    names = [name for name in os.listdir(directory) if name.endswith(_FILE_SUFFIXES)]
    close = difflib.get_close_matches(os.path.basename(path), names, n=1)
    return f" Did you mean {os.path.join(os.path.dirname(path), close[0])!r}?" if close else ""


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}.") from error


def _entry(target: str, pairs: tuple[str, ...], options: dict[str, Any]) -> ApplicationEntry:
    values = {name: options[name] for name in ("name", "route_prefix") if name in options}
    if values.get("route_prefix") == "none":
        values["route_prefix"] = None
    if "traffic_match" in options:
        name, separator, value = options["traffic_match"].partition("=")
        if not separator:
            raise ValueError(f"--traffic-match {name!r} is not NAME=VALUE: write for instance x-canary=1.")
        options["traffic_match"] = {name: value}
    traffic = {name: options[name] for name in ("traffic_percent", "traffic_match") if name in options}
    traffic_rule(traffic.get("traffic_percent"), traffic.get("traffic_match"))
    return ApplicationEntry(
        import_path=target, args=parse_pairs(pairs), runtime_env=_runtime_env(options), **values, **traffic
    )


def _runtime_env(options: dict[str, Any]) -> dict[str, Any]:
    if len(options.keys() & {"runtime_env", "runtime_env_json"}) == 2:
        raise ValueError("--runtime-env and --runtime-env-json exclude each other: give one of them.")
    try:
        if "runtime_env" in options:
            value = yaml.safe_load(_text_of(options["runtime_env"]))
        else:
            value = json.loads(options.get("runtime_env_json", "{}"))
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ValueError(f"The runtime environment cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"The runtime environment must be a mapping, got {value!r}.")
    if "working_dir_uri" in options:
        value["working_dir"] = options["working_dir_uri"]
    return runtime_env.checked("runtime_env", value)
