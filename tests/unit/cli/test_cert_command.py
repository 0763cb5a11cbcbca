"""mesh.cli.cert_command: `mesh certs` and `mesh token`."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.access.api_keys import ApiKeys
from mesh.authentication import ClientRequest
from mesh.cli import main
from mesh.tls.certificate_files import CertificateFiles
from mesh.tls.tls_context import server_context
from mesh.wire.identity import Identity
from tests.unit.fakes.certificates import handshake


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main.main, [str(each) for each in arguments], catch_exceptions=False)


def context_of(directory: Path, ca_certs: str = "") -> ssl.SSLContext:
    files = CertificateFiles(
        options="test",
        certfile=str(directory / "server.crt"),
        keyfile=str(directory / "server.key"),
        ca_certs=ca_certs,
    )
    return server_context(files, ["h2"]).context


def test_client_and_server_certificates_of_one_directory_trust_each_other(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    result = run("certs", directory, "--client", "alice")
    assert result.exit_code == 0, result.output
    client = ssl.create_default_context(cafile=directory / "ca.crt")
    client.load_cert_chain(directory / "alice.crt", directory / "alice.key")
    _, answering = handshake(context_of(directory, str(directory / "ca.crt")), client)
    assert (answering.getpeercert() or {})["subject"] == ((("commonName", "alice"),),)


def test_the_output_says_what_to_do_next(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    lines = run("certs", directory, "--client", "alice", "--links").output
    for expected in (
        f'"ssl_certfile": "{directory}/server.crt"',
        f'"ssl_ca_certs": "{directory}/ca.crt"',
        f"curl --cacert {directory}/ca.crt --cert {directory}/alice.crt",
        f"MESH_LINK_TLS_CERTFILE={directory}/links.crt",
    ):
        assert expected in lines


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    run("certs", tmp_path / "certs", "--client", "alice", "--links")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "certs").iterdir()}
    names = ("ca", "server", "alice", "links")
    assert modes == {**{f"{name}.key": 0o600 for name in names}, **{f"{name}.crt": 0o644 for name in names}}


def test_nothing_is_overwritten_without_force_and_the_authority_never(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    run("certs", directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    result = run("certs", directory, "--host", "localhost")
    assert result.exit_code == 1
    assert "server.crt" in result.output
    assert "--force" in result.output
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert run("certs", directory, "--host", "localhost", "--force").exit_code == 0
    after = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"server.crt", "server.key"}


def test_a_client_is_added_without_touching_the_server(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    run("certs", directory)
    before = (directory / "server.crt").read_bytes()
    assert run("certs", directory, "--client", "bob").exit_code == 0
    assert (directory / "server.crt").read_bytes() == before
    assert (directory / "bob.crt").exists()


def test_hosts_are_names_and_addresses_besides_localhost(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    run("certs", directory, "--host", "mesh.example", "--host", "10.0.0.7", "--host", "localhost")
    client = ssl.create_default_context(cafile=directory / "ca.crt")
    client.check_hostname = False
    asking, _ = handshake(context_of(directory), client)
    names = (asking.getpeercert() or {})["subjectAltName"]
    assert [each for kind, each in names if kind == "DNS"] == ["localhost", "mesh.example"]
    assert [each for kind, each in names if kind == "IP Address"] == ["127.0.0.1", "0:0:0:0:0:0:0:1", "10.0.0.7"]


@pytest.mark.parametrize("name", ["ca", "server", "../alice", "a b", ""])
def test_names_of_clients_are_names_of_files(tmp_path: Path, name: str) -> None:
    result = run("certs", tmp_path / "certs", "--client", name)
    assert result.exit_code == 1
    assert not (tmp_path / "certs").exists()


def test_a_token_opens_the_door_that_its_line_describes(tmp_path: Path) -> None:
    """The key goes to standard output and the line to standard error."""
    result = run("token", "alice", "role=admin")
    keys, key = tmp_path / "keys.txt", result.stdout.strip()
    keys.write_text(result.stderr)
    assert key not in result.stderr
    checks = ApiKeys(str(keys))
    checks.reload()
    assert checks.check(ClientRequest(path="/a", metadata={"x-api-key": key})) == Identity("alice", {"role": "admin"})


@pytest.mark.parametrize("arguments", [("a b",), ("alice", "role"), ("alice", "=x"), ("alice", "role=a b")])
def test_lines_that_the_file_could_not_hold_are_refused(arguments: tuple[str, ...]) -> None:
    assert run("token", *arguments).exit_code == 1
