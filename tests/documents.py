"""What the tests of README.md and docs/ read from them, and the tables there that are made from the code.

`python -m tests.documents` writes these tables.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from mesh.config import DeploymentConfig
from mesh.declarative.file_schema import DEPLOYMENT_OPTIONS, ApplicationEntry, MeshConfig
from mesh.options.absent_options import ADVICE
from mesh.options.deployments.option_effects import EFFECTS
from mesh.settings import Settings, variable_of
from mesh.wire import telemetry
from tests import compatibility
from tests.rooms import ROOMS

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
ARCHITECTURE = ROOT / "docs" / "architecture.md"
OPERATIONS = ROOT / "docs" / "operations.md"
FROM_RAY_SERVE = ROOT / "docs" / "migrating-from-ray-serve.md"
CONFIG = ROOT / "docs" / "config.md"
EXAMPLES = ROOT / "docs" / "examples.md"
EXAMPLE_CONFIG = ROOT / "examples" / "weather" / "mesh.yaml"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"print\(.*\)  # (.+)$", re.MULTILINE)
_KINDS = {telemetry.COUNTER: "counter", telemetry.GAUGE: "gauge", telemetry.HISTOGRAM: "histogram"}


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def printed(self) -> list[str]:
        """What the block says that it prints, in comments behind its calls of print."""
        return _PRINTED.findall(self.text)


def blocks_of(document: Path, language: str) -> list[Block]:
    text = document.read_text()
    found = (
        Block(document, text.count("\n", 0, match.start()) + 2, match[1], match[2]) for match in _FENCE.finditer(text)
    )
    return [block for block in found if block.language == language]


def commands() -> list[tuple[Block, str]]:
    """Lines of all shell blocks, without comments."""
    return [
        (block, line.partition("  #")[0].strip())
        for document in DOCUMENTS
        for block in blocks_of(document, "sh")
        for line in block.text.splitlines()
        if line.strip() and not line.startswith("#")
    ]


def between_markers(document: Path, name: str) -> str:
    """What stands between the comments `<!-- name:begin -->` and `<!-- name:end -->`."""
    return _parts(document.read_text(), name)[1].strip()


def write_tables() -> None:
    """Bring everything between markers up to date."""
    for document, name, make in TABLES:
        before, _, after = _parts(document.read_text(), name)
        document.write_text(f"{before}{make()}\n{after}")
    compatibility.DOCUMENT.write_text(compatibility.brought_up_to_date(compatibility.DOCUMENT.read_text()))


def _parts(text: str, name: str) -> tuple[str, str, str]:
    match = re.fullmatch(f"(.*<!-- {name}:begin -->\n)(.*)(<!-- {name}:end -->.*)", text, re.DOTALL)
    assert match, f"there is no table called {name}"
    return match[1], match[2], match[3]


def settings_table() -> str:
    """Every setting with its default and the sentences below it in mesh/settings.py, group by group."""
    kinds = {group.name: group.default_factory for group in fields(Settings)}
    rows = [
        f"| {name} | `{variable_of(kind, each.name)}` | {each.default} | {_documented(kind)[each.name]} |"
        for name, kind in kinds.items()
        for each in fields(kind)
    ]
    return "\n".join(["| group | variable | default | meaning |", "|---|---|---|---|", *rows])


def families() -> list[telemetry.Family]:
    """Every metric family that a module of the product declares, by name."""
    found: dict[str, telemetry.Family] = {}
    for path in sorted((*ROOT.glob("mesh/**/*.py"), *ROOT.glob("gateway/**/*.py"))):
        if "= Family(" in path.read_text():
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            found.update({value.name: value for value in vars(module).values() if isinstance(value, telemetry.Family)})
    return [found[name] for name in sorted(found)]


def metrics_table() -> str:
    rows = [
        f"| `{family.name}` | {_KINDS[family.kind]} | {', '.join(family.label_names) or '–'} | {family.help} |"
        for family in families()
    ]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows])


def fields_table(record: type[Any]) -> str:
    """Every field of a record of the configuration file, with what is written below it."""
    meanings = _documented(record)
    rows = [f"| `{each.name}` | {_default(each)} | {meanings[each.name]} |" for each in fields(record)]
    return "\n".join(["| field | default | meaning |", "|---|---|---|", *rows])


def options_table() -> str:
    """Every option of a deployment in a file: what it means, and what a change of it does."""
    meanings = _documented(DeploymentConfig)
    rows = [
        f"| `{each.name}` | {_default(each)} | {meanings[each.name]} | {EFFECTS[_STORED.get(each.name, each.name)]} |"
        for each in fields(DeploymentConfig)
        if each.name in DEPLOYMENT_OPTIONS
    ]
    return "\n".join(["| option | default | meaning | when it changes |", "|---|---|---|---|", *rows])


_STORED = {
    "user_config": "user_config_json",
    "ray_actor_options": "actor",
    "autoscaling_config": "autoscaling",
    "logging_config": "logging",
    "backpressure_config": "backpressure",
    "request_router_config": "request_router",
}
"""Options that have another name in the stored state."""


def absent_table() -> str:
    """Every option of Ray Serve that is refused, with what the error advises."""
    rows = [f"| `{name}` | {advice} |" for name, advice in ADVICE.items()]
    return "\n".join(["| option | instead |", "|---|---|", *rows])


def rooms_table() -> str:
    """Every room in the order of imports, each after its parts, with what its package says that it owns."""
    rows = [f"| `{_path_of(each)}` | {_owned(each)} |" for room in ROOMS for each in (*_parts_of(room), room)]
    return "\n".join(["| room | owns |", "|---|---|", *(row for row in rows if not row.startswith("| `mesh/v1/`"))])


def _parts_of(room: str) -> list[str]:
    """The packages directly below that are not rooms of their own: what holds for the room holds for them."""
    packages = sorted(path.parent for path in (ROOT / room.replace(".", "/")).glob("*/__init__.py"))
    names = [f"{room}.{package.name}" for package in packages]
    return [name for name in names if name not in ROOMS and name != "mesh.v1"]


def _path_of(room: str) -> str:
    path = Path(room.replace(".", "/"))
    return f"{path}/" if (ROOT / path).is_dir() else f"{path}.py"


def _owned(room: str) -> str:
    text = inspect.getdoc(importlib.import_module(room)) or ""
    return " ".join(text.partition("\n\n")[0].split())


def apps_table() -> str:
    """Every application of `examples/apps/` with the first line of its docstring."""
    rows = [
        f"| [`{path.stem}`](../{path.relative_to(ROOT)}) | {(ast.get_docstring(tree) or '').partition(chr(10))[0]} |"
        for path in sorted((ROOT / "examples" / "apps").glob("[!_]*.py"))
        for tree in [ast.parse(path.read_text())]
    ]
    return "\n".join(["| application | what it is |", "|---|---|", *rows])


def example_config() -> str:
    return f"```yaml\n{EXAMPLE_CONFIG.read_text()}```"


def _documented(record: type[Any]) -> dict[str, str]:
    """The docstrings below the fields of a dataclass."""
    (described,) = ast.parse(inspect.getsource(record)).body
    assert isinstance(described, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, below in pairwise([*described.body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            texts[field.target.id] = " ".join(str(below.value.value).split()) if is_text else ""
    return texts


def _default(field: Field[Any]) -> str:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    return "–" if value in (MISSING, None, {}, ()) else f"`{value}`"


TABLES: tuple[tuple[Path, str, Callable[[], str]], ...] = (
    (EXAMPLES, "apps", apps_table),
    (ARCHITECTURE, "rooms", rooms_table),
    (OPERATIONS, "metrics", metrics_table),
    (OPERATIONS, "settings", settings_table),
    (CONFIG, "file", partial(fields_table, MeshConfig)),
    (CONFIG, "application", partial(fields_table, ApplicationEntry)),
    (CONFIG, "deployment", options_table),
    (CONFIG, "example", example_config),
    (FROM_RAY_SERVE, "absent", absent_table),
)
"""What is made from the code: document, name of the markers, and who makes it."""


if __name__ == "__main__":
    write_tables()
