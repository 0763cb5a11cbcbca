"""mesh.options.deployments.option_effects: options that replace replicas, and those they take over (items 186–188)."""

import json

import pytest

from mesh.options.deployments.option_effects import EFFECTS, Effect, config_version, replica_version
from mesh.v1 import common_pb2, control_pb2

# Every option is in this table: a new one needs a decision about its changes.
TABLE = [
    ("num_replicas", 3, Effect.NONE),
    ("max_ongoing_requests", 7, Effect.IN_PLACE),
    ("max_queued_requests", 7, Effect.NONE),
    ("queue_timeout_s", 7.0, Effect.NONE),
    ("backpressure", common_pb2.BackpressureAnswer(status_code=429), Effect.NONE),
    ("graceful_shutdown_wait_loop_s", 7.0, Effect.IN_PLACE),
    ("graceful_shutdown_timeout_s", 7.0, Effect.IN_PLACE),
    ("health_check_period_s", 7.0, Effect.NONE),
    ("health_check_timeout_s", 7.0, Effect.NONE),
    ("user_config_json", json.dumps({"a": 1}), Effect.IN_PLACE),
    ("user_config_json", "null", Effect.IN_PLACE),
    ("isolate_user_loop", True, Effect.REPLACE),
    ("actor", control_pb2.ActorOptions(num_cpus=2), Effect.REPLACE),
    ("actor", control_pb2.ActorOptions(runtime_env_json='{"env_vars": {"A": "1"}}'), Effect.REPLACE),
    ("max_constructor_retry_count", 7, Effect.NONE),
    ("min_ready_s", 7.0, Effect.NONE),
    ("progress_deadline_s", 7.0, Effect.NONE),
    ("max_surge_percent", 50.0, Effect.NONE),
    ("max_unavailable_percent", 50.0, Effect.NONE),
    ("rollback_on_failure", True, Effect.NONE),
    ("request_router", control_pb2.RequestRouter(import_path="shop.routing:ByUser"), Effect.NONE),
    ("placement_group_bundles", [control_pb2.Bundle(resources={"CPU": 1})], Effect.REPLACE),
    ("placement_group_strategy", "SPREAD", Effect.REPLACE),
    ("max_replicas_per_node", 2, Effect.REPLACE),
    ("autoscaling", control_pb2.AutoscalingOptions(max_replicas=7), Effect.NONE),
    ("logging", control_pb2.LoggingOptions(is_json=True), Effect.IN_PLACE),
]


def spec(**options: object) -> control_pb2.DeploymentSpec:
    return control_pb2.DeploymentSpec(name="Model", version="v1", options=control_pb2.DeploymentOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("option", "value", "effect"), TABLE, ids=[f"{row[0]}={row[1]}".strip() for row in TABLE])
def test_a_changed_option_has_its_effect_and_no_other(option: str, value: object, effect: Effect) -> None:
    """It replaces replicas, is taken over by them, or needs no call to them (items 186–188)."""
    before, after = spec(), spec(**{option: value})
    assert EFFECTS[option] is effect
    assert (replica_version(before) != replica_version(after)) == (effect is Effect.REPLACE)
    assert (config_version(before.options) != config_version(after.options)) == (effect is Effect.IN_PLACE)


def test_every_option_is_in_the_table() -> None:
    assert {row[0] for row in TABLE} == set(EFFECTS)


def test_replicas_take_over_how_often_they_report() -> None:
    """The interval changes without a restart (item 187)."""
    before = spec(autoscaling=control_pb2.AutoscalingOptions(metrics_interval_s=10.0))
    after = spec(autoscaling=control_pb2.AutoscalingOptions(metrics_interval_s=1.0))
    assert config_version(before.options) != config_version(after.options)
    assert replica_version(before) == replica_version(after)


@pytest.mark.parametrize("before", [{}, {"stats_period_s": 10.0, "stats_timeout_s": 30.0}])
def test_replicas_take_over_how_often_they_record_for_request_routers(before: dict[str, float]) -> None:
    """Also those that had no router when they started; another class alone concerns callers only (items 155, 187)."""
    plain = spec(request_router=control_pb2.RequestRouter(**before)) if before else spec()  # type: ignore[arg-type]
    after = spec(request_router=control_pb2.RequestRouter(stats_period_s=1.0, stats_timeout_s=30.0))
    patient = spec(request_router=control_pb2.RequestRouter(stats_period_s=1.0, stats_timeout_s=5.0))
    other = spec(
        request_router=control_pb2.RequestRouter(import_path="shop:ByUser", stats_period_s=1.0, stats_timeout_s=5.0)
    )
    assert len({config_version(each.options) for each in (plain, after, patient, other)}) == 3
    assert config_version(patient.options) == config_version(other.options)
    assert len({replica_version(each) for each in (plain, after, patient, other)}) == 1


def test_changed_code_replaces_replicas() -> None:
    changed = spec()
    changed.version = "v2"
    assert replica_version(changed) != replica_version(spec())
