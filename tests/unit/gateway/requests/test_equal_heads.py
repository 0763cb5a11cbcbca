"""Heads that are read once."""

from __future__ import annotations

import pytest

from gateway.requests.equal_heads import EqualHeads
from gateway.requests.exchange import HttpHead
from tests.unit.fakes.fake_exchange import request


def test_what_is_kept_of_heads_has_a_limit() -> None:
    heads = EqualHeads(lambda head: [*head.fields])
    first = heads.read(request("/", ("x-request-id", "r1")))
    assert heads.read(request("/other", ("x-request-id", "r1"))) is first
    assert heads.read(request("/", ("x-request-id", "r2"))) == [(b"x-request-id", b"r2")]
    for number in range(3 * EqualHeads.KEPT_MAX):
        heads.read(request("/", ("x-request-id", str(number))))
        assert len(heads._kept) <= EqualHeads.KEPT_MAX
    many = [(f"x-{number}", "v") for number in range(EqualHeads.FIELDS_MAX + 1)]
    assert heads.read(request("/", *many)) is not heads.read(request("/", *many))


def test_a_head_that_is_wrong_is_wrong_each_time() -> None:
    def refuse(head: HttpHead) -> None:
        raise ValueError("wrong")

    heads = EqualHeads(refuse)
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong"):
            heads.read(request("/"))
