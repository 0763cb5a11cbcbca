"""mesh.cli.status_text: what the `mesh` command prints about the state of the mesh."""

import json
from typing import Any

import pytest

from mesh.cli.status_text import Progress, as_dict, as_text, listening_lines
from mesh.v1 import control_pb2


def reply() -> control_pb2.StatusReply:
    replicas = [
        control_pb2.ReplicaStatus(
            replica_id="r1",
            state="RUNNING",
            node_id="abcdef0123",
            pid=7,
            address="10.0.0.1:5000",
            version="0123456789abcdef-76543210",
            age_s=3 * 3600,
        ),
        control_pb2.ReplicaStatus(replica_id="r2", state="STARTING", version="mine-76543210", age_s=4.4),
    ]
    deployment = control_pb2.DeploymentStatus(
        name="Model",
        status="UPDATING",
        target_replicas=2,
        replicas=replicas,
        message="ValueError: bad\n  trace",
        busy=4.0,
        places=5,
    )
    application = control_pb2.ApplicationStatus(
        name="shop",
        status="DEPLOYING",
        route_prefix="/shop",
        deployments=[deployment],
        deployer=control_pb2.DEPLOYER_FILE,
    )
    gateway = control_pb2.GatewayStatus(
        node_id="abcdef0123", status="HEALTHY", grpc_address="10.0.0.1:9000", http_address="10.0.0.1:8000"
    )
    controller = control_pb2.ControllerStatus(pid=5, node_id="abcdef0123", age_s=150.0)
    return control_pb2.StatusReply(applications=[application], gateways=[gateway], controller=controller)


def test_the_table_shows_every_level() -> None:
    """The controller, gateways, applications, deployments and replicas have a row each (item 244)."""
    assert as_text(reply()).splitlines() == [
        "NAME                      STATUS     DETAILS",
        "controller                RUNNING    age 2 min, node abcdef01, pid 5",
        "gateway on node abcdef01  HEALTHY    grpc=10.0.0.1:9000 http=10.0.0.1:8000",
        "shop                      DEPLOYING  at /shop; from a file",
        "  Model                   UPDATING   1 of 2 replicas running, 1 starting; 4 of 5 busy; ValueError: bad",
        "    r1                    RUNNING    version 01234567-76543210, age 3 h, node abcdef01, pid 7, 10.0.0.1:5000",
        "    r2                    STARTING   version mine-76543210, age 4 s",
    ]


@pytest.mark.parametrize(
    ("load", "shown"),
    [
        ({"places": 10}, "0 of 10 busy"),
        ({"places": 10, "busy": 9.96, "waiting": 0.01}, "10 of 10 busy, 0.1 waiting"),
        ({"waiting": 3.0}, "0 of 0 busy, 3 waiting"),
    ],
)
def test_the_table_says_how_busy_a_deployment_is(load: dict[str, Any], shown: str) -> None:
    idle = reply()
    deployment = idle.applications[0].deployments[0]
    for field in ("busy", "places"):
        deployment.ClearField(field)
    assert "busy" not in as_text(idle)
    deployment.MergeFrom(control_pb2.DeploymentStatus(**load))
    assert f"1 starting; {shown}; ValueError" in as_text(idle)


def test_the_replicas_of_a_canary_count_in_its_own_row() -> None:
    shown = reply()
    app = shown.applications[0]
    app.deployments[0].replicas.add(replica_id="r3", state="RUNNING", version="fedcba98-76543210")
    app.canary.deployments.add(name="Model", version="fedcba98-76543210", target_replicas=1, running_replicas=1)
    lines = as_text(shown).splitlines()
    assert "    Model                            version fedcba98-76543210; 1 of 1 replicas running" in lines
    assert any(line.startswith("  Model ") and " 1 of 2 replicas running, 1 starting; " in line for line in lines)


def test_the_table_counts_restarts() -> None:
    shown = reply()
    assert "restart" not in as_text(shown)
    shown.controller.restarts = 1
    shown.applications[0].deployments[0].restarts = 3
    shown.applications[0].deployments[0].last_ended = "replica r0: it died"
    assert "pid 5; 1 restart\n" in as_text(shown)
    assert "ValueError: bad; 3 restarts; last ended: replica r0: it died" in as_text(shown)


def replica_rows(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("    ")]


def test_few_of_many_replicas_are_listed_and_first_those_that_need_attention() -> None:
    shown = reply()
    deployment = shown.applications[0].deployments[0]
    del deployment.replicas[:]
    for number in range(8):
        deployment.replicas.add(replica_id=f"r{number}", state="RUNNING")
    deployment.replicas[6].state, deployment.replicas[7].not_ready = "STOPPING", "no model"
    in_order = [f"r{number}" for number in range(8)]
    assert replica_rows(as_text(shown)) == in_order
    deployment.replicas.add(replica_id="r8", state="STARTING")
    assert replica_rows(as_text(shown)) == ["r6", "r7", "r8", "r0", "r1", "r2", "r3", "r4", "and"]
    assert as_text(shown).splitlines()[-1] == "    and 1 more                       --replicas lists them"
    assert replica_rows(as_text(shown, with_replicas=True)) == [*in_order, "r8"]


def test_the_last_deaths_stand_above_all_replicas() -> None:
    shown = reply()
    shown.applications[0].deployments[0].deaths.extend(
        [
            control_pb2.ReplicaDeath(
                replica_id="r9", age_s=300, reason="unhealthy (slow)", version="0123456789-7654", node_id="abcdef0123"
            ),
            control_pb2.ReplicaDeath(replica_id="r8", age_s=7200, reason="ValueError: no model.", version="mine-7654"),
        ]
    )
    assert "DIED" not in as_text(shown)
    assert as_text(shown, with_replicas=True).splitlines()[5:8] == [
        "    r9                    DIED       version 01234567-7654, 5 min ago, node abcdef01; unhealthy (slow)",
        "    r8                    DIED       version mine-7654, 2 h ago; ValueError: no model",
        "    r1                    RUNNING    version 01234567-76543210, age 3 h, node abcdef01, pid 7, 10.0.0.1:5000",
    ]


@pytest.mark.parametrize(
    ("age_s", "shown"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (5 * 86400, "5 d")]
)
def test_ages_are_short(age_s: float, shown: str) -> None:
    old = reply()
    old.controller.age_s = age_s
    assert f"RUNNING    age {shown}, node" in as_text(old)


def test_the_table_says_how_a_deployment_scales() -> None:
    shown = reply()
    scaling = control_pb2.AutoscalingStatus(min_replicas=1, max_replicas=9, decision="3 replicas are wanted.")
    shown.applications[0].deployments[0].autoscaling.CopyFrom(scaling)
    assert "4 of 5 busy; scales from 1 to 9; 3 replicas are wanted; ValueError: bad" in as_text(shown)


def test_an_empty_mesh_says_so() -> None:
    assert [line.strip() for line in as_text(control_pb2.StatusReply()).splitlines()[1:]] == [
        "no gateways",
        "no applications",
    ]


def test_json_has_the_fields_of_the_protocol() -> None:
    shown = as_dict(reply())
    assert shown["applications"][0]["deployments"][0]["replicas"][0]["pid"] == 7
    assert shown["applications"][0]["deployments"][0]["target_replicas"] == 2
    assert as_dict(control_pb2.StatusReply())["applications"] == []


def test_programs_find_all_keys_always() -> None:
    shown = as_dict(reply())
    assert shown["target_capacity"] is shown["applications"][0]["deployments"][0]["autoscaling"] is None
    full = reply()
    full.target_capacity = 50
    full.gateway_options.max_message_bytes = 2**31
    full.applications[0].deployments[0].autoscaling.decision = "target 3"
    filled = json.loads(json.dumps(as_dict(full)))
    assert filled.keys() == shown.keys()
    assert filled["gateway_options"]["max_message_bytes"] == 2**31
    assert filled["gateway_options"]["location"].startswith("GATEWAY_LOCATION_")
    assert filled["applications"][0]["deployments"][0]["autoscaling"]["max_replicas"] == 0


def test_addresses_are_shown_only_where_something_listens() -> None:
    assert listening_lines(reply()) == ["gRPC on 10.0.0.1:9000", "HTTP on http://10.0.0.1:8000"]
    assert listening_lines(control_pb2.StatusReply(gateways=[control_pb2.GatewayStatus(status="STARTING")])) == []
    replaced = reply()
    replaced.gateways.add(node_id=replaced.gateways[0].node_id, status="DRAINING", grpc_address="10.0.0.1:9001")
    assert listening_lines(replaced) == listening_lines(reply())


def test_gateways_of_one_node_have_a_row_each_and_one_address() -> None:
    gateways = [
        control_pb2.GatewayStatus(node_id="abcdef0123", status="HEALTHY", grpc_address="10.0.0.1:9000", index=index)
        for index in range(2)
    ]
    reply = control_pb2.StatusReply(gateways=gateways)
    text = as_text(reply)
    assert "gateway on node abcdef01" in text
    assert "gateway 1 on node abcdef01" in text
    assert listening_lines(reply) == ["gRPC on 10.0.0.1:9000"]


def test_progress_shows_each_change_once() -> None:
    shown: list[str] = []
    progress = Progress(shown.append)
    application = reply().applications[0]
    progress(application)
    progress(application)
    application.deployments[0].replicas[1].state = "RUNNING"
    application.deployments[0].message = ""
    application.status = "RUNNING"
    progress(application)
    application.deployments[0].status = "HEALTHY"
    progress(application)
    assert shown == [
        "  shop/Model: 1 of 2 replicas running; ValueError: bad",
        "  shop/Model: 2 of 2 replicas running",
        "  shop: RUNNING",
    ]


def test_the_table_says_when_only_a_part_is_wanted() -> None:
    shown = reply()
    shown.target_capacity = 50
    assert "target capacity           50 %       of all replica counts" in as_text(shown).splitlines()


def test_numbers_are_shown_once() -> None:
    shown = reply()
    shown.applications[0].deployments[0].message = "ValueError: bad. 1 of 2 replicas are running. No room.\n  File"
    (line,) = [line for line in as_text(shown).splitlines() if line.startswith("  Model")]
    assert line.endswith("1 of 2 replicas running, 1 starting; 4 of 5 busy; ValueError: bad. No room")


@pytest.mark.parametrize(
    ("states", "message", "shown"),
    [
        (["UPDATING"], "1 of 1 replicas are running.", "1 of 1 replicas running"),
        (["RUNNING"], "0 of 1 replicas are running.", "0 of 1 replicas running"),
        (["UPDATING"], "", "1 of 1 replicas running"),
        (
            ["RUNNING", "STARTING"],
            "0 of 1 replicas run the new version. 1 replica of the version before keeps serving.",
            "1 of 1 replicas running; 0 of 1 replicas run the new version. 1 replica of the version before keeps "
            "serving",
        ),
    ],
)
def test_progress_does_not_contradict_itself(states: list[str], message: str, shown: str) -> None:
    """The controller's count is shown, and which version it counts."""
    replicas = [control_pb2.ReplicaStatus(replica_id=state, state=state) for state in states]
    deployment = control_pb2.DeploymentStatus(name="Model", target_replicas=1, replicas=replicas, message=message)
    lines: list[str] = []
    Progress(lines.append)(control_pb2.ApplicationStatus(name="shop", status="DEPLOYING", deployments=[deployment]))
    assert lines == [f"  shop/Model: {shown}"]


def test_that_time_passes_is_shown_now_and_then() -> None:
    shown: list[str] = []
    progress = Progress(shown.append)
    application = reply().applications[0]
    for second in range(10, 70):
        application.deployments[0].message = f"1 replicas are starting, the longest for {second} s: it hangs."
        progress(application)
    assert [line.partition("the longest ")[2] for line in shown] == [
        f"for {second} s: it hangs" for second in (10, 30, 60)
    ]
