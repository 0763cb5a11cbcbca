"""README.md and docs/: what they say exists exists. Their Python is run by tests/e2e/test_docs.py."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from mesh.cli import main
from mesh.declarative.config_file import read_config
from mesh.defaults.control_settings import ClientSettings
from mesh.options.gateway import gateway_options
from mesh.status import ApplicationStatus, DeploymentStatus, GatewayStatus, NodeStatus, ReplicaState
from tests import documents
from tests.documents import DOCUMENTS, OPERATIONS, ROOT

STALE = "write the tables again: python -m tests.documents"
_LINK = re.compile(r"\]\(([^)#:]+)\)")
_ANCHOR = re.compile(r"\]\(([^)#:]*)#([^)]+)\)")
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!\.\.)(?<=\w)[.!?] +(?=[A-Z0-9])")
_PATH = re.compile(r"`((?:mesh|gateway|protos|examples|benchmarks|tests|docs)/[\w./]*)`")


@pytest.mark.parametrize(
    ("block", "command"), [pytest.param(*each, id=each[1]) for each in documents.commands()]
)  # fmt: skip
def test_every_command_exists(block: documents.Block, command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    elif words[0].endswith("mesh"):
        assert_is_mesh_command(words[1:])
    elif words[0].endswith("python"):
        assert words[1] == "-m"
        assert words[2] in ("pip", "pytest") or (ROOT / f"{words[2].replace('.', '/')}.py").exists()
        assert [word for word in words[3:] if word.startswith("tests/") and not (ROOT / word).exists()] == []
    elif words[0] == "docker":
        assert words[1] in ("build", "run")
    else:
        assert words[0] in ("curl", "git", "py-spy"), f"{block.document.name}:{block.line}: no test knows {command!r}"


def assert_is_mesh_command(words: list[str]) -> None:
    """As click parses it, without running it."""
    if words[0].startswith("-"):
        main.main.make_context("mesh", words[:1], resilient_parsing=True)
        words = words[1:]
    command = main.main.commands[words[0]]
    if "--help" not in words:
        parser = command.make_parser(click.Context(command))
        _, rest, _ = parser.parse_args(words[1:])
        assert not rest


def test_the_unit_for_systemd_drains(tmp_path: Path) -> None:
    """Its command exists, the signal goes to it only, and it gets the time that a shutdown may take."""
    (block,) = documents.blocks_of(OPERATIONS, "ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    service = unit["Service"]
    command, *words = shlex.split(service["ExecStart"])
    assert (Path(command).name, Path(command).is_absolute()) == ("mesh", True)
    assert_is_mesh_command(words)
    assert service["KillMode"] == "mixed"
    limits = ClientSettings()
    assert service.getfloat("TimeoutStopSec") > limits.shutdown_timeout_s + limits.kill_timeout_s
    if shutil.which("systemd-analyze"):
        # The command is not installed at its path on this machine.
        path = tmp_path / "shop.service"
        path.write_text(block.text.replace(command, sys.executable))
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (verified.returncode, verified.stderr) == (0, "")


def test_the_container_image_installs_as_the_readme_says_and_runs_a_command_that_exists() -> None:
    (block,) = documents.blocks_of(OPERATIONS, "dockerfile")
    lines = [line.split(maxsplit=1) for line in block.text.splitlines()]
    (install,) = [rest for instruction, rest in lines if instruction == "RUN" and "pip" in rest]
    readme = "".join(block.text for block in documents.blocks_of(ROOT / "README.md", "sh"))
    assert install in readme.splitlines()
    (command,) = [json.loads(rest) for instruction, rest in lines if instruction == "CMD"]
    assert command[0] == "mesh"
    assert_is_mesh_command(command[1:])
    (check,) = [json.loads(rest.removeprefix("CMD ")) for instruction, rest in lines if instruction == "HEALTHCHECK"]
    compile(check[2], "health check", "exec")
    ports = {rest for instruction, rest in lines if instruction == "EXPOSE"}
    assert ports == {str(gateway_options.gRPCOptions().port)}
    assert f"127.0.0.1:{gateway_options.HTTPOptions().port}/" in check[2]
    versions = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert versions.removeprefix(">=") in block.text.splitlines()[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    links = [document.parent / target for target in _LINK.findall(text)]
    paths = [ROOT / path for path in _PATH.findall(text)]
    assert [str(path) for path in (*links, *paths) if not path.exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_into_pages_lead_to_headings(document: Path) -> None:
    links = _ANCHOR.findall(document.read_text())
    pages = [(document.parent / path if path else document, anchor) for path, anchor in links]
    assert [anchor for page, anchor in pages if page.suffix == ".md" and anchor not in anchors_of(page)] == []


def anchors_of(page: Path) -> set[str]:
    """Those of its headings: words in lower case, with hyphens between them."""
    outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_line_of_prose_is_one_sentence(document: Path) -> None:
    assert [line for line in prose_lines(document.read_text()) if _SENTENCE_END.search(line)] == []


def test_two_sentences_on_a_line_are_found() -> None:
    prose = "It ends. Another begins.\n```\nA. B.\n```\n| A. B. |\nOne, `x. Y`, and e.g. X.\n"
    assert [line for line in prose_lines(prose) if _SENTENCE_END.search(line)] == ["It ends. Another begins."]


def prose_lines(text: str) -> list[str]:
    """Lines outside of fences and tables, without list numbers, inline code and links."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in outside.splitlines() if not line.startswith(("|", "#", "<"))]
    return [re.sub(r"^ *\d+\. |`[^`]*`|\]\([^)]*\)", "_", line) for line in lines]


@pytest.mark.parametrize(
    ("document", "name", "make"), [pytest.param(*each, id=each[1]) for each in documents.TABLES]
)  # fmt: skip
def test_tables_are_those_of_the_code(document: Path, name: str, make: Callable[[], str]) -> None:
    assert documents.between_markers(document, name) == make(), STALE


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_configuration_files_are_valid(document: Path) -> None:
    for block in documents.blocks_of(document, "yaml"):
        config, _ = read_config("\n" * (block.line - 1) + block.text, document.name)
        assert config.applications


def test_every_command_is_documented() -> None:
    told = {shlex.split(command)[1] for _, command in documents.commands() if command.startswith("mesh ")}
    assert set(main.main.commands) - told == set()


@pytest.mark.parametrize("states", [ApplicationStatus, DeploymentStatus, ReplicaState, GatewayStatus, NodeStatus])
def test_every_status_is_explained(states: type[ApplicationStatus]) -> None:
    text = OPERATIONS.read_text()
    assert [state for state in states if f"`{state}`" not in text] == []


def test_the_readme_shows_both_commands_first() -> None:
    first = documents.blocks_of(ROOT / "README.md", "sh")[0].text
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["demo", "test"]
