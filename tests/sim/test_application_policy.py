"""One autoscaling policy for all deployments of an application, in fake time."""

from collections.abc import Mapping

from mesh.controller.actors.cluster_runtime import ActorCallError
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.options.deployments.autoscaling_policy import AutoscalingPolicy
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.unit.controller.builders import application

Questions = Mapping[str, control_pb2.PolicyQuestion]
POLICY = AutoscalingPolicy(policy_function="shop.scaling:decide").to_message(is_of_application=True)


def shop(*, has_policy: bool = True) -> control_pb2.ApplicationSpec:
    """Front, the ingress, and Model follow their load; Fixed does not."""
    rules = AutoscalingConfig(
        max_replicas=20, upscale_delay_s=0, downscale_delay_s=5, metrics_interval_s=1.0
    ).to_message()
    if has_policy:
        rules.policy.CopyFrom(POLICY)
    app = application("app", "v1", 1, rules)
    (model,) = app.deployments
    for name in ("Front", "Fixed"):
        app.deployments.add().CopyFrom(model)
        app.deployments[-1].name = name
    app.deployments[-1].options.ClearField("autoscaling")
    app.ingress = "Front"
    return app


def numbers(mesh: Mesh) -> dict[str, int]:
    return {each.name: each.target_replicas for each in mesh.loop.status().applications[0].deployments}


def problems(mesh: Mesh) -> dict[str, str]:
    return {each.name: each.autoscaling.problem for each in mesh.loop.status().applications[0].deployments}


async def test_one_process_decides_about_all_deployments_of_an_application() -> None:
    mesh = Mesh(1)
    await mesh.boot()
    fronts, asked = 3.0, set[str]()

    def two_models_per_front(questions: Questions) -> dict[str, float]:
        asked.update(questions)
        return {"Front": fronts, "Model": 2 * questions["Front"].target_replicas}

    mesh.cluster.application_policy = two_models_per_front
    await mesh.run(shop)
    await mesh.until(lambda: numbers(mesh) == {"Front": 3, "Model": 6, "Fixed": 1})
    assert asked == {"Front", "Model"}
    assert mesh.cluster.policies_spawned == 1
    (actor,) = mesh.cluster.policies()
    assert actor.spec.code_key == shop_code_key(mesh, "Front")  # type: ignore[union-attr]
    # A restarted controller goes on with the numbers, and asks a new process.
    await mesh.crash()
    await mesh.boot()
    assert numbers(mesh) == {"Front": 3, "Model": 6, "Fixed": 1}
    fronts = 1.0
    await mesh.until(lambda: numbers(mesh) == {"Front": 1, "Model": 2, "Fixed": 1})
    await mesh.run(lambda: shop(has_policy=False))
    await mesh.until(lambda: not mesh.cluster.policies())
    assert not mesh.failed
    await mesh.crash()


def shop_code_key(mesh: Mesh, name: str) -> str:
    return next(each.code_key for each in mesh.stored().applications[0].deployments if each.name == name)


async def test_a_policy_that_fails_is_reported_at_each_deployment_and_changes_none() -> None:
    mesh = Mesh(1)
    await mesh.boot()
    answers: list[dict[str, float]] = [{"Front": 2, "Model": 2}]

    def moody(questions: Questions) -> dict[str, float]:
        if not answers:
            raise ActorCallError("ZeroDivisionError: division by zero")
        return answers[-1]

    mesh.cluster.application_policy = moody
    await mesh.run(shop)
    await mesh.until(lambda: numbers(mesh) == {"Front": 2, "Model": 2, "Fixed": 1})
    # One that is left out keeps what it was given before.
    answers.append({"Model": 4})
    await mesh.until(lambda: numbers(mesh) == {"Front": 2, "Model": 4, "Fixed": 1})
    answers.clear()
    await mesh.until(lambda: all("division by zero" in problems(mesh)[name] for name in ("Front", "Model")))
    assert numbers(mesh) == {"Front": 2, "Model": 4, "Fixed": 1}
    assert not problems(mesh)["Fixed"]
    answers.append({"Front": 1, "Model": float("nan")})
    await mesh.until(lambda: "answers nan replicas" in problems(mesh)["Model"])
    # Of one that is left out nothing is wrong either.
    answers.append({"Model": 1})
    await mesh.until(lambda: numbers(mesh) == {"Front": 2, "Model": 1, "Fixed": 1}, within_s=300.0)
    assert problems(mesh) == {"Front": "", "Model": "", "Fixed": ""}
    assert not mesh.failed
    await mesh.crash()
