"""mesh.controller.control_servicer: refusals and Sync streams, with the real loop and a fake cluster in fake time."""

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.controller.control_servicer import ControlServicer
from mesh.settings import settings
from mesh.status import ApplicationStatus
from mesh.v1 import common_pb2, control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.goals import is_running
from tests.unit.controller.builders import KEY, application
from tests.unit.controller.servicer_context import Aborted, Context, with_servicer


def deploy_request() -> control_pb2.DeployRequest:
    return control_pb2.DeployRequest(application=application())


def test_a_file_is_applied_and_told() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        assert not (await servicer.Config(None, Context())).HasField("config_file")
        request = control_pb2.ApplyRequest(applications=[application("a"), application("b")], config_file="the file")
        await servicer.Apply(request, Context())
        assert (await servicer.Config(None, Context())).config_file == "the file"
        shown = (await servicer.Status(control_pb2.StatusRequest(), Context())).applications
        assert {each.name: each.deployer for each in shown} == dict.fromkeys("ab", control_pb2.DEPLOYER_FILE)

    with_servicer(scenario)


def test_an_application_runs_when_the_gateways_have_read_its_routes() -> None:
    """Also those that come back from another controller: who has waited for a deploy calls them next."""

    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        await servicer.Deploy(deploy_request(), Context())
        await mesh.until(lambda: is_running(mesh, "v1", 2))
        named = control_pb2.StatusRequest(applications=["app"])
        asked = asyncio.create_task(servicer.Status(named, Context()))
        await asyncio.sleep(1.0)
        assert not asked.done(), "the gateway has no stream"
        gateway = mesh.publisher.open(control_pb2.ProcessHello(kind=control_pb2.PROCESS_KIND_GATEWAY))
        update = await mesh.publisher.next_update(gateway)
        await asyncio.sleep(1.0)
        assert not asked.done(), "the routes were not written"
        assert [each.app for each in update.routes.routes] == ["app"]
        written = asyncio.create_task(mesh.publisher.next_update(gateway))
        assert (await asked).applications[0].status == ApplicationStatus.RUNNING
        written.cancel()
        mesh.publisher.close(gateway)

        began_at_s = asyncio.get_running_loop().time()
        await servicer.Status(control_pb2.StatusRequest(), Context())
        assert asyncio.get_running_loop().time() == began_at_s, "a look at all applications waits for none"
        await servicer.Status(named, Context())
        assert asyncio.get_running_loop().time() - began_at_s == settings().controller.return_timeout_s

    with_servicer(scenario)


def test_the_answer_names_what_is_as_it_was() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        request = control_pb2.ApplyRequest(applications=[application("a"), application("b")])
        assert lines(await servicer.Apply(request, Context())) == {"a": ["a: new"], "b": ["b: new"]}
        request.applications[0].route_prefix = "/new"
        changes = {"a": ["a: route_prefix: '/a' -> '/new'"], "b": []}
        dry_run = control_pb2.ApplyRequest(is_dry_run=True)
        dry_run.MergeFrom(request)
        for _ in range(2):
            reply = await servicer.Apply(dry_run, Context())
            assert (lines(reply), reply.state_version) == (changes, 0), "a dry run changes nothing"
        assert lines(await servicer.Apply(request, Context())) == changes
        dry_run.applications[1].route_prefix = "/new"
        with pytest.raises(Aborted, match="belongs to application 'a'"):
            await servicer.Apply(dry_run, Context())

    with_servicer(scenario)


def lines(reply: control_pb2.ApplyReply) -> dict[str, list[str]]:
    return {each.application: list(each.lines) for each in reply.changes}


def test_of_applications_that_come_together_all_are_stored_or_none() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        good, bad = application("good"), application("bad")
        bad.ingress = "missing"
        with pytest.raises(Aborted, match="'missing' is not a deployment"):
            await servicer.Apply(control_pb2.ApplyRequest(applications=[good, bad]), Context())
        assert not (await servicer.Status(control_pb2.StatusRequest(), Context())).applications

    with_servicer(scenario)


def test_options_of_gateways_are_stored_once_and_not_over_those_of_another_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A request that is repeated changes nothing, also after another one."""

    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        first = mesh.stored().gateways
        requests = [
            control_pb2.ConfigureGatewaysRequest(
                options=control_pb2.GatewayOptions(http_port=port),
                expected=first,
                request_id=str(port),
                author="me@here",
            )
            for port in (8001, 8002)
        ]
        with caplog.at_level(logging.INFO, "mesh"):
            await servicer.ConfigureGateways(requests[0], Context())
        assert mesh.stored().gateways.http_port == 8001
        assert "change of the gateways is stored: " in caplog.text
        assert " (by me@here)" in caplog.text
        with pytest.raises(Aborted, match="Call again") as refused:
            await servicer.ConfigureGateways(requests[1], Context())
        assert refused.value.code is grpc.StatusCode.ABORTED
        back = control_pb2.ConfigureGatewaysRequest(options=first, expected=requests[0].options, request_id="back")
        await servicer.ConfigureGateways(back, Context())
        await servicer.ConfigureGateways(requests[0], Context())
        assert mesh.stored().gateways == first

    with_servicer(scenario)


def test_an_id_of_a_request_that_is_too_long_to_be_kept_is_refused() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        request = deploy_request()
        request.request_id = "x" * 101
        with pytest.raises(Aborted, match="has 101 characters, and at most 100 are allowed") as caught:
            await servicer.Deploy(request, Context())
        assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert not mesh.stored().applications

    with_servicer(scenario)


def test_a_shutdown_of_an_earlier_mesh_ends_nothing() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        await servicer.Deploy(deploy_request(), Context())
        with pytest.raises(Aborted, match="another one has started") as caught:
            await servicer.Shutdown(control_pb2.ShutdownRequest(mesh_id=b"that mesh"), Context())
        assert caught.value.code == grpc.StatusCode.ABORTED
        assert not mesh.stored().is_shutting_down
        for request in (control_pb2.ShutdownRequest(mesh_id=b"this mesh"), control_pb2.ShutdownRequest()):
            await servicer.Shutdown(request, Context())
        assert mesh.stored().is_shutting_down

    with_servicer(scenario)


def test_a_deploy_is_stored_and_shown_at_once() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        await servicer.Deploy(deploy_request(), Context())
        (app,) = (await servicer.Status(control_pb2.StatusRequest(), Context())).applications
        assert (app.status, app.last_deployed_time_s) == ("DEPLOYING", 12.5)
        assert mesh.kv.keys("code/")

    with_servicer(scenario)


def test_the_status_has_the_controller_itself() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        controller = (await servicer.Status(control_pb2.StatusRequest(), Context())).controller
        assert (controller.pid, controller.node_id, controller.age_s, controller.restarts) == (7, "n1", 10.0, 3)

    with_servicer(scenario)


def test_a_refused_deploy_stores_nothing() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        request = deploy_request()
        request.application.ingress = "Missing"
        with pytest.raises(Aborted, match="'Missing' is not a deployment") as caught:
            await servicer.Deploy(request, Context())
        assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert not mesh.kv.keys("code/")

    with_servicer(scenario)


def test_a_deploy_is_stored_before_it_is_acted_on() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        await servicer.Deploy(deploy_request(), Context())
        assert not mesh.cluster.replicas()
        await mesh.crash()
        await mesh.boot()
        await mesh.until(lambda: len(mesh.cluster.serving()) == 2)

    with_servicer(scenario)


def test_a_sync_stream_must_say_hello_first() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        context = Context()
        context.reports.put_nowait(control_pb2.Report())
        with pytest.raises(Aborted) as caught:
            await servicer.Sync(None, context)
        assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT

    with_servicer(scenario)


def test_a_sync_stream_follows_a_deployment_from_nothing_to_running_to_nothing() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        context = Context()
        model = common_pb2.DeploymentId(app="app", name="Model")
        hello = control_pb2.ProcessHello(process_id="p1", node_id="n1")
        context.reports.put_nowait(control_pb2.Report(hello=hello, subscribe=[model]))
        stream = asyncio.create_task(servicer.Sync(None, context))
        assert "does not exist" in (await context.updates.get()).snapshots[0].unavailable
        await servicer.Deploy(deploy_request(), Context())
        while len((await context.updates.get()).snapshots[0].replicas) < 2:
            continue
        await servicer.Delete(control_pb2.DeleteRequest(application="app"), Context())
        while not (await context.updates.get()).snapshots[0].unavailable:
            continue
        context.reports.put_nowait(grpc.aio.EOF)
        await stream

    with_servicer(scenario)


def test_a_sync_stream_without_a_subscriber_ends() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        async def fail(subscriber: object) -> control_pb2.Update:
            raise ZeroDivisionError("no update")

        mesh.publisher.next_update = fail  # type: ignore[assignment]
        context = Context()
        context.reports.put_nowait(control_pb2.Report(hello=control_pb2.ProcessHello(process_id="p1")))
        with pytest.raises(ZeroDivisionError):
            await servicer.Sync(None, context)

    with_servicer(scenario)


def test_a_replica_leaves_the_snapshots_before_it_drains() -> None:
    """Callers stop sending before it refuses calls (item 153)."""

    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        context = Context()
        model = common_pb2.DeploymentId(app="app", name="Model")
        context.reports.put_nowait(control_pb2.Report(hello=control_pb2.ProcessHello(), subscribe=[model]))
        stream = asyncio.create_task(servicer.Sync(None, context))
        await mesh.deploy("v1", 1)
        await mesh.until(lambda: mesh.app_status() == "RUNNING")
        listed: set[str] = set()
        drained_while_listed: list[str] = []
        drain = mesh.cluster._drain

        async def watched(actor: Any) -> None:
            while not context.updates.empty():
                update = context.updates.get_nowait()
                listed.clear()
                listed.update(each.replica_id for snapshot in update.snapshots for each in snapshot.replicas)
            if actor.spec.replica_id in listed:
                drained_while_listed.append(actor.spec.replica_id)
            await drain(actor)

        mesh.cluster._drain = watched  # type: ignore[method-assign]
        await mesh.deploy("v2", 1)
        await mesh.until(lambda: len(mesh.cluster.replicas()) == 1 == len(mesh.cluster.serving("v2")))
        assert listed
        assert not drained_while_listed
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)

    with_servicer(scenario)


def test_callers_find_each_replica_that_a_status_lists() -> None:
    """Also between two turns of the loop: `mesh.run` has returned, and the next call is to all replicas."""

    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        differences: list[set[str]] = []
        registry = mesh.loop._registry
        changed = registry._on_change

        def look() -> None:
            changed()
            (app,) = mesh.loop.status().applications
            running = {each.replica_id for each in app.deployments[0].replicas if each.state == "RUNNING"}
            shown = {each.replica_id for each in mesh.publisher._snapshots[KEY].newest.replicas}
            differences.append(running ^ shown)

        await mesh.deploy("v1", 3)
        registry._on_change = look
        await mesh.until(lambda: len(mesh.cluster.serving("v1")) == 3 and mesh.app_status() == "RUNNING")
        assert len(differences) > 3
        assert not any(differences)

    with_servicer(scenario)


def test_a_node_is_cordoned_drained_and_taken_back() -> None:
    """The answer shows the node as it is now; a request that is repeated changes nothing."""

    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        mesh.cluster.cpus["n2"] = 10.0
        await mesh.deploy("v1", 2)
        await mesh.until(lambda: len(mesh.cluster.serving("v1")) == 2)
        request = control_pb2.CordonRequest(node="n2", request_id="one", author="ada@host")
        for is_new in (True, False):
            reply = await servicer.Cordon(request, Context())
            assert (reply.is_new, reply.node.node_id, reply.node.status) == (is_new, "n2", "CORDONED")
        reply = await servicer.Cordon(control_pb2.CordonRequest(node="n2", is_draining=True), Context())
        assert (reply.is_new, reply.node.status, reply.node.replicas_to_move) == (True, "DRAINING", 1)
        (cordon,) = mesh.stored().cordons
        assert (cordon.node_id, cordon.is_draining, cordon.replicas, cordon.unix_time_s) == ("n2", True, 1, 12.5)
        reply = await servicer.Uncordon(control_pb2.UncordonRequest(node="n2"), Context())
        assert (reply.is_new, reply.node.status) == (True, "READY")
        assert not (await servicer.Uncordon(control_pb2.UncordonRequest(node="n2"), Context())).is_new

    with_servicer(scenario)


def test_a_node_that_is_not_there_is_refused_and_one_that_is_gone_can_be_uncordoned() -> None:
    async def scenario(servicer: ControlServicer, mesh: Mesh) -> None:
        with pytest.raises(Aborted, match=r"There is no node 'n7'. There are: n1, the head.") as refusal:
            await servicer.Cordon(control_pb2.CordonRequest(node="n7"), Context())
        assert refusal.value.code is grpc.StatusCode.NOT_FOUND
        mesh.cluster.cpus["n2"] = 10.0
        await mesh.until(lambda: len(mesh.loop.nodes) == 2)
        await servicer.Cordon(control_pb2.CordonRequest(node="n2"), Context())
        mesh.cluster.lose_node("n2")
        await mesh.until(lambda: len(mesh.loop.status().nodes) == 1)
        reply = await servicer.Uncordon(control_pb2.UncordonRequest(node="n2"), Context())
        assert (reply.is_new, reply.node.node_id, reply.node.status) == (True, "n2", "")

    with_servicer(scenario)
