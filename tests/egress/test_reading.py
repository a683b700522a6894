"""The inflater against zlib itself, whatever the pieces that the data comes in."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from penstock.egress.errors import EgressError
from penstock.egress.reading import Inflater

DATA = st.one_of(st.binary(max_size=2000), st.integers(0, 20_000).map(lambda n: b"a" * n))


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _inflated(packed: bytes, size: int, bytes_max: int, *, gzip: bool) -> Inflater:
    inflater = Inflater(bytes_max, gzip=gzip)
    for piece in _pieces(packed, size):
        inflater.feed(piece)
    return inflater


@given(DATA, st.integers(1, 100), st.integers(0, 3000))
def test_gzip_gives_the_data_up_to_the_limit(data: bytes, size: int, bytes_max: int) -> None:
    inflater = _inflated(gzip.compress(data), size, bytes_max, gzip=True)
    assert inflater.body() == data[:bytes_max]
    assert inflater.full is (len(data) > bytes_max)


@given(DATA, st.integers(1, 100), st.sampled_from([15, -15]))
def test_deflate_is_read_with_and_without_its_header(data: bytes, size: int, wbits: int) -> None:
    packer = zlib.compressobj(wbits=wbits)
    packed = packer.compress(data) + packer.flush()
    assert _inflated(packed, size, 100_000, gzip=False).body() == data


@given(st.lists(st.binary(max_size=100), max_size=5), st.integers(1, 100))
def test_all_members_of_a_gzip_stream_are_read(parts: list[bytes], size: int) -> None:
    packed = b"".join(map(gzip.compress, parts)) + b"\0" * 3
    if parts:
        assert _inflated(packed, size, 100_000, gzip=True).body() == b"".join(parts)


@given(st.binary(max_size=500), st.integers(1, 100), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, size: int, gzip: bool) -> None:
    with suppress(EgressError):
        _inflated(data, size, 1000, gzip=gzip)
