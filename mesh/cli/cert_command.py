"""The commands `mesh certs` and `mesh token`: certificates for development, and API keys."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import click

from mesh.cli.command_errors import one_line_errors
from mesh.tls.development_ca import CertificatePaths, DevelopmentCa, Usage
from mesh.wire.api_key_lines import key_line

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_SERVER, _LINKS, _LINK_NAME = "server", "links", "mesh.internal"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}").fullmatch
_KEY_BYTES = 32


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME", help="DNS name or IP address of the gateways, besides localhost."
)
@click.option("--client", "clients", multiple=True, metavar="NAME", help="Make a certificate for this client too.")
@click.option("--links", is_flag=True, help="Make one for the links between processes of different nodes too.")
@click.option("--days", type=click.IntRange(1, 825), default=90, show_default=True, help="How long they are valid.")
@click.option("--force", is_flag=True, help="Replace certificates that are there. The authority stays.")
@one_line_errors
def certs(
    directory: Path, hosts: tuple[str, ...], clients: tuple[str, ...], links: bool, days: int, force: bool
) -> None:
    """Make certificates for development and tests in DIRECTORY.

    \b
    mesh certs certs                              an authority, and a server certificate for localhost
    mesh certs certs --host shop.example          for this name too; may be repeated
    mesh certs certs --client alice               also a client certificate, for mTLS
    mesh certs certs --links                      also one for links between nodes
    mesh certs certs --host localhost --force     a new one before the old one ends; gateways take it over by themselves

    The authority (ca.crt, ca.key) is made once per directory and signs all certificates in it. A server certificate is
    made if --host is given or there is none; it names localhost, 127.0.0.1, ::1 and each --host. Only you can read the
    keys. Never copy ca.key: anyone who has it can make certificates that your gateways and clients trust. In production
    take certificates of your own authority.
    """
    for name in clients:
        if not _NAME(name) or name in ("ca", _SERVER, _LINKS):
            raise ValueError(
                f"--client {name!r}: letters, digits and _.@- make a name, and it must not be ca, server or links."
            )
    needs_server = bool(hosts) or not CertificatePaths.of(directory, _SERVER).existing
    names = [*([_SERVER] if needs_server else ()), *clients, *([_LINKS] if links else ())]
    existing = [path for name in names for path in CertificatePaths.of(directory, name).existing]
    if existing and not force:
        raise ValueError(f"{', '.join(map(str, existing))}: already there. --force replaces them.")
    ca = DevelopmentCa(directory)
    if ca.is_new:
        click.echo(f"Made the authority   {ca.paths.certfile}")
    for name in names:
        click.echo(
            f"Made a certificate   {_issue(ca, name, list(dict.fromkeys((*_LOCAL_HOSTS, *hosts))), days).certfile}"
        )
    for line in _next_steps(directory.absolute(), clients, links=links):
        click.echo(line)


@click.command()
@click.argument("name")
@click.argument("attributes", nargs=-1, metavar="[KEY=VALUE]...")
@one_line_errors
def token(name: str, attributes: tuple[str, ...]) -> None:
    """Make an API key for client NAME, and the line for the file that gateways check it with.

    \b
    mesh token alice role=admin 2>>keys.txt       prints the key, and appends its line to keys.txt

    The key goes to standard output and the line to standard error. The line holds a hash, from which the key cannot be
    found; keep the key, it is shown only now. Clients send it as `authorization: Bearer KEY` or `x-api-key: KEY`.
    Gateways read the file named by grpc_options={"authentication": {"keys_file": ...}}, also when it changes.
    """
    pairs = [each.partition("=") for each in attributes]
    if not _NAME(name) or not all(key and equals for key, equals, _ in pairs):
        raise ValueError("NAME is made of letters, digits and _.@-, and attributes are KEY=VALUE.")
    if any(character.isspace() or character == "#" for each in attributes for character in each):
        raise ValueError("Attributes must not hold blanks or '#'.")
    key = secrets.token_urlsafe(_KEY_BYTES)
    click.echo(key)
    click.echo(key_line(name, key, {key: value for key, _, value in pairs}), err=True)


def _issue(ca: DevelopmentCa, name: str, hosts: Sequence[str], days: int) -> CertificatePaths:
    match name:
        case "server":
            return ca.issue(name, Usage.SERVER, hosts, days)
        case "links":
            return ca.issue(name, Usage.BOTH, [_LINK_NAME], days)
        case _:
            return ca.issue(name, Usage.CLIENT, (), days)


def _next_steps(directory: Path, clients: Sequence[str], *, links: bool) -> list[str]:
    options = [f'"ssl_certfile": "{directory}/server.crt"', f'"ssl_keyfile": "{directory}/server.key"']
    curl = f"curl --cacert {directory}/ca.crt"
    if clients:
        options.append(f'"ssl_ca_certs": "{directory}/ca.crt"')
        curl += f" --cert {directory}/{clients[0]}.crt --key {directory}/{clients[0]}.key"
    lines = ["", "Serve with it:", f"  mesh.start(grpc_options={{{', '.join(options)}}})"]
    lines += ["Call it:", f"  {curl} https://localhost:9000/..."]
    lines.append(f'  grpc.ssl_channel_credentials(open("{directory}/ca.crt", "rb").read(){", ..." if clients else ""})')
    if links:
        lines += ["Encrypt links: set on every node, before Ray starts,"]
        for name, file in (("CERTFILE", "links.crt"), ("KEYFILE", "links.key"), ("CA_CERTS", "ca.crt")):
            lines.append(f"  MESH_LINK_TLS_{name}={directory}/{file}")
    return lines
