"""mesh.cli.status_text: what the `mesh` command prints about the state of the mesh."""

import json

from mesh.cli.status_text import Progress, as_dict, as_text, listening_lines
from mesh.v1 import control_pb2


def reply() -> control_pb2.StatusReply:
    replicas = [
        control_pb2.ReplicaStatus(
            replica_id="r1", state="RUNNING", node_id="abcdef0123", pid=7, address="10.0.0.1:5000"
        ),
        control_pb2.ReplicaStatus(replica_id="r2", state="STARTING"),
    ]
    deployment = control_pb2.DeploymentStatus(
        name="Model", status="UPDATING", target_replicas=2, replicas=replicas, message="ValueError: bad\n  trace"
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
    return control_pb2.StatusReply(applications=[application], gateways=[gateway])


def test_the_table_shows_every_level() -> None:
    """Gateways, applications, deployments and replicas have a row each (item 244)."""
    assert as_text(reply()).splitlines() == [
        "NAME                      STATUS     DETAILS",
        "gateway on node abcdef01  HEALTHY    grpc=10.0.0.1:9000 http=10.0.0.1:8000",
        "shop                      DEPLOYING  at /shop; from a file",
        "  Model                   UPDATING   1 of 2 replicas running, 1 starting; ValueError: bad",
        "    r1                    RUNNING    node abcdef01, pid 7, 10.0.0.1:5000",
        "    r2                    STARTING",
    ]


def test_the_table_says_how_a_deployment_scales() -> None:
    shown = reply()
    scaling = control_pb2.AutoscalingStatus(min_replicas=1, max_replicas=9, decision="3 replicas are wanted.")
    shown.applications[0].deployments[0].autoscaling.CopyFrom(scaling)
    assert "1 starting; scales from 1 to 9; 3 replicas are wanted; ValueError: bad" in as_text(shown)


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
    assert line.endswith("1 of 2 replicas running, 1 starting; ValueError: bad. No room")


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
