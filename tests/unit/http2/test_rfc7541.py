"""RFC 7541 (HPACK): the examples of its appendix C, the cases of h2spec, and what attackers do with it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mesh.http2.hpack_decoder as decoding
from mesh.http2.frame_format import ErrorCode, Http2Error
from mesh.http2.hpack_decoder import TABLE_MAX_BYTES, Field, HeaderDecoder
from mesh.http2.hpack_encoder import encode_field, encode_fields, encode_string

LIST_MAX_BYTES = 16 * 1024
LARGE = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4_000
"""A field of 4,001 bytes that is put into the dynamic table."""


def decoder() -> HeaderDecoder[list[Field]]:
    return HeaderDecoder(lambda fields: fields, LIST_MAX_BYTES)


def decoded(block: bytes) -> list[Field] | None:
    return decoder().decode(block)


def table_of(tested: HeaderDecoder[list[Field]]) -> list[Field]:
    return list(tested._table)


# ---- Appendix C ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "mask", "value"),
    [("0a", 0x1F, 10), ("1f9a0a", 0x1F, 1_337), ("2a", 0xFF, 42), ("1f00", 0x1F, 31), ("7f00", 0x7F, 127)],
)
def test_c1_integers(encoded: str, mask: int, value: int) -> None:
    data = bytes.fromhex(encoded)
    assert decoding._integer(data, 0, mask) == (value, len(data))


@pytest.mark.parametrize(
    ("block", "field", "is_kept"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), True),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False),
        ("100870617373776f726406736563726574", (b"password", b"secret"), False),
        ("82", (b":method", b"GET"), False),
    ],
)
def test_c2_representations_of_a_field(block: str, field: Field, is_kept: bool) -> None:
    tested = decoder()
    assert tested.decode(bytes.fromhex(block)) == [field]
    assert table_of(tested) == ([field] if is_kept else [])


REQUESTS = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        *((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")),
        (b"cache-control", b"no-cache"),
    ],
    [
        *((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html")),
        *((b":authority", b"www.example.com"), (b"custom-key", b"custom-value")),
    ],
]


@pytest.mark.parametrize(
    "blocks",
    [
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ],
    ids=["C.3", "C.4, with Huffman coding"],
)
def test_c3_c4_requests_on_one_connection(blocks: list[str]) -> None:
    tested = decoder()
    assert [tested.decode(bytes.fromhex(block)) for block in blocks] == REQUESTS
    assert table_of(tested) == [
        (b"custom-key", b"custom-value"),
        (b"cache-control", b"no-cache"),
        (b":authority", b"www.example.com"),
    ]
    assert tested._table_bytes == 164


DATE_21 = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
DATE_22 = (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")
LOCATION = (b"location", b"https://www.example.com")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
RESPONSES = [
    [(b":status", b"302"), (b"cache-control", b"private"), DATE_21, LOCATION],
    [(b":status", b"307"), (b"cache-control", b"private"), DATE_21, LOCATION],
    [
        *((b":status", b"200"), (b"cache-control", b"private"), DATE_22, LOCATION),
        *((b"content-encoding", b"gzip"), COOKIE),
    ],
]


@pytest.mark.parametrize(
    "blocks",
    [
        [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
            "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f"
            "3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076"
            "657273696f6e3d31",
        ],
        [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af2708"
            "7f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ],
    ],
    ids=["C.5", "C.6, with Huffman coding"],
)
def test_c5_c6_responses_with_a_table_of_256_bytes(blocks: list[str]) -> None:
    tested = decoder()
    tested.decode(b"\x3f\xe1\x01")
    assert [tested.decode(bytes.fromhex(block)) for block in blocks] == RESPONSES
    assert table_of(tested) == [COOKIE, (b"content-encoding", b"gzip"), DATE_22]
    assert tested._table_bytes == 215


# ---- What is broken --------------------------------------------------------------------------------------------------

BROKEN = [
    ("2.3.3", "an indexed field beyond the tables", b"\xbe"),
    ("2.3.3", "the name of a literal beyond the tables", b"\x7f\x00\x01x"),
    ("2.3.3", "an index that is far beyond", b"\xff\xff\xff\xff\x0f"),
    ("4.2", "a change of the table's size behind a field", b"\x82\x20"),
    ("4.2", "more changes of size than two", b"\x20\x3f\xe1\x1f\x20\x82"),
    ("5.1", "an integer that never ends", b"\xff" + b"\x80" * 20 + b"\x01"),
    ("5.1", "an integer that ends early", b"\xff\x80"),
    ("5.2", "a string longer than its block", b"\x00\x05ab"),
    ("5.2", "a name without a value", b"\x00\x01a"),
    ("5.2", "a literal without a name", b"\x00"),
    ("5.2", "a whole byte of padding", b"\x00\x01a\x82\x1f\xff"),
    ("5.2", "padding that is not of ones", b"\x00\x01a\x81\x18"),
    ("5.2", "the end-of-string symbol", b"\x00\x01a\x84\xff\xff\xff\xff"),
    ("5.2", "the end-of-string symbol behind a character", b"\x00\x01a\x85\x1f\xff\xff\xff\xff"),
    ("6.1", "index 0", b"\x80"),
    ("6.3", "a table larger than allowed", b"\x3f\xe2\x1f"),
]


@pytest.mark.parametrize(("section", "title", "block"), BROKEN)
def test_a_broken_block_is_a_compression_error(section: str, title: str, block: bytes) -> None:
    with pytest.raises(Http2Error) as fault:
        decoded(block)
    assert fault.value.code is ErrorCode.COMPRESSION_ERROR


def test_5_1_an_integer_is_given_up_before_it_is_large() -> None:
    with pytest.raises(Http2Error, match="integer"):
        decoded(b"\xff" + b"\xff" * 10_000)


@pytest.mark.parametrize(
    ("block", "value"),
    [(b"\x00\x01a\x80", b""), (b"\x00\x01a\x81\x1f", b"a"), (b"\x00\x01a\x82\x1c\x7f", b"ab"), (b"\x00\x01a\x00", b"")],
)
def test_5_2_strings_at_the_edge(block: bytes, value: bytes) -> None:
    assert decoded(block) == [(b"a", value)]


@given(st.binary(max_size=60))
@settings(max_examples=300, derandomize=True)
def test_any_bytes_are_fields_or_a_fault(block: bytes) -> None:
    tested = decoder()
    for _ in range(2):
        try:
            fields = tested.decode(block)
        except Http2Error:
            return
        assert fields is None or all(isinstance(part, bytes) for field in fields for part in field)


# ---- The dynamic table -----------------------------------------------------------------------------------------------


def test_4_4_a_field_larger_than_the_table_empties_it() -> None:
    tested = decoder()
    tested.decode(b"\x40\x01a\x01b")
    tested.decode(b"\x40\x01a" + encode_string(b"v" * 4_096))
    assert table_of(tested) == []
    assert tested._table_bytes == 0


def test_4_3_a_smaller_table_evicts_the_oldest() -> None:
    tested = decoder()
    tested.decode(b"\x40\x01a\x01b\x40\x01c\x01d")
    tested.decode(b"\x3f\x03")  # 34 bytes: one entry
    assert table_of(tested) == [(b"c", b"d")]
    assert tested.decode(b"\xbe") == [(b"c", b"d")]


def test_4_2_the_smallest_and_the_last_size_may_open_a_block() -> None:
    tested = decoder()
    tested.decode(b"\x40\x01a\x01b")
    assert tested.decode(b"\x20\x3f\xe1\x1f\x82") == [(b":method", b"GET")]
    assert table_of(tested) == []


def test_the_name_of_an_entry_that_its_own_insertion_evicts() -> None:
    """§4.4: the name is read before the entry goes."""
    tested = decoder()
    tested.decode(LARGE)
    assert tested.decode(b"\x7e\x7f\xa1\x1e" + b"w" * 4_000) == [(b"a", b"w" * 4_000)]
    assert table_of(tested) == [(b"a", b"w" * 4_000)]


def test_a_block_that_repeats_is_read_once_until_the_table_changes() -> None:
    read: list[list[Field]] = []
    tested: HeaderDecoder[int] = HeaderDecoder(lambda fields: read.append(fields) or len(read), LIST_MAX_BYTES)
    tested.decode(b"\x40\x01a\x01b")
    assert [tested.decode(b"\xbe") for _ in range(3)] == [2, 2, 2]
    tested.decode(b"\x40\x01c\x01d")
    assert tested.decode(b"\xbe") == 4
    assert read[-1] == [(b"c", b"d")]
    tested.decode(b"\x20")
    with pytest.raises(Http2Error):
        tested.decode(b"\xbe")


def test_a_block_that_was_refused_for_its_length_still_changes_the_table() -> None:
    tested = decoder()
    assert tested.decode(LARGE + b"\xbe" * 4) is None
    assert table_of(tested) == [(b"a", b"v" * 4_000)]
    assert tested.decode(b"\xbe") == [(b"a", b"v" * 4_000)]


def test_fields_up_to_the_limit_are_read() -> None:
    room = LIST_MAX_BYTES - 33
    assert decoded(b"\x00\x01a" + encode_string(b"v" * room)) == [(b"a", b"v" * room)]
    assert decoded(b"\x00\x01a" + encode_string(b"v" * (room + 1))) is None


# ---- Attacks ---------------------------------------------------------------------------------------------------------


def test_a_bomb_of_references_ends_the_connection() -> None:
    tested = decoder()
    tested.decode(LARGE)
    with pytest.raises(Http2Error) as fault:
        tested.decode(b"\xbe" * 4_000)
    assert fault.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_a_list_of_empty_fields_is_bounded() -> None:
    with pytest.raises(Http2Error) as fault:
        decoded(b"\0\0\0" * 5_000)
    assert fault.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_the_blocks_that_are_kept_are_few_and_small() -> None:
    tested = decoder()
    for number in range(1_000):
        tested.decode(encode_field(b"n", b"%d" % number))
    tested.decode(encode_field(b"n", b"v" * 1_000))
    assert len(tested._kept) <= 64
    assert max(map(len, tested._kept)) <= 512


def test_long_strings_are_not_kept_beyond_their_connection() -> None:
    kept = decoding._short_huffman.cache_info().currsize
    for first in (0x00, 0x08, 0x10, 0x18):
        fields = decoded(b"\x00\x01a" + bytes((0x80 | 70, first)) + bytes(69))
        assert fields is not None
        assert fields[0][1][1:] == b"0" * 111
    assert decoding._short_huffman.cache_info().currsize == kept
    assert decoding._short_huffman.cache_info().maxsize * decoding._HUFFMAN_KEPT_BYTES_MAX < 2**20


# ---- The encoder -----------------------------------------------------------------------------------------------------

names = st.binary(min_size=1, max_size=200)
values = st.binary(max_size=300)


@given(st.lists(st.tuples(names, values), max_size=20))
@settings(max_examples=100, derandomize=True)
def test_what_is_encoded_is_decoded_and_leaves_no_trace(fields: list[Field]) -> None:
    tested = decoder()
    assert tested.decode(encode_fields(fields)) in (fields, None)
    assert table_of(tested) == []


def test_a_field_of_the_static_table_is_one_byte() -> None:
    assert encode_field(b":method", b"POST") == b"\x83"
    assert encode_field(b":status", b"200") == b"\x88"
    assert encode_field(b":path", b"/x") == b"\x04\x02/x"


# ---- hpack -----------------------------------------------------------------------------------------------------------


def test_hpack_still_has_the_tables_that_we_borrow() -> None:
    """They are not its public face, so pyproject.toml pins its version: look here before you raise it."""
    from hpack.exceptions import HPACKDecodingError
    from hpack.huffman_table import decode_huffman
    from hpack.table import HeaderTable

    assert decode_huffman(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")) == b"www.example.com"
    assert decode_huffman(b"") == b""
    for broken in (b"\xff\xff\xff\xff", b"\x1f\xff", b"\x18"):
        with pytest.raises(HPACKDecodingError):
            decode_huffman(broken)
    assert len(HeaderTable.STATIC_TABLE) == 61
    assert decoding.STATIC_TABLE[1] == (b":authority", b"")
    assert decoding.STATIC_TABLE[61] == (b"www-authenticate", b"")
    assert TABLE_MAX_BYTES == HeaderTable.DEFAULT_SIZE
