"""gateway.http1.answer_head: heads that are kept say the same as new ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1 import answer_head
from gateway.http1.answer_head import AnswerError, AnswerHead, Asked, Framing, write_head

FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"date", b"content-length", b"connection", b"upgrade", b"x-request-id", b"A", b"b c"]),
        st.sampled_from([b"1", b"2", b"close", b"x\r\ny", b"z" * 2_000]),
    ),
    max_size=4,
)
ASKED = st.builds(Asked, is_head=st.booleans(), is_old=st.booleans(), keeps_alive=st.booleans())


def outcome(asked: Asked, status: int, fields: list[tuple[bytes, bytes]], length: int | None) -> AnswerHead | str:
    try:
        return write_head(asked, status, fields, b"now", length)
    except AnswerError as error:
        return str(error)


@given(ASKED, st.sampled_from([199, 200, 204, 304, 599, 1000]), FIELDS, st.sampled_from([None, 0, 1]))
def test_a_kept_head_says_what_a_new_one_says(
    asked: Asked, status: int, fields: list[tuple[bytes, bytes]], length: int | None
) -> None:
    before = outcome(asked, status, fields, length)
    assert outcome(asked, status, fields, length) == before
    answer_head._usual_lines.clear()
    assert outcome(asked, status, fields, length) == before
    if isinstance(before, AnswerHead):
        lines = before.data.split(b"\r\n")
        assert lines[-2:] == [b"", b""]
        assert not any(b"\n" in line or b"\r" in line for line in lines)
        assert lines.count(b"connection: close") == (not before.keeps_alive)
        assert (b"transfer-encoding: chunked" in lines) == (before.framing is Framing.CHUNKED)


def test_ids_of_requests_stay_with_their_answers() -> None:
    for request_id in (b"one", b"two"):
        head = write_head(Asked(), 200, [(b"a", b"1"), (b"x-request-id", request_id)], b"now", 0)
        assert head.data.count(b"x-request-id") == 1
        assert b"x-request-id: %b\r\n" % request_id in head.data


@pytest.mark.parametrize("request_id", [b"a\r\nb: c", b"a\nb", b"\0"])
def test_an_id_cannot_begin_another_field(request_id: bytes) -> None:
    with pytest.raises(AnswerError):
        write_head(Asked(), 200, [(b"x-request-id", request_id)], b"now", 0)


def test_few_and_small_heads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_head, "_usual_lines", {})
    monkeypatch.setattr(answer_head, "_KEPT_MAX", 4)
    for number in range(9):
        write_head(Asked(), 200, [(b"a", b"%d" % number)], b"now", 0)
        assert len(answer_head._usual_lines) <= 4
    kept = len(answer_head._usual_lines)
    write_head(Asked(), 200, [(b"a", b"x" * 2_000)], b"now", 0)
    assert len(answer_head._usual_lines) == kept
