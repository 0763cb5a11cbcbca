"""The plan of rooms: the modules in the root of `mesh/`, who may import whom, and which modules are pure."""

from functools import cache

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

ROOMS: dict[str, str] = {
    "mesh.v1": "",
    "mesh.tls": "",
    "mesh.phases": "",
    "mesh.defaults": "",
    "mesh.settings": "defaults",
    "mesh.memory": "settings",
    "mesh.http2": "tls",
    "mesh.rpc": "http2 memory phases tls",
    "mesh.cluster": "settings",
    "mesh.exceptions": "cluster rpc settings",
    "mesh.wire": "cluster exceptions http2 memory rpc settings tls v1",
    "mesh.context": "cluster exceptions wire",
    "mesh.authentication": "tls wire",
    "mesh.logs": "cluster context defaults settings v1 wire",
    "mesh.options": "tls v1",
    "mesh.options.deployments": "options settings v1",
    "mesh.options.calls": "options v1",
    "mesh.options.gateway": "options options.calls settings v1",
    "mesh.config": "options options.deployments options.gateway v1",
    "mesh.status": "v1",
    "mesh.schema": "options options.gateway status",
    "mesh.metrics": "context options settings v1 wire",
    "mesh.usercode": "cluster context settings wire",
    "mesh.web": "cluster context exceptions phases usercode v1 wire",
    "mesh.link": "cluster exceptions http2 memory options.calls phases rpc settings v1 wire",
    "mesh.routing.choice": "link",
    "mesh.routing": "cluster context exceptions link options.calls routing.choice rpc settings v1 wire",
    "mesh.tracing": "context link routing rpc settings v1 wire",
    "mesh.request_router": "context routing",
    "mesh.membership": "cluster context exceptions options.deployments routing settings tracing v1 wire",
    "mesh.multiplex": "context options settings tracing usercode wire",
    "mesh.batching": "context exceptions multiplex options tracing usercode wire",
    "mesh.caller": "cluster context exceptions link membership memory options options.calls routing settings wire",
    "mesh.handle": "caller cluster options routing",
    "mesh.replica": (
        "cluster context exceptions handle link logs membership memory multiplex options options.deployments phases"
        " routing rpc settings tracing usercode v1 web wire"
    ),
    "mesh.inference.protocol": "wire",
    "mesh.inference": "inference.protocol context exceptions replica rpc settings usercode web wire",
    "mesh.grpc_util": "replica",
    "mesh.deployment": "config handle options options.deployments usercode",
    "mesh.application": "config deployment exceptions options options.deployments usercode v1 web",
    "mesh.local": (
        "application caller context deployment exceptions handle link multiplex options replica routing rpc status"
        " usercode v1 wire"
    ),
    "mesh.testing": "context exceptions handle link local options replica routing settings wire",
    "mesh.stored": "v1",
    "mesh.controller.store": "cluster stored v1",
    "mesh.controller.desired.changes": (
        "controller.store options options.deployments options.gateway routing settings v1"
    ),
    "mesh.controller.desired": (
        "controller.desired.changes controller.store options.deployments routing settings stored v1 wire"
    ),
    "mesh.controller.plan": (
        "controller.desired controller.desired.changes defaults options.deployments routing settings status v1"
    ),
    "mesh.controller.nodes": "controller.desired controller.desired.changes controller.plan v1",
    "mesh.controller.actors.registry": (
        "cluster controller.desired controller.plan options.deployments phases routing settings status v1"
    ),
    "mesh.controller.actors": (
        "cluster controller.actors.registry controller.desired controller.plan options.deployments routing settings"
        " status usercode v1 wire"
    ),
    "mesh.controller.scaling": (
        "cluster controller.actors controller.desired controller.plan logs options options.deployments routing"
        " settings usercode v1"
    ),
    "mesh.controller.report": (
        "controller.desired controller.desired.changes controller.plan controller.scaling controller.store routing"
        " settings status v1 wire"
    ),
    "mesh.controller": (
        "cluster controller.actors controller.actors.registry controller.desired controller.desired.changes"
        " controller.nodes controller.plan controller.report controller.scaling controller.store defaults logs options"
        " options.gateway routing settings stored v1 wire"
    ),
    "mesh.client": "cluster exceptions logs membership options.gateway settings status usercode v1 wire",
    "mesh.api": (
        "application client cluster context deployment exceptions handle local options options.deployments"
        " options.gateway settings status v1"
    ),
    "mesh": (
        "api batching caller config context deployment exceptions handle metrics multiplex options options.deployments"
        " options.gateway schema settings usercode web"
    ),
    "mesh.declarative": (
        "application cluster config deployment handle options options.deployments options.gateway settings usercode v1"
    ),
    "mesh.cli": (
        "api application client cluster declarative deployment exceptions logs options options.deployments"
        " options.gateway status stored tls v1 wire"
    ),
    "gateway.requests": "http2 phases routing routing.choice rpc tls v1 wire",
    "gateway.http1": "gateway.requests http2 tls",
    "gateway.websockets": "defaults gateway.requests settings",
    "gateway.transcoding": "rpc",
    "gateway.openapi": "gateway.requests gateway.transcoding wire",
    "gateway.ops": "gateway.requests http2 phases rpc settings v1 wire",
    "gateway.access": "authentication exceptions gateway.requests logs rpc v1 wire",
    "gateway.dialects": (
        "authentication exceptions gateway.access gateway.ops gateway.requests gateway.transcoding gateway.websockets"
        " http2 link options.calls routing routing.choice rpc settings v1 wire"
    ),
    "gateway.web_rpc": "gateway.dialects gateway.requests gateway.transcoding rpc",
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
    "mesh/controller/store/state_contents.py",
    "mesh/controller/desired/changes/state_edits.py",
    "mesh/stored/schema_version.py",
    "mesh/multiplex/model_limits.py",
    "mesh/options/absent_options.py",
    "mesh/options/calls/call_policies.py",
    "mesh/application.py",
    "mesh/controller/nodes/cordons.py",
    "mesh/controller/actors/registry/disruptions.py",
    "mesh/controller/report/node_statuses.py",
    "mesh/controller/plan/node_resources.py",
    "mesh/controller/plan/actions.py",
    "mesh/controller/desired/resource_request.py",
    "mesh/controller/scaling/scaling_rule.py",
    "mesh/controller/report/deployment_status.py",
    "mesh/controller/desired/changes/change_text.py",
    "mesh/controller/desired/changes/hidden_rules.py",
    "mesh/controller/desired/changes/shared_services.py",
    "mesh/controller/desired/desired_state.py",
    "mesh/controller/plan/gateway_plan.py",
    "mesh/controller/hang_rule.py",
    "mesh/controller/kept_events.py",
    "mesh/options/gateway/gateway_changes.py",
    "mesh/controller/scaling/reported_loads.py",
    "mesh/controller/scaling/load_window.py",
    "mesh/controller/actors/registry/gateway_state.py",
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
    "mesh/controller/desired/changes/replicas_at_deploy.py",
    "mesh/options/deployments/health_checks.py",
    "mesh/controller/report/shortage_text.py",
    "mesh/controller/plan/stop_order.py",
    "mesh/controller/report/snapshots.py",
    "mesh/options/deployments/drain_policy.py",
    "mesh/options/deployments/option_effects.py",
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
    "gateway/web_rpc/whole_body_reader.py",
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


def room_of(module: str) -> str:
    """The entry of ROOMS that a module belongs to: the longest one that it equals or lies in."""
    fitting = [room for room in ROOMS if module == room or (room != "mesh" and module.startswith(room + "."))]
    return max(fitting, key=len, default="")


def rooms_for(room: str) -> set[str]:
    """The rooms that `room` may import, by their full names."""
    return {name if name.startswith("gateway.") else f"mesh.{name}" for name in ROOMS[room].split()}


def tops_of(room: str) -> list[str]:
    """The rooms that `room` may import and that no other one of them may: what it names in its docstring."""
    may = rooms_for(room) - {"mesh.v1"}
    tops = [each for each in may if not any(each in rooms_below(other) for other in may)]
    return sorted(name.removeprefix("mesh.") for name in tops)


@cache
def rooms_below(room: str) -> set[str]:
    """The rooms that `room` may import, that those may import, and so on."""
    return rooms_for(room).union(*(rooms_below(each) for each in rooms_for(room)))


def import_sentence(room: str) -> str:
    """How the docstring of a room says what it may import."""
    tops = tops_of(room)
    match len(tops):
        case 0:
            return "May import no other room."
        case 1:
            return f"May import {tops[0]} and what it may import."
    return f"May import {', '.join(tops[:-1])} and {tops[-1]}, and what they may import."
