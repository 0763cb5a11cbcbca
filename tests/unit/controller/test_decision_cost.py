"""What one autoscaling decision among 2,000 deployments costs: bytes written, requests to the store, and CPU time."""

import asyncio
import functools

from mesh.cluster.keys import CONTROLLER_STARTS_KEY, NUMBERS_KEY, STATE_KEY
from mesh.controller.desired.changes.desired_change import with_applications
from mesh.controller.desired.desired_keeper import DesiredKeeper
from mesh.controller.store.desired_store import StateStore
from mesh.options.deployments.autoscaling_options import AutoscalingConfig
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.sim.fake_mesh import Mesh
from tests.sim.fake_time import run_in_fake_time
from tests.unit.controller.builders import application
from tests.unit.controller.cpu_time import RUNS, measured
from tests.unit.controller.dict_kv import DictKeyValue

COUNT = 2000
NAME = DeploymentKey("app7", "Model")


class CountingKeyValue(DictKeyValue):
    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []
        """Operation and key."""
        self.written_bytes = 0

    def get(self, key: str) -> bytes | None:
        self.requests.append(("get", key))
        return super().get(key)

    def put(self, key: str, value: bytes) -> None:
        self.requests.append(("put", key))
        self.written_bytes += len(value)
        super().put(key, value)

    def delete(self, key: str) -> None:
        self.requests.append(("delete", key))
        super().delete(key)

    def keys(self, prefix: str) -> list[str]:
        self.requests.append(("keys", prefix))
        return super().keys(prefix)


def deploy_all(state: control_pb2.DesiredState) -> control_pb2.DesiredState:
    """Deployments that all follow their load, down to zero."""
    rules = AutoscalingConfig(min_replicas=0, max_replicas=10).to_message()
    apps = []
    for number in range(COUNT):
        app = application(f"app{number}", autoscaling=rules)
        app.deployments[0].ClearField("code")
        app.deployments[0].code_key = "code/" + 64 * "0"
        apps.append(app)
    return with_applications(state, apps, 0.0)


@functools.cache
def all_deployed() -> control_pb2.DesiredState:
    return deploy_all(control_pb2.DesiredState(version=1))


async def keeper_of_all(kv: DictKeyValue) -> DesiredKeeper:
    StateStore(kv).save(all_deployed())
    keeper = DesiredKeeper(StateStore(kv), lambda desired: None)
    await keeper.load(control_pb2.GatewayOptions())
    return keeper


def test_one_decision_writes_a_few_bytes_in_one_request() -> None:
    """Through the whole loop: a call finds no replica, and the first one is started. 2 KiB is the budget."""

    async def main() -> None:
        mesh = Mesh(seed=1)
        mesh.kv = kv = CountingKeyValue()
        StateStore(kv).save(all_deployed())
        await mesh.boot()
        await asyncio.sleep(5.0)
        kv.requests.clear()
        kv.written_bytes = 0
        load = control_pb2.DeploymentLoad(deployment={"app": NAME.app, "name": NAME.name}, queued=1.0)
        mesh.loop.autoscaler.report_load("caller", object(), [load])
        await mesh.until(lambda: mesh.loop.picture().desired.deployments[NAME].num_replicas == 1)
        look = ("get", CONTROLLER_STARTS_KEY)  # also made once a second, whatever is decided
        assert kv.requests[-2:] == [look, ("put", NUMBERS_KEY)]
        assert set(kv.requests[:-2]) <= {look}
        assert kv.written_bytes < 64
        await mesh.crash()

    run_in_fake_time(main())


def test_decisions_about_many_deployments_one_after_the_other_write_little_on_average() -> None:
    """Now and then the whole state is stored, with all numbers."""

    async def main() -> None:
        kv = CountingKeyValue()
        keeper = await keeper_of_all(kv)
        kv.requests.clear()
        decided = list(keeper.desired.deployments)[:200]
        for key in decided:
            await keeper.scale({key: (0, 1)})
        assert 1 <= kv.requests.count(("put", STATE_KEY)) <= len(decided) / 50
        assert [keeper.desired.deployments[key].num_replicas for key in decided] == [1] * len(decided)

    run_in_fake_time(main())


def test_one_decision_takes_two_milliseconds_at_most() -> None:
    """All other deployments are shared with the reading before."""

    async def main() -> list[float]:
        keeper = await keeper_of_all(DictKeyValue())
        before = keeper.desired.deployments
        times_s = []
        for number in range(RUNS):
            with measured() as spent:
                await keeper.scale({NAME: (number, number + 1)})
            times_s.append(spent.s)
        others = [key for key, target in keeper.desired.deployments.items() if target is not before[key]]
        assert others == [NAME]
        return times_s

    assert min(run_in_fake_time(main())) < 0.002
