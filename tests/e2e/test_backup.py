"""`mesh backup`, the end of the mesh, and `mesh restore` on a real Ray."""

import stat
from pathlib import Path

import grpc
from click.testing import CliRunner

import mesh
from mesh.cli import main
from tests.e2e import leftovers
from tests.e2e.conftest import Gateway
from tests.e2e.gate import small
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc


@small()
class Kept:
    def __init__(self, factor: int) -> None:
        self._factor = factor

    def __call__(self, number: int) -> int:
        return number * self._factor


@small()
class KeptShop(shop_pb2_grpc.ShopServicer):
    """Its callee, its bound argument and its options come back with it."""

    def __init__(self, kept: mesh.DeploymentHandle[Kept], name: str) -> None:
        self._kept = kept
        self._name = name

    async def Price(self, request: shop_pb2.Item, context: object) -> shop_pb2.Item:
        return shop_pb2.Item(name=f"{self._name} {await self._kept.remote(7)}")


def test_a_mesh_that_was_shut_down_serves_again_from_its_backup(gateway: Gateway, tmp_path: Path) -> None:
    """Gateways, applications and code are in the file: no module of the application is needed (item 182)."""
    file = str(tmp_path / "shop.backup")
    runner = CliRunner()
    mesh.run(KeptShop.bind(Kept.bind(6), "six times"), name="kept", route_prefix="/kept")
    written = runner.invoke(main.main, ["backup", file])
    assert written.exit_code == 0, written.output
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    mesh.shutdown()
    until(lambda: not leftovers.mesh_processes())
    try:
        restored = runner.invoke(main.main, ["restore", file])
        assert restored.exit_code == 0, restored.output
        with grpc.insecure_channel(gateway.grpc_address) as channel:
            call = shop_pb2_grpc.ShopStub(channel).Price(
                shop_pb2.Item(name="x"), metadata=(("application", "kept"),), wait_for_ready=True, timeout=20
            )
        assert call.name == "six times 42"
        again = runner.invoke(main.main, ["restore", file])
        assert (again.exit_code, again.output.splitlines()[0]) == (0, "Nothing changes."), again.output
        history = runner.invoke(main.main, ["history", "kept"]).output
        assert "  restore  " in history
    finally:
        gateway.start_mesh()
        mesh.delete("kept")
