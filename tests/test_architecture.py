"""What a machine can check of the plan of rooms and of the house style.

Every finding says where it is and what to do about it.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from mesh.cluster import keys
from tests.method_order import methods_too_low
from tests.pure_modules import impurities, pure_modules
from tests.rooms import PUBLIC_FACE, ROOMS, import_sentence, room_of, rooms_for
from tests.source_files import (
    GENERATED_SUFFIXES,
    OWN_CODE,
    PRODUCT,
    ROOT,
    Source,
    classes,
    first_party_imports,
    functions,
    imports,
    is_package,
    length,
    parameter_count,
    parse,
    self_attributes,
    sources,
)

WITH_RAY = tuple(f"mesh.cluster.ray_{each}" for each in ("address", "core", "objects", "placement", "watch"))

ROOM_MODULES_MAX = 16

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
CLASS_LINES_MAX = 300
SELF_ATTRIBUTES_MAX = 12
PARAMETERS_MAX = 6
CONTRACT_SIGNATURES = {"deployment", "multiplexed", "options", "run", "start"}
"""Public functions and commands whose parameters the API contract fixes."""

RIDDLING_WORDS = re.compile(
    r"\b(anew|whoever|whomever|dear|(?:is|are|was|were|be|been) told|for ever|nobody|somebody|everybody|so many"
    r"|in vain|all the same|shall)\b",
    re.IGNORECASE,
)
"""Words of the private language that this code once spoke; the field has a plain one for each."""

VAGUE_NAMES = {"base", "common", "helper", "helpers", "manager", "util", "utils", "wrapper"}
NAMES_OF_OTHERS = {"common.proto", "grpc_util.py"}
"""The second is that of its namesake in Ray Serve."""
UNFINISHED_MARKS = ("TODO", "FIXME", "XXX", "NotImplementedError")


def assert_none(findings: Iterator[str]) -> None:
    """Fails with every finding on a line of its own, and no traceback."""
    found = list(findings)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_every_module_has_a_room() -> None:
    assert_none(
        f"{source.path}: say in ROOMS of tests/rooms.py what this module may import"
        for source in sources(*PRODUCT)
        if not room_of(source.module)
    )


def test_the_root_is_the_public_face_only() -> None:
    assert {path.stem for path in (ROOT / "mesh").glob("*.py")} == PUBLIC_FACE


def test_rooms_are_small_enough_to_survey() -> None:
    folders = Counter(str(Path(source.path).parent) for source in sources(*PRODUCT) if not is_package(source))
    assert_none(
        f"{folder}/: {count} modules side by side, the wall is {ROOM_MODULES_MAX}; it holds two ideas, split it"
        for folder, count in folders.items()
        if count > ROOM_MODULES_MAX
    )


def test_no_two_modules_share_a_name() -> None:
    by_name: dict[str, list[str]] = {}
    for source in sources(*PRODUCT):
        if not is_package(source):
            by_name.setdefault(Path(source.path).stem, []).append(source.path)
    assert_none(f"{' and '.join(paths)}: two modules of one name" for paths in by_name.values() if len(paths) > 1)


def test_no_two_public_classes_share_a_name() -> None:
    by_name: dict[str, list[str]] = {}
    for source in sources(*PRODUCT):
        for owner in source.nodes(ast.ClassDef):
            if isinstance(owner, ast.ClassDef) and not owner.name.startswith("_"):
                by_name.setdefault(owner.name, []).append(source.path)
    assert_none(
        f"{' and '.join(paths)}: two classes called {name}" for name, paths in by_name.items() if len(paths) > 1
    )


def test_the_table_of_rooms_stands_in_the_order_of_imports() -> None:
    order = list(ROOMS)
    assert_none(
        f"ROOMS: {room} may import {other}, which does not stand above it"
        for room in ROOMS
        for other in sorted(rooms_for(room))
        if other not in order[: order.index(room)]
    )


def test_rooms_import_only_what_the_table_allows() -> None:
    assert_none(finding for source in sources(*PRODUCT) for finding in forbidden_imports(source))


def forbidden_imports(source: Source) -> Iterator[str]:
    own = room_of(source.module)
    for each in first_party_imports(source):
        other = room_of(each.target)
        if other != own and other not in rooms_for(own):
            yield f"{each.where}: {own} may not import {each.target}; see ROOMS, or move the code that both need"


def test_the_table_of_rooms_allows_only_what_is_used() -> None:
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for source in sources(*PRODUCT):
        used[room_of(source.module)].update(room_of(each.target) for each in first_party_imports(source))
    assert_none(
        f"ROOMS: {room} no longer imports {', '.join(sorted(unused))}; take it out"
        for room in ROOMS
        if (unused := rooms_for(room) - used[room])
    )


def test_every_package_says_what_it_may_import() -> None:
    """In a sentence that is made of ROOMS, so that it stays true."""
    assert_none(
        f"{source.path}: say {sentence!r} in the docstring"
        for source in sources(*PRODUCT)
        if is_package(source) and source.module not in ("mesh", "mesh.v1")
        for sentence in [import_sentence(source.module) if source.module in ROOMS else "May import what its room may."]
        if sentence not in " ".join((ast.get_docstring(source.tree) or "").split())
    )


def test_no_module_is_part_of_an_import_cycle() -> None:
    known = {source.module for source in sources(*PRODUCT)}
    graph = {
        source.module: {each.target for each in first_party_imports(source) if each.target in known} - {source.module}
        for source in sources(*PRODUCT)
    }
    graph = without_ends(graph)
    assert_none(
        f"{module}: imports {', '.join(sorted(targets))}, which comes back to it; move what both need to a third module"
        for module, targets in graph.items()
    )


def without_ends(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left when modules that import none of the rest, or that none of the rest imports, are taken away."""
    while True:
        imported = set().union(*graph.values())
        rest = {module: targets & graph.keys() for module, targets in graph.items() if module in imported}
        rest = {module: targets for module, targets in rest.items() if targets}
        if rest == graph:
            return graph
        graph = rest


def test_imports_of_our_own_code_stand_at_the_top_of_the_file() -> None:
    assert_none(
        f"{source.at(node)}: import at the top of the file; if that makes a cycle, move code instead"
        for source in sources(*PRODUCT)
        for function in source.nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and imports_ours_or_ray(node)
    )


def imports_ours_or_ray(node: ast.Import | ast.ImportFrom) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "mesh"]
    return any(name.split(".")[0] in (*PRODUCT, "ray") for name in names)


def test_only_the_modules_of_ray_import_it() -> None:
    assert_none(
        f"{each.where}: only {', '.join(WITH_RAY)} import ray; use or add a function there"
        for source in sources(*PRODUCT)
        if source.module not in WITH_RAY
        for each in imports(source)
        if each.target.split(".")[0] == "ray"
    )


def test_ray_serve_is_only_known_to_the_benchmarks() -> None:
    assert_none(
        f"{each.where}: ray.serve is measured against, never used"
        for source in sources(*PRODUCT, "examples", "tests")
        for each in imports(source)
        if each.target == "ray.serve" or each.target.startswith("ray.serve.")
    )


def test_only_keys_names_actors_and_kv_entries() -> None:
    """Operators and later versions find actors and state by these names: one module lists them all."""
    assert_none(
        f"{source.at(node)}: {node.value!r} is an actor's name or a KV key; import it from mesh.cluster.keys"
        for source in sources(*PRODUCT)
        if source.module != "mesh.cluster.keys"
        for node in source.nodes(ast.Constant)
        if isinstance(node, ast.Constant) and is_actor_name_or_kv_key(node.value)
    )


def is_actor_name_or_kv_key(value: object) -> bool:
    names = (keys.CONTROLLER_NAME, keys.TOKEN_KEY, keys.SERVICER_FUNCTIONS_KEY)
    stored = (keys.CODE_PREFIX, keys.DESCRIPTORS_PREFIX, "controller/")
    prefixes = (keys.REPLICA_PREFIX, keys.GATEWAY_PREFIX, keys.POLICY_PREFIX, *stored)
    return isinstance(value, str) and (value in names or value.startswith(prefixes))


def test_only_settings_reads_the_environment() -> None:
    assert_none(
        f"{source.at(node)}: only mesh.settings reads the environment; add a documented field there"
        for source in sources(*PRODUCT)
        if source.module != "mesh.settings"
        for node in source.nodes(ast.Attribute, ast.ImportFrom)
        if is_environment_access(node)
    )


def test_every_constant_of_time_has_a_sentence() -> None:
    """What operators may want to change is a setting; a constant says below itself what it is for."""
    assert_none(
        f"{source.at(node)}: {node.targets[0].id} needs a sentence below it, or is a setting: see mesh/defaults/"
        for source in sources(*PRODUCT)
        for node, following in pairwise([*source.tree.body, ast.Pass()])
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if re.fullmatch(r"_?[A-Z][A-Z0-9_]*_M?S", node.targets[0].id) and not isinstance(following, ast.Expr)
    )


def is_environment_access(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv"):
            return True
        case ast.ImportFrom(module="os", names=names):
            return any(alias.name in {"environ", "environb", "getenv"} for alias in names)
    return False


@pytest.mark.parametrize("path", pure_modules())
def test_pure_modules_know_no_clock_no_dice_and_no_io(path: str) -> None:
    assert (ROOT / path).exists(), (
        f"{path} is gone: name the module that took over its rules in PURE_MODULES of tests/rooms.py"
    )
    assert_none(impurities(parse(ROOT / path)))


def test_files_stay_below_the_wall() -> None:
    assert_none(
        f"{source.path}: {lines} lines, the wall is {FILE_LINES_MAX}; it owns two ideas, give one a file of its own"
        for source in sources(*OWN_CODE, "tests")
        if (lines := source.text.count("\n")) > FILE_LINES_MAX
    )


def test_functions_stay_below_the_wall() -> None:
    assert_none(
        f"{source.at(function)}: {function.name} has {lines} lines, the wall is {FUNCTION_LINES_MAX}; split it"
        for source, function in functions()
        if (lines := length(function)) > FUNCTION_LINES_MAX
    )


def test_classes_stay_below_the_wall() -> None:
    assert_none(
        f"{source.at(owner)}: class {owner.name} has {lines} lines, the wall is {CLASS_LINES_MAX}; split it"
        for source, owner in classes()
        if (lines := length(owner)) > CLASS_LINES_MAX
    )


def test_classes_hold_few_attributes() -> None:
    assert_none(
        f"{source.at(owner)}: class {owner.name} assigns {len(names)} attributes ({', '.join(sorted(names))}), "
        f"the wall is {SELF_ATTRIBUTES_MAX}; group some in a record or move them to a part of their own"
        for source, owner in classes()
        if len(names := self_attributes(owner)) > SELF_ATTRIBUTES_MAX
    )


def test_functions_take_few_parameters() -> None:
    assert_none(
        f"{source.at(function)}: {function.name} takes {count} parameters, the wall is {PARAMETERS_MAX}; "
        "pass a frozen record"
        for source, function in functions()
        if function.name not in CONTRACT_SIGNATURES and (count := parameter_count(function)) > PARAMETERS_MAX
    )


def test_public_methods_stand_above_private_ones() -> None:
    assert_none(
        f"{source.at(method)}: {owner.name}.{method.name} stands too low: constructors first, then public methods, then"
        " private ones, within each section of a class"
        for source, owner in classes()
        if source.path.startswith(PRODUCT)
        for method in methods_too_low(source, owner)
    )


def test_file_names_say_what_the_file_owns() -> None:
    assert_none(
        f"{path.relative_to(ROOT)}: a vague name; find the noun for what the file owns"
        for root in (*OWN_CODE, "tests", "protos")
        for pattern in ("*.py", "*.proto")
        for path in sorted((ROOT / root).rglob(pattern))
        if not path.name.endswith(GENERATED_SUFFIXES) and path.name not in NAMES_OF_OTHERS
        if VAGUE_NAMES & set(path.stem.split("_"))
    )


def test_every_module_says_what_it_is() -> None:
    assert_none(
        f"{source.path}: begin with a docstring whose first line says what the file is, as a noun phrase"
        for source in sources(*OWN_CODE, "tests")
        if source.module != "mesh.v1" and (ast.get_docstring(source.tree) or "Owns").startswith("Owns")
    )


def test_prose_is_plain_english() -> None:
    assert_none(
        f"{path.relative_to(ROOT)}:{number}: '{match[0]}' is not plain English; say it with the field's words"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for match in RIDDLING_WORDS.finditer(line.replace("_", " "))
    )


def test_the_list_of_words_finds_them_in_names_too() -> None:
    assert RIDDLING_WORDS.search("def test_it_is_told_to_whoever_asks".replace("_", " "))
    assert not RIDDLING_WORDS.search("a shallow copy, as told by the docs of Ray")


def texts() -> Iterator[Path]:
    """Everything that people read, except for generated code and this list of words."""
    roots = [ROOT / root for root in (*OWN_CODE, "tests", "docs", "protos")]
    for pattern in ("*.py", "*.md", "*.proto"):
        for path in (*ROOT.glob(pattern), *(path for root in roots for path in sorted(root.rglob(pattern)))):
            if not path.name.endswith(GENERATED_SUFFIXES) and path != Path(__file__):
                yield path


def test_no_error_is_swallowed() -> None:
    assert_none(
        f"{source.at(node)}: swallows every exception; catch the one that is meant and say why it may pass"
        for source in sources(*OWN_CODE, "tests")
        for node in source.nodes(ast.ExceptHandler)
        if isinstance(node, ast.ExceptHandler) and catches_everything(node) and does_nothing(node.body)
    )


def catches_everything(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)


def does_nothing(body: list[ast.stmt]) -> bool:
    return all(isinstance(each, ast.Pass | ast.Expr) and not calls_something(each) for each in body)


def calls_something(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Call | ast.Await | ast.Yield) for node in ast.walk(statement))


def test_nothing_is_left_unfinished() -> None:
    assert_none(
        f"{source.path}:{number}: finish it or leave it out: {line.strip()}"
        for source in sources(*OWN_CODE)
        for number, line in enumerate(source.text.splitlines(), start=1)
        if any(mark in line for mark in UNFINISHED_MARKS)
    )
