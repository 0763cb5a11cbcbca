"""From the text of a configuration file to a checked `MeshConfig`. No cluster and no user code needed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mesh import application
from mesh.config import DeploymentConfig, with_options
from mesh.declarative import file_schema
from mesh.declarative.error_field import finding, repeated, unknown_field
from mesh.declarative.file_schema import ApplicationEntry, MeshConfig
from mesh.declarative.import_path import parse_import_path
from mesh.declarative.yaml_positions import Finding, Path, Source, read_yaml
from mesh.options import logging_options, option_checks, runtime_env
from mesh.options.deployments import actor_options, autoscaling_policy
from mesh.options.deployments.rollout_policy import traffic_rule
from mesh.options.gateway import gateway_options
from mesh.options.gateway.start_keywords import START_KEYWORDS

T = TypeVar("T")

_URI_FIELDS = ("working_dir", "py_modules")
_TRAFFIC = ("traffic_percent", "traffic_match")
_ADVICE = "list what is to run, or write `applications: []` to delete all that an earlier file named."


def read_config(text: str, name: str) -> tuple[MeshConfig, Source]:
    """Raises ConfigError with all errors in the file called `name`, each with its line and field."""
    source = read_yaml(text, name)
    checker = _Checker()
    config = checker.file(source.data)
    if checker.findings:
        raise source.error(checker.findings)
    return config, source


class _Checker:
    """Continues after an error, so that one run reports all of them."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def file(self, data: Any) -> MeshConfig:
        fields = self._mapping((), {} if data is None else data, file_schema.TOP_FIELDS)
        gateways = self._gateways(fields)
        entries = self._entries(fields, data)
        applications = [self._application(("applications", number), entry) for number, entry in enumerate(entries)]
        self.findings.extend(repeated("name", [each.name for each in applications]))
        capacity = fields.get("target_capacity")
        if capacity is not None:
            self._check(("target_capacity",), lambda: _check_percent("target_capacity", capacity))
        return MeshConfig(**gateways, target_capacity=capacity, applications=tuple(applications))

    def _entries(self, fields: Mapping[str, Any], data: Any) -> list[Any]:
        """An explicit `[]` is required for no application: a truncated or empty file must not delete everything."""
        if fields.get("applications") is not None:
            return self._list(("applications",), fields["applications"])
        if "applications" in fields:
            self.findings.append(Finding(("applications",), f"is empty: {_ADVICE}"))
        elif data is None or (isinstance(data, dict) and not option_checks.did_you_mean("applications", data)):
            self.findings.append(Finding((), f"applications is missing: {_ADVICE}"))
        return []

    def _gateways(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: fields[name] for name in START_KEYWORDS if fields.get(name) is not None}
        for name in [each for each in given if each != "proxy_location"]:
            given[name] = self._mapping((name,), given[name], file_schema.NESTED_FIELDS[name])
        self._try_options((), given, lambda: gateway_options.parse(*map(given.get, START_KEYWORDS)))
        return given

    def _application(self, path: Path, data: Any) -> ApplicationEntry:
        fields = self._mapping(path, data, file_schema.APPLICATION_FIELDS)
        if "import_path" not in fields and isinstance(data, dict):
            self.findings.append(Finding(path, "import_path is missing: write for instance import_path: shop.app:app."))
        checked: dict[str, Any] = {"import_path": fields.get("import_path", "a:b")}
        self._check((*path, "import_path"), lambda: parse_import_path(checked["import_path"]))
        for name, check in (("name", application.checked_name), ("route_prefix", application.checked_route_prefix)):
            if name in fields:
                checked[name] = fields[name]
                self._check((*path, name), lambda check=check, name=name: check(fields[name]))  # type: ignore[misc]
        for name in ("runtime_env", "args"):
            if fields.get(name) is not None:
                checked[name] = self._mapping((*path, name), fields[name], file_schema.NESTED_FIELDS.get(name))
                self._check((*path, name), lambda name=name: json.dumps(fields[name]))  # type: ignore[misc]
        given = {"runtime_env": copy.deepcopy(checked.get("runtime_env", {}))}
        self._try_options(path, given, lambda: runtime_env.checked("runtime_env", given["runtime_env"]))
        self._check_uris((*path, "runtime_env"), checked.get("runtime_env", {}))
        if fields.get("logging_config") is not None:
            name = "logging_config"
            checked[name] = self._mapping((*path, name), fields[name], file_schema.NESTED_FIELDS[name])
            self._try_options(path, {name: dict(checked[name])}, lambda: logging_options.parse(checked[name]))
        if fields.get("autoscaling_policy") is not None:
            checked["autoscaling_policy"] = policy = fields["autoscaling_policy"]
            self._check((*path, "autoscaling_policy"), lambda: autoscaling_policy.parse(policy))
        traffic = {name: fields[name] for name in _TRAFFIC if fields.get(name) is not None}
        checked.update(traffic)
        rule = dict(traffic)
        self._try_options(path, rule, lambda: traffic_rule(*map(rule.get, _TRAFFIC)))
        return ApplicationEntry(**checked, deployments=self._deployments((*path, "deployments"), fields))

    def _deployments(self, path: Path, fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for number, entry in enumerate(
            self._list(path, [] if fields.get("deployments") is None else fields["deployments"])
        ):
            place = (*path, number)
            options = dict(self._mapping(place, entry, ("name", *file_schema.DEPLOYMENT_OPTIONS)))
            name = options.pop("name", None)
            if not isinstance(name, str) or not name:
                self.findings.append(Finding(place, "name is missing: name the deployment that these options are for."))
            elif name in found:
                self.findings.append(Finding((*place, "name"), f"deployment {name!r} is listed twice."))
            else:
                found[name] = options
            self._check_options(place, options)
        return found

    def _check_options(self, path: Path, options: Mapping[str, Any]) -> None:
        known = copy.deepcopy(self._known_fields(path, options))
        self._try_options(path, known, lambda: with_options(DeploymentConfig(), known))

    def _known_fields(self, path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields without unknown ones in the mappings among them, which are added to the findings."""
        known = dict(fields)
        for name in file_schema.NESTED_FIELDS.keys() & fields.keys():
            if isinstance(fields[name], dict):
                inner = self._mapping((*path, name), fields[name], file_schema.NESTED_FIELDS[name])
                known[name] = self._known_fields((*path, name), inner)
        return known

    def _try_options(self, path: Path, given: dict[str, Any], check: Callable[[], object]) -> None:
        """Collect the error of `check` and remove the value that caused it, until `check` passes.

        An error that mentions a field which was removed is a consequence of that, and no finding.
        """
        removed: dict[object, set[str]] = {}
        while True:
            try:
                check()
            except (TypeError, ValueError) as error:
                found = finding(path, given, error)
                steps = found.path[len(path) :]
                words = set(re.findall(r"\w+", str(error)))
                if steps and words & removed.get(steps[0], set()):
                    _remove_mentioned(given, str(steps[0]), words)
                    continue
                self.findings.append(found)
                if not steps:
                    return
                removed.setdefault(steps[0], set()).add(str(steps[-1]))
                _remove(given, steps)
            else:
                return

    def _check_uris(self, path: Path, runtime_env: Mapping[str, Any]) -> None:
        for name in _URI_FIELDS:
            value = runtime_env.get(name, [])
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str) and "://" not in each:
                    message = f"must be a URI that every node can fetch (https://, s3://, gs:// ...), got {each!r}."
                    self.findings.append(Finding((*path, name), message))

    def _check(self, path: Path, check: Callable[[], object]) -> None:
        try:
            check()
        except Exception as error:  # MeshException, TypeError and ValueError, as the checks of the API raise
            found = finding(path[:-1], {str(path[-1]): None}, error)
            self.findings.append(found if found.path != path[:-1] else Finding(path, found.message))

    def _mapping(self, path: Path, value: Any, known: tuple[str, ...] | None = None) -> dict[str, Any]:
        if not isinstance(value, dict):
            advice = " Is a space missing behind a colon?" if isinstance(value, str) and ":" in value else ""
            if not path and value and isinstance(value, list):
                advice = " Write `applications:` above the list."
            self.findings.append(Finding(path, f"must be a mapping of fields to values, got {_shown(value)}.{advice}"))
            return {}
        unknown = [] if known is None else [name for name in value if name not in known]
        self.findings.extend(_misplaced(path, name) or unknown_field(path, name, known or ()) for name in unknown)
        return {name: each for name, each in value.items() if name not in unknown}

    def _list(self, path: Path, value: Any) -> list[Any]:
        if isinstance(value, list):
            return value
        self.findings.append(Finding(path, f"must be a list (lines that begin with '- '), got {_shown(value)}."))
        return []


def _misplaced(path: Path, name: str) -> Finding | None:
    """What is said of a field that belongs further down in the file; None if it does not."""
    if not path and name in file_schema.APPLICATION_FIELDS:
        where = "belongs to an application: write it below `applications:`, beside its import_path."
    elif len(path) in (0, 2) and path[:1] in ((), ("applications",)) and name in file_schema.DEPLOYMENT_OPTIONS:
        where = "is an option of a deployment: write it below `deployments:` of its application, beside `- name: ...`."
    elif path[2:3] == ("deployments",) and len(path) == 4 and name in actor_options.KEYS:
        where = f"is one of ray_actor_options: write `ray_actor_options: {{{name}: ...}}`."
    else:
        return None
    return Finding((*path, name), where, is_about_key=True)


def _remove(given: dict[str, Any], steps: Path) -> None:
    """Remove the value at the end of `steps`, or the last mapping on the way that exists."""
    holder, last = given, steps[0]
    for step in steps[1:]:
        inner = holder[str(last)]
        if not isinstance(inner, dict) or step not in inner:
            break
        holder, last = inner, step
    del holder[str(last)]


def _remove_mentioned(given: dict[str, Any], option: str, words: set[str]) -> None:
    """Remove the fields of the option that are among the words, or the option if it has none of them."""
    inner = given[option]
    mentioned = words & inner.keys() if isinstance(inner, dict) else set()
    for name in mentioned:
        del inner[name]
    if not mentioned:
        del given[option]


def _shown(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else repr(value)


def _check_percent(name: str, value: object) -> None:
    if option_checks.number(name, value) > 100:
        raise ValueError(f"{name} must be at most 100, got {value}.")
