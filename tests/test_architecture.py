"""What a machine can check of the plan of rooms and of the house style.

Every finding says where it is and what to do about it.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from mesh.cluster import keys

ROOT = Path(__file__).parents[1]
PRODUCT = ("mesh", "gateway")
OWN_CODE = (*PRODUCT, "benchmarks", "examples")
GENERATED_SUFFIXES = ("_pb2.py", "_pb2_grpc.py")

WITH_RAY = tuple(f"mesh.cluster.ray_{each}" for each in ("address", "core", "objects", "placement", "watch"))

PUBLIC_FACE = frozenset(
    {
        "__init__",
        "api",
        "application",
        "authentication",
        "config",
        "context",
        "deployment",
        "exceptions",
        "grpc_util",
        "handle",
        "metrics",
        "request_router",
        "schema",
        "settings",
        "status",
        "testing",
    }
)
"""The modules in the root of `mesh/`. Everything else lives in a room."""

ROOM_MODULES_MAX = 16

ROOMS: dict[str, str] = {
    "mesh.v1": "",
    "mesh.tls": "",
    "mesh.phases": "",
    "mesh.defaults": "",
    "mesh.settings": "defaults",
    "mesh.memory": "settings",
    "mesh.http2": "tls",
    "mesh.rpc": "http2 memory phases",
    "mesh.cluster": "settings",
    "mesh.exceptions": "cluster rpc settings",
    "mesh.wire": "cluster exceptions http2 settings tls v1",
    "mesh.context": "cluster exceptions wire",
    "mesh.authentication": "tls wire",
    "mesh.logs": "cluster context defaults settings v1 wire",
    "mesh.options": "settings tls v1",
    "mesh.options.calls": "options v1",
    "mesh.options.gateway": "options options.calls settings v1",
    "mesh.config": "options options.gateway v1",
    "mesh.status": "v1",
    "mesh.schema": "options options.gateway status",
    "mesh.metrics": "context options settings v1 wire",
    "mesh.usercode": "cluster context settings",
    "mesh.web": "cluster context exceptions phases v1 wire",
    "mesh.link": "cluster exceptions http2 memory options.calls phases rpc settings v1 wire",
    "mesh.routing.choice": "link",
    "mesh.routing": "cluster context exceptions link options.calls routing.choice settings v1 wire",
    "mesh.tracing": "context link routing settings v1 wire",
    "mesh.request_router": "context routing",
    "mesh.membership": "cluster context exceptions routing settings tracing v1 wire",
    "mesh.multiplex": "context options tracing usercode wire",
    "mesh.batching": "context exceptions multiplex options tracing usercode wire",
    "mesh.caller": "cluster context exceptions link membership options options.calls routing settings wire",
    "mesh.handle": "caller cluster options routing",
    "mesh.replica": (
        "cluster context exceptions handle link logs membership memory multiplex options phases routing rpc settings"
        " tracing usercode v1 web wire"
    ),
    "mesh.inference.protocol": "wire",
    "mesh.inference": "inference.protocol context exceptions replica settings usercode web wire",
    "mesh.grpc_util": "replica",
    "mesh.deployment": "config handle options usercode",
    "mesh.application": "config deployment exceptions options usercode v1 web",
    "mesh.local": (
        "application caller context deployment exceptions handle link multiplex options replica routing rpc usercode"
        " v1 wire"
    ),
    "mesh.testing": "context exceptions handle link local options replica routing settings wire",
    "mesh.stored": "v1",
    "mesh.controller.store": "cluster stored v1",
    "mesh.controller.desired": "controller.store options routing settings stored v1 wire",
    "mesh.controller.plan": "controller.desired defaults options routing settings status v1",
    "mesh.controller.nodes": "controller.desired controller.plan v1",
    "mesh.controller.actors": (
        "cluster controller.desired controller.plan options phases routing settings status usercode v1"
    ),
    "mesh.controller.scaling": (
        "cluster controller.actors controller.desired controller.plan logs options routing settings usercode v1"
    ),
    "mesh.controller.report": (
        "controller.desired controller.plan controller.scaling controller.store routing settings status v1 wire"
    ),
    "mesh.controller": (
        "cluster controller.actors controller.desired controller.nodes controller.plan controller.report"
        " controller.scaling controller.store defaults logs options options.gateway routing settings stored v1 wire"
    ),
    "mesh.client": "cluster exceptions logs membership options.gateway settings status usercode v1 wire",
    "mesh.api": (
        "application client cluster context deployment exceptions handle local options options.gateway settings status"
        " v1"
    ),
    "mesh": (
        "api batching caller config context deployment exceptions handle metrics multiplex options options.gateway"
        " schema settings usercode web"
    ),
    "mesh.declarative": "application cluster config deployment handle options options.gateway settings usercode v1",
    "mesh.cli": (
        "api application client cluster declarative deployment exceptions logs options options.gateway status stored"
        " tls v1 wire"
    ),
    "gateway.requests": "http2 phases routing routing.choice tls v1 wire",
    "gateway.http1": "gateway.requests http2 tls",
    "gateway.websockets": "defaults gateway.requests settings",
    "gateway.transcoding": "",
    "gateway.openapi": "gateway.requests gateway.transcoding wire",
    "gateway.ops": "gateway.requests http2 phases settings v1 wire",
    "gateway.access": "authentication exceptions gateway.requests logs v1 wire",
    "gateway.dialects": (
        "authentication exceptions gateway.access gateway.ops gateway.requests gateway.transcoding gateway.websockets"
        " http2 link options.calls routing routing.choice rpc settings v1 wire"
    ),
    "gateway.web_rpc": "gateway.dialects gateway.requests gateway.transcoding rpc wire",
    "gateway.built_in": (
        "exceptions gateway.dialects gateway.ops gateway.requests gateway.web_rpc link phases routing rpc settings wire"
    ),
    "gateway": (
        "gateway.access gateway.built_in gateway.dialects gateway.http1 gateway.openapi gateway.ops"
        " gateway.requests gateway.web_rpc gateway.websockets cluster exceptions http2 local logs membership memory"
        " options options.calls options.gateway"
        " phases routing rpc settings tls tracing usercode v1 wire"
    ),
}
"""Who may import whom, in the order of imports: a room, or a module of the public face, and the rooms it may import.

Names without `gateway.` are below `mesh.`. A room may only import rooms that stand above it in this table.
"""

PURE_MODULES = (
    "mesh/stored/schema_version.py",
    "mesh/multiplex/model_limits.py",
    "mesh/options/absent_options.py",
    "mesh/options/calls/call_policies.py",
    "mesh/application.py",
    "mesh/controller/nodes/cordons.py",
    "mesh/controller/actors/disruptions.py",
    "mesh/controller/report/node_statuses.py",
    "mesh/controller/plan/node_resources.py",
    "mesh/controller/plan/actions.py",
    "mesh/controller/desired/resource_request.py",
    "mesh/controller/scaling/scaling_rule.py",
    "mesh/controller/report/deployment_status.py",
    "mesh/controller/desired/change_text.py",
    "mesh/controller/desired/shared_services.py",
    "mesh/controller/desired/desired_state.py",
    "mesh/controller/plan/gateway_plan.py",
    "mesh/controller/hang_rule.py",
    "mesh/options/gateway/gateway_changes.py",
    "mesh/controller/scaling/reported_loads.py",
    "mesh/controller/scaling/load_window.py",
    "mesh/controller/actors/gateway_state.py",
    "mesh/controller/plan/cluster_picture.py",
    "mesh/controller/plan/replica_placement.py",
    "mesh/controller/plan/planner.py",
    "mesh/controller/plan/replica_state.py",
    "mesh/controller/plan/rollout.py",
    "mesh/controller/plan/failed_updates.py",
    "mesh/routing/choice/traffic_split.py",
    "mesh/controller/scaling/scaling_report.py",
    "mesh/controller/desired/autoscaled_numbers.py",
    "mesh/controller/desired/autoscaling_targets.py",
    "mesh/controller/report/shortage_text.py",
    "mesh/controller/plan/stop_order.py",
    "mesh/controller/report/snapshots.py",
    "mesh/options/drain_policy.py",
    "mesh/options/option_effects.py",
    "mesh/controller/report/controller_metrics.py",
    "mesh/controller/report/mesh_picture.py",
    "mesh/controller/report/status_report.py",
    "mesh/inference/protocol/datatypes.py",
    "mesh/inference/grpc_tensors.py",
    "mesh/inference/protocol/model_info.py",
    "mesh/inference/rest_generate.py",
    "mesh/inference/rest_paths.py",
    "mesh/inference/rest_tensors.py",
    "mesh/inference/protocol/tensor_contents.py",
    "mesh/inference/protocol/wire_messages.py",
    "mesh/wire/varints.py",
    "mesh/http2/connection.py",
    "mesh/http2/field_rules.py",
    "mesh/http2/flood_guard.py",
    "mesh/http2/frame_reader.py",
    "mesh/http2/hpack_decoder.py",
    "mesh/http2/hpack_encoder.py",
    "mesh/http2/outbox.py",
    "mesh/http2/upkeep.py",
    "mesh/rpc/message_reader.py",
    "mesh/rpc/request_head.py",
    "mesh/routing/outlier_ejection.py",
    "mesh/routing/choice/picker.py",
    "mesh/routing/waiting/places.py",
    "mesh/routing/retry_budget.py",
    "mesh/routing/snapshot.py",
    "mesh/web/asgi_scope.py",
    "mesh/web/json_text.py",
    "gateway/listener_phase.py",
    "gateway/requests/cors.py",
    "gateway/requests/end_to_end_fields.py",
    "gateway/requests/equal_heads.py",
    "gateway/requests/mesh_headers.py",
    "gateway/requests/route_prefixes.py",
    "gateway/access/call_limits.py",
    "gateway/access/meters.py",
    "gateway/http1/answer_head.py",
    "gateway/http1/body_framing.py",
    "gateway/http1/head_syntax.py",
    "gateway/http1/http1_upkeep.py",
    "gateway/http1/http1_reader.py",
    "gateway/requests/routes.py",
    "gateway/requests/trusted_proxies.py",
    "gateway/requests/web_encoding.py",
    "gateway/requests/web_status.py",
    "gateway/web_rpc/base64_pieces.py",
    "gateway/web_rpc/connect_errors.py",
    "gateway/web_rpc/connect_request.py",
    "gateway/web_rpc/envelope_reader.py",
    "gateway/web_rpc/message_codec.py",
    "gateway/web_rpc/request_readers.py",
    "gateway/websockets/websocket_frames.py",
    "gateway/websockets/websocket_handshake.py",
    "gateway/openapi/message_schemas.py",
    "gateway/openapi/openapi_document.py",
    "gateway/openapi/openapi_paths.py",
    "gateway/openapi/source_comments.py",
    "gateway/transcoding/field_error.py",
    "gateway/transcoding/http_rules.py",
    "gateway/transcoding/json_lines.py",
    "gateway/transcoding/json_reader.py",
    "gateway/transcoding/json_scalars.py",
    "gateway/transcoding/json_writer.py",
    "gateway/transcoding/path_template.py",
    "gateway/transcoding/query_parameters.py",
    "gateway/transcoding/request_binding.py",
    "gateway/transcoding/response_json.py",
    "gateway/transcoding/rule_index.py",
    "gateway/transcoding/status_json.py",
    "gateway/transcoding/stream_forms.py",
)
"""Rules without a clock, dice or I/O: what they need is passed in."""
IMPURE_IMPORTS = {"asyncio", "grpc", "os", "ray", "socket", "subprocess", "threading", "time", "uvloop"}

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

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One parsed file of ours."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{node.lineno}"

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


@dataclass(frozen=True)
class Import:
    """One name that a file imports, as the longest dotted path that can be a module."""

    target: str
    where: str


@cache
def sources(*roots: str) -> tuple[Source, ...]:
    paths = sorted(path for root in roots for path in (ROOT / root).rglob("*.py"))
    return tuple(parse(path) for path in paths if not path.name.endswith(GENERATED_SUFFIXES))


@cache
def parse(path: Path) -> Source:
    text = path.read_text()
    return Source(str(path.relative_to(ROOT)), text, ast.parse(text, filename=str(path)))


def imports(source: Source) -> Iterator[Import]:
    for node in source.nodes(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, source.at(node)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = absolute_start(source, node)
            yield from (Import(submodule_or_module(start, alias.name), source.at(node)) for alias in node.names)


def absolute_start(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = source.module.split(".") + (["__init__"] if source.path.endswith("__init__.py") else [])
    return ".".join(package[: -node.level] + ([node.module] if node.module else []))


def submodule_or_module(start: str, name: str) -> str:
    """`from mesh.wire import payload` and `from mesh.wire.payload import encode` both import mesh.wire.payload."""
    place = ROOT / start.replace(".", "/") / name
    return f"{start}.{name}" if place.with_suffix(".py").exists() or place.is_dir() else start


def first_party_imports(source: Source) -> Iterator[Import]:
    return (each for each in imports(source) if each.target.split(".")[0] in PRODUCT)


def room_of(module: str) -> str:
    """The entry of ROOMS that a module belongs to: the longest one that it equals or lies in."""
    fitting = [room for room in ROOMS if module == room or (room != "mesh" and module.startswith(room + "."))]
    return max(fitting, key=len, default="")


def rooms_for(room: str) -> set[str]:
    """The rooms that `room` may import, by their full names."""
    return {name if name.startswith("gateway.") else f"mesh.{name}" for name in ROOMS[room].split()}


def assert_none(findings: Iterator[str]) -> None:
    """Fails with every finding on a line of its own, and no traceback."""
    found = list(findings)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_every_module_has_a_room() -> None:
    assert_none(
        f"{source.path}: say in ROOMS of {Path(__file__).name} what this module may import"
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


def is_package(source: Source) -> bool:
    return source.path.endswith("__init__.py")


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


def is_environment_access(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv"):
            return True
        case ast.ImportFrom(module="os", names=names):
            return any(alias.name in {"environ", "environb", "getenv"} for alias in names)
    return False


@pytest.mark.parametrize("path", PURE_MODULES)
def test_pure_modules_know_no_clock_no_dice_and_no_io(path: str) -> None:
    assert (ROOT / path).exists(), f"{path} is gone: name the module that took over its rules in PURE_MODULES"
    source = parse(ROOT / path)
    assert_none(
        f"{each.where}: a pure module does not import {each.target}; have the caller pass in what it needs"
        for each in imports(source)
        if each.target.split(".")[0] in IMPURE_IMPORTS
    )
    assert_none(
        f"{source.at(node)}: a pure module does not roll dice; take a `random.Random` as a parameter"
        for node in source.nodes(ast.Call)
        if isinstance(node, ast.Call) and is_module_level_random(node.func)
    )
    assert_none(
        f"{source.at(node)}: a pure module does not read the clock; take `now_s` as a parameter"
        for node in source.nodes(ast.Attribute)
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}
    )


def is_module_level_random(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id="random"), attr=name):
            return name != "Random"
    return False


def test_files_stay_below_the_wall() -> None:
    assert_none(
        f"{source.path}: {lines} lines, the wall is {FILE_LINES_MAX}; it owns two ideas, give one a file of its own"
        for source in sources(*OWN_CODE)
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


def functions() -> Iterator[tuple[Source, Function]]:
    for source in sources(*OWN_CODE):
        for node in source.nodes(ast.FunctionDef, ast.AsyncFunctionDef):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield source, node


def classes() -> Iterator[tuple[Source, ast.ClassDef]]:
    for source in sources(*OWN_CODE):
        for node in source.nodes(ast.ClassDef):
            if isinstance(node, ast.ClassDef):
                yield source, node


def length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def self_attributes(owner: ast.ClassDef) -> set[str]:
    return {
        node.attr
        for node in ast.walk(owner)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def parameter_count(function: Function) -> int:
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


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
