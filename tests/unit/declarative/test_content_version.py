"""mesh.declarative.content_version: unchanged content keeps its version in every process, changed content does not."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# Prints the versions of the deployments of shop.app:NAME, with the recipe given.
SHOW = """
import sys
from mesh.application import BuildRules, build
from mesh.declarative.content_version import make_version_of
from mesh.declarative.import_path import load_application
name, recipe, *args = sys.argv[1:]
rules = BuildRules(make_handle=lambda name, app: (name, app), version_of=make_version_of(recipe.encode()))
application = load_application(f"shop.app:{name}", {"size": int(args[0])} if args else {})
for spec in build(application, name="shop", route_prefix=None, rules=rules).deployments:
    print(spec.name, spec.version.partition("-")[0])
"""

# Prints the same of the one deployment of a file, as `mesh deploy` sends it, and of its policy.
SHOW_POLICY = """
from mesh.declarative import compose
from mesh.declarative.config_file import read_config
config, source = read_config(open("mesh.yaml").read(), "mesh.yaml")
(spec,) = compose.compose(config, source, compose.load(config, source), compose.Surroundings(), print)
(deployment,) = spec.deployments
print("deployment", deployment.version)
print("policy", deployment.options.autoscaling.policy.source_digest)
"""

FILES = {
    "shop/__init__.py": "",
    "shop/scaling.py": "from .words import GREETING\ndef decide(context): return 1",
    "shop/scaled.py": """
        import mesh

        @mesh.deployment
        class Stock: ...

        app = Stock.bind()
    """,
    "mesh.yaml": """
        applications:
        - import_path: shop.scaled:app
          deployments:
          - {name: Stock, autoscaling_config: {policy: {policy_function: "shop.scaling:decide"}}}
    """,
    "shop/words.py": "GREETING = 'Hello'",
    "shop/unused.py": "",
    "shop/late.py": "",
    "shop/app.py": """
        import mesh
        from .words import GREETING

        @mesh.deployment
        class Stock:
            def __init__(self, size=1): ...
            def method(self):
                from shop import late

        @mesh.deployment
        class Front:
            def __init__(self, stock): ...

        app = Front.bind(Stock.bind())

        def build(args):
            return Front.bind(Stock.bind(args["size"]))

        def dynamic(args):
            @mesh.deployment
            class Made:
                size = args["size"]

            return Made.bind()
    """,
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path


def versions(shop: Path, name: str = "app", recipe: str = "", *args: str) -> dict[str, str]:
    return shown_by(shop, SHOW, name, recipe, *args)


def shown_by(shop: Path, program: str, *words: str) -> dict[str, str]:
    """In a process of its own, as each `mesh deploy` is."""
    command = [sys.executable, "-B", "-c", program, *words]
    environment = {"PYTHONPATH": f"{shop}:{Path(__file__).parents[3]}"}
    shown = subprocess.run(command, cwd=shop, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert shown.returncode == 0, shown.stderr
    return {name: version for name, _, version in (line.partition(" ") for line in shown.stdout.splitlines())}


def test_unchanged_content_keeps_its_version_whatever_process_looks(shop: Path) -> None:
    """Deploying the same content again restarts nothing (item 185)."""
    before = versions(shop, "app", "a recipe")
    assert before.keys() == {"Stock", "Front"}
    # The recipe is for what its source does not tell everything about.
    assert versions(shop, "app", "another recipe") == before


@pytest.mark.parametrize("changed", ["app", "words", "late"])
def test_changed_source_is_another_version_also_of_modules_that_are_imported_late(shop: Path, changed: str) -> None:
    before = versions(shop)
    with (shop / f"shop/{changed}.py").open("a") as file:
        file.write("\n# changed\n")
    after = versions(shop)
    assert not set(before.values()) & set(after.values())


def test_source_that_is_not_imported_does_not_count(shop: Path) -> None:
    before = versions(shop)
    (shop / "shop/unused.py").write_text("changed = True")
    assert versions(shop) == before


def test_bound_arguments_change_the_version_of_who_gets_them(shop: Path) -> None:
    small, large = versions(shop, "build", "", "1"), versions(shop, "build", "", "2")
    assert small["Front"] == large["Front"]
    assert small["Stock"] != large["Stock"]


def test_a_class_that_a_function_made_goes_by_the_recipe(shop: Path) -> None:
    assert versions(shop, "dynamic", "a", "1") == versions(shop, "dynamic", "a", "1")
    assert versions(shop, "dynamic", "a", "1") != versions(shop, "dynamic", "b", "1")


def test_source_that_this_python_cannot_read_counts_as_it_is(shop: Path) -> None:
    """It may be for another version of Python, and imported only there."""
    (shop / "shop/late.py").write_text("type Odd[T = int] = = list[T]")
    before = versions(shop)
    (shop / "shop/late.py").write_text("type Odd[T = int] = = list[T] # changed")
    assert not set(before.values()) & set(versions(shop).values())


def test_a_module_that_is_no_module_is_left_out(shop: Path) -> None:
    """As libraries put objects into the table of modules."""
    before = versions(shop)
    with (shop / "shop/__init__.py").open("a") as file:
        file.write("import sys, types; sys.modules['shop.late'] = types.SimpleNamespace()\n")
    assert versions(shop) != before


@pytest.mark.parametrize("changed", ["scaling", "words"])
def test_a_changed_policy_is_another_one_of_the_same_deployment(shop: Path, changed: str) -> None:
    before = shown_by(shop, SHOW_POLICY)
    assert before == shown_by(shop, SHOW_POLICY)
    with (shop / f"shop/{changed}.py").open("a") as file:
        file.write("\n# changed\n")
    after = shown_by(shop, SHOW_POLICY)
    assert (after["deployment"], before["policy"] != "") == (before["deployment"], True)
    assert after["policy"] not in ("", before["policy"])
