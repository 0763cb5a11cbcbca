"""The library hpack as a second opinion: it reads what we write, and we read what it writes."""

from __future__ import annotations

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.http2.hpack_decoder import Field, HeaderDecoder
from mesh.http2.hpack_encoder import encode_fields

names = st.one_of(
    st.sampled_from([b":method", b":path", b"content-type", b"x-a", b"x-b"]), st.binary(min_size=1, max_size=40)
)
any_fields = st.lists(st.tuples(names, st.binary(max_size=200), st.booleans()), max_size=8)


@given(blocks=st.lists(st.tuples(any_fields, st.booleans(), st.none() | st.integers(0, 4_096)), max_size=12))
@settings(max_examples=150, derandomize=True)
def test_we_read_what_hpack_writes(blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]]) -> None:
    encoder = hpack.Encoder()
    decoder: HeaderDecoder[list[Field]] = HeaderDecoder(list, 2**20)
    for written, is_huffman, table_bytes in blocks:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        for _ in range(2):
            block = encoder.encode(written, huffman=is_huffman)
            assert decoder.decode(block) == [(name, value) for name, value, _ in written]
    assert [(bytes(name), bytes(value)) for name, value in encoder.header_table.dynamic_entries] == list(decoder._table)


@given(blocks=st.lists(any_fields, max_size=6))
@settings(max_examples=100, derandomize=True)
def test_hpack_reads_what_we_write(blocks: list[list[tuple[bytes, bytes, bool]]]) -> None:
    decoder = hpack.Decoder()
    for written in blocks:
        fields = [(name, value) for name, value, _ in written]
        assert [tuple(each) for each in decoder.decode(encode_fields(fields), raw=True)] == fields
    assert not decoder.header_table.dynamic_entries
