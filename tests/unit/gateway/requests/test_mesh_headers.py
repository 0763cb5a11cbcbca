"""Headers that speak to the mesh."""

from __future__ import annotations

import pytest

from gateway.requests.mesh_headers import NO_MESH_HEADERS, MeshHeaders, read_mesh_headers, tenant_of, timeout_of
from mesh.wire.identity import Identity


@pytest.mark.parametrize(
    "name",
    [
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"serve-multiplexed_model-id",
        b"ray_serve_multiplexed_model_id",
        b"ray-serve-multiplexed-model-id",
        b"mesh-multiplexed-model-id",
        b"multiplexed_model_id",
    ],
)
def test_every_spelling_of_the_model_id_is_read(name: bytes) -> None:
    """Every spelling of the model id is read (item 124, C8)."""
    assert read_mesh_headers([(b"accept", b"*/*"), (name, b"m1")]).multiplexed_model_id == "m1"


def test_a_request_that_says_nothing_shares_one_record() -> None:
    assert read_mesh_headers([(b"host", b"x"), (b"accept", b"*/*")]) is NO_MESH_HEADERS


def test_all_of_them_are_read() -> None:
    """All of them are read (items 204, 205, 206)."""
    fields = [
        (b"x-request-id", b"r1"),
        (b"x-session-id", b"s1"),
        (b"X-Tenant_ID".lower(), b"t1"),
        (b"traceparent", b"00-1-2-01"),
        (b"tracestate", b"a=1"),
        (b"x-request-timeout-seconds", b"1.5"),
        (b"x-request-disconnect-disabled", b"?1"),
    ]
    assert read_mesh_headers(fields) == MeshHeaders("r1", "", "s1", "t1", "00-1-2-01", "a=1", "1.5", True)


def test_the_first_of_two_counts() -> None:
    assert read_mesh_headers([(b"x-request-id", b"a"), (b"x-request-id", b"b")]).request_id == "a"


@pytest.mark.parametrize("request_id", ["x" * 201, "a\x01b", "ü"])
def test_a_request_id_that_cannot_be_returned_is_none(request_id: str) -> None:
    """A request id that cannot be returned is none (item 204)."""
    assert read_mesh_headers([(b"x-request-id", request_id.encode())]).request_id == ""


@pytest.mark.parametrize("value", ["?0", "1", "true", ""])
def test_only_a_true_boolean_keeps_a_request_without_its_client(value: str) -> None:
    """Only a true boolean keeps a request without its client (item 206)."""
    assert not read_mesh_headers([(b"x-request-disconnect-disabled", value.encode())]).outlives_client


@pytest.mark.parametrize(
    "text",
    [
        *["", ".", "0", "-1", "soon", "nan", "inf", "1e999", "1" * 21],
        *["1_0", " 1", "1 ", "1\n", "+1", "1e3", "0x10", "\N{ARABIC-INDIC DIGIT ONE}", "\N{FULLWIDTH DIGIT ONE}"],
    ],
)
def test_a_timeout_is_a_positive_number_of_ascii_digits(text: str) -> None:
    """A timeout is a positive number (item 205), and no other text that `float` takes."""
    with pytest.raises(ValueError, match="x-request-timeout-seconds must be a number of seconds above 0"):
        timeout_of(text)


def test_a_timeout_may_be_a_fraction() -> None:
    """A timeout may be a fraction (item 205)."""
    assert [timeout_of(text) for text in ("0.25", ".5", "2.", "007")] == [0.25, 0.5, 2.0, 7.0]


@pytest.mark.parametrize(
    ("said", "attributes", "tenant"),
    [
        ("", None, ""),
        ("acme", None, "acme"),
        ("acme", {"role": "admin"}, "acme"),
        ("", {"tenant": "globex"}, "globex"),
        ("acme", {"tenant": "globex"}, "globex"),
    ],
)
def test_a_client_that_belongs_to_a_tenant_cannot_name_another(
    said: str, attributes: dict[str, str] | None, tenant: str
) -> None:
    """What the gateway has verified counts (item 206)."""
    assert tenant_of(said, None if attributes is None else Identity("alice", attributes)) == tenant
