"""mesh.controller.report.publisher: full first, then what changed, to whom it concerns, in bounded memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from mesh.controller.desired.desired_state import Desired
from mesh.controller.report.publisher import Publisher, Subscriber
from mesh.controller.report.snapshots import build_routes
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2
from tests.unit.controller.builders import KEY, application, desired_of

OTHER = DeploymentKey("app", "Other")
NOTHING = Desired()


def hello(
    process_id: str = "p1",
    kind: control_pb2.ProcessKind = control_pb2.PROCESS_KIND_CALLER,
    node_id: str = "n1",
) -> control_pb2.ProcessHello:
    return control_pb2.ProcessHello(process_id=process_id, node_id=node_id, kind=kind, address=f"{process_id}:1")


def snapshot(key: DeploymentKey = KEY, *replica_ids: str) -> control_pb2.DeploymentSnapshot:
    message = control_pb2.DeploymentSnapshot(deployment={"app": key.app, "name": key.name})
    for replica_id in replica_ids:
        message.replicas.add(replica_id=replica_id)
    return message


def publish(publisher: Publisher, desired: Desired, *snapshots: control_pb2.DeploymentSnapshot) -> None:
    by_key = {DeploymentKey(each.deployment.app, each.deployment.name): each for each in snapshots}
    publisher.publish(desired, by_key, build_routes(desired))


async def next_update(publisher: Publisher, subscriber: Subscriber) -> control_pb2.Update:
    """The next update, which must be there immediately."""
    async with asyncio.timeout(0):
        return await publisher.next_update(subscriber)


async def is_silent(publisher: Publisher, subscriber: Subscriber) -> bool:
    try:
        await next_update(publisher, subscriber)
    except TimeoutError:
        return True
    return False


def replica_ids(update: control_pb2.Update) -> Sequence[str]:
    return [replica.replica_id for each in update.snapshots for replica in each.replicas]


async def _subscribed(*keys: DeploymentKey) -> tuple[Publisher, Subscriber]:
    publisher = Publisher(first_version=7)
    subscriber = publisher.open(hello())
    publisher.subscribe(subscriber, keys)
    return publisher, subscriber


def test_a_stream_hears_what_it_subscribed_to_and_nothing_else() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"), snapshot(OTHER, "r2"))
        update = await next_update(publisher, subscriber)
        assert replica_ids(update) == ["r1"]
        assert not update.HasField("routes")
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"), snapshot(OTHER, "r3"))
        assert await is_silent(publisher, subscriber)

    asyncio.run(scenario())


def test_versions_only_rise() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        versions = []
        for replica_id in ("r1", "r2", "r3"):
            publish(publisher, desired_of(application()), snapshot(KEY, replica_id))
            versions.append((await next_update(publisher, subscriber)).snapshots[0].version)
        assert versions == sorted(set(versions))
        assert versions[0] > 7

    asyncio.run(scenario())


def test_what_did_not_change_is_not_told_again() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        await next_update(publisher, subscriber)
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        assert await is_silent(publisher, subscriber)

    asyncio.run(scenario())


def test_a_stream_that_does_not_read_hears_only_the_newest() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        for number in range(1000):
            publish(publisher, desired_of(application()), snapshot(KEY, f"r{number}"))
        assert replica_ids(await next_update(publisher, subscriber)) == ["r999"]
        assert await is_silent(publisher, subscriber)

    asyncio.run(scenario())


def test_what_does_not_exist_is_unavailable_until_it_is_deployed() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        received = (await next_update(publisher, subscriber)).snapshots[0]
        assert received.unavailable == "Application 'app' does not exist. Applications: none."
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        received = (await next_update(publisher, subscriber)).snapshots[0]
        assert not received.unavailable
        assert replica_ids(control_pb2.Update(snapshots=[received])) == ["r1"]

    asyncio.run(scenario())


def test_an_unknown_deployment_is_answered_with_the_names_of_the_known_ones() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(OTHER)
        await next_update(publisher, subscriber)
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        received = (await next_update(publisher, subscriber)).snapshots[0]
        assert received.unavailable == "Application 'app' has no deployment 'Other'. Its deployments: Model."

    asyncio.run(scenario())


def test_a_deleted_deployment_becomes_unavailable() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        await next_update(publisher, subscriber)
        publish(publisher, NOTHING)
        received = (await next_update(publisher, subscriber)).snapshots[0]
        assert "does not exist" in received.unavailable
        assert not received.replicas

    asyncio.run(scenario())


def test_a_gateway_hears_routes_first_even_when_there_are_none() -> None:
    async def scenario() -> None:
        publisher = Publisher(first_version=7)
        gateway = publisher.open(hello("g1", control_pb2.PROCESS_KIND_GATEWAY))
        assert (await next_update(publisher, gateway)).routes.version == 7
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        update = await next_update(publisher, gateway)
        assert [(route.app, route.route_prefix, route.ingress) for route in update.routes.routes] == [
            ("app", "/app", "Model")
        ]

    asyncio.run(scenario())


def test_a_gateway_gets_descriptors_once_on_a_stream() -> None:
    """They are large, and a route table is published at every deploy."""

    def described(*names: str) -> Desired:
        apps = [application(name) for name in names]
        for app in apps:
            app.descriptors_digest = f"digest of {app.name}"
        sets = {app.descriptors_digest: app.name.encode() for app in apps}
        return replace(desired_of(*apps), descriptor_sets=sets)

    async def received(publisher: Publisher, gateway: Subscriber) -> dict[str, bytes]:
        routes = (await next_update(publisher, gateway)).routes
        return {each.digest: each.serialised for each in routes.descriptor_sets}

    async def scenario() -> None:
        publisher = Publisher(first_version=7)
        gateway = publisher.open(hello("g1", control_pb2.PROCESS_KIND_GATEWAY))
        publish(publisher, described("a"))
        assert await received(publisher, gateway) == {"digest of a": b"a"}
        publish(publisher, described("a", "b"))
        assert await received(publisher, gateway) == {"digest of b": b"b"}
        publish(publisher, described("b"))
        assert await received(publisher, gateway) == {}
        publish(publisher, described("a", "b"))
        assert await received(publisher, gateway) == {"digest of a": b"a"}
        late = publisher.open(hello("g2", control_pb2.PROCESS_KIND_GATEWAY, node_id="n2"))
        assert await received(publisher, late) == {"digest of a": b"a", "digest of b": b"b"}

    asyncio.run(scenario())


def test_a_gateway_keeps_its_routes_at_a_shutdown() -> None:
    """It refuses new calls itself, so no client reads that its application does not exist."""

    async def scenario() -> None:
        publisher = Publisher(first_version=7)
        gateway = publisher.open(hello("g1", control_pb2.PROCESS_KIND_GATEWAY))
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        await next_update(publisher, gateway)
        publish(publisher, Desired(is_shutting_down=True), snapshot(KEY, "r1"))
        assert await is_silent(publisher, gateway)

    asyncio.run(scenario())


def test_a_gateway_hears_of_the_other_processes_of_its_node() -> None:
    async def scenario() -> None:
        publisher = Publisher(first_version=7)
        gateway = publisher.open(hello("g1", control_pb2.PROCESS_KIND_GATEWAY))
        await next_update(publisher, gateway)
        caller = publisher.open(hello("p1"))
        publisher.open(hello("p2", node_id="n2"))
        assert [peer.process_id for peer in (await next_update(publisher, gateway)).peers.peers] == ["p1"]
        publisher.close(caller)
        assert not (await next_update(publisher, gateway)).peers.peers

    asyncio.run(scenario())


def test_the_controller_is_a_process_of_its_node() -> None:
    """Only the gateway there collects its metrics, so they are counted once."""

    async def scenario() -> None:
        publisher = Publisher(first_version=7)
        publisher.own_process = hello("controller", control_pb2.PROCESS_KIND_CONTROLLER)
        near = publisher.open(hello("g1", control_pb2.PROCESS_KIND_GATEWAY))
        far = publisher.open(hello("g2", control_pb2.PROCESS_KIND_GATEWAY, node_id="n2"))
        assert [peer.process_id for peer in (await next_update(publisher, near)).peers.peers] == ["controller"]
        assert not (await next_update(publisher, far)).peers.peers

    asyncio.run(scenario())


def test_a_flush_waits_until_streams_have_written_their_updates() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        await next_update(publisher, subscriber)
        settling = asyncio.create_task(publisher.flush())
        await asyncio.sleep(0)
        assert not settling.done()  # taken, but it may not be written yet
        writing = asyncio.create_task(publisher.next_update(subscriber))
        await asyncio.wait_for(settling, 10.0)
        writing.cancel()

    asyncio.run(scenario())


def test_settling_does_not_wait_for_a_stream_that_is_gone() -> None:
    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        settling = asyncio.create_task(publisher.flush())
        await asyncio.sleep(0)
        assert not settling.done()
        publisher.close(subscriber)
        await asyncio.wait_for(settling, 10.0)

    asyncio.run(scenario())


def test_a_stream_that_reads_changes_gets_only_what_is_new() -> None:
    """One that does not, of an older version of the mesh, gets whole snapshots."""

    async def scenario() -> None:
        publisher = Publisher(first_version=7)
        new = publisher.open(control_pb2.ProcessHello(process_id="new", reads_changes=True))
        old = publisher.open(control_pb2.ProcessHello(process_id="old"))
        for each in (new, old):
            publisher.subscribe(each, [KEY])
        publish(publisher, desired_of(application()), snapshot(KEY, "r1", "r2", "r3", "r4", "r5"))
        for each in (new, old):
            assert replica_ids(await next_update(publisher, each)) == ["r1", "r2", "r3", "r4", "r5"]
        publish(publisher, desired_of(application()), snapshot(KEY, "r1", "r3", "r4", "r5", "r6"))
        publish(publisher, desired_of(application()), snapshot(KEY, "r1", "r3", "r4", "r5", "r6", "r7"))
        update = await next_update(publisher, new)
        assert replica_ids(update) == ["r6", "r7"]
        assert [list(each.removed_replica_ids) for each in update.snapshots] == [["r2"], []]
        assert replica_ids(await next_update(publisher, old)) == ["r1", "r3", "r4", "r5", "r6", "r7"]

    asyncio.run(scenario())


def test_a_stream_that_subscribes_again_gets_a_whole_snapshot() -> None:
    async def scenario() -> None:
        publisher = Publisher(first_version=7)
        stream = publisher.open(control_pb2.ProcessHello(process_id="p", reads_changes=True))
        publisher.subscribe(stream, [KEY])
        publish(publisher, desired_of(application()), snapshot(KEY, "r1", "r2", "r3"))
        await next_update(publisher, stream)
        publisher.unsubscribe(stream, [KEY])
        publisher.subscribe(stream, [KEY])
        assert replica_ids(await next_update(publisher, stream)) == ["r1", "r2", "r3"]

    asyncio.run(scenario())


def test_what_drains_in_one_turn_waits_together() -> None:
    """Until all streams have what was published before; a later change is another wait."""

    async def scenario() -> None:
        publisher, subscriber = await _subscribed(KEY)
        publish(publisher, desired_of(application()), snapshot(KEY, "r1"))
        tasks = len(asyncio.all_tasks())
        waits = [asyncio.create_task(publisher.flush()) for _ in range(5)]
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == tasks + len(waits) + 1
        publish(publisher, desired_of(application()), snapshot(KEY, "r2"))
        later = asyncio.create_task(publisher.flush())
        await asyncio.sleep(0)
        assert not any(each.done() for each in (*waits, later))
        await next_update(publisher, subscriber)
        written = asyncio.create_task(publisher.next_update(subscriber))
        await asyncio.gather(*waits, later)
        written.cancel()

    asyncio.run(scenario())


async def _waits_for_gateways() -> None:
    publisher = Publisher(first_version=7)
    publisher.open(hello("caller"))
    first = publisher.open(hello("g1", control_pb2.PROCESS_KIND_GATEWAY))
    both = asyncio.create_task(publisher.gateways_know(2))
    await next_update(publisher, first)
    assert await is_silent(publisher, first)
    await asyncio.sleep(0)
    assert not both.done(), "one of two has a stream"
    second = publisher.open(hello("g2", control_pb2.PROCESS_KIND_GATEWAY, "n2"))
    await next_update(publisher, second)
    await asyncio.sleep(0)
    assert not both.done(), "nothing says yet that it was written"
    assert await is_silent(publisher, second)
    await both
    await publisher.gateways_know(1)


def test_a_wait_for_gateways_ends_when_all_have_streams_and_were_written_to() -> None:
    """A process that is no gateway counts for none."""
    asyncio.run(asyncio.wait_for(_waits_for_gateways(), 5.0))
    assert settings().controller.return_timeout_s == 3.0, "it ends by itself"
