import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.entry import GENERATION_BYTES, Entry

GENERATIONS = dict.fromkeys(["planets", "planet:1"], b"g" * GENERATION_BYTES)
ENTRY = Entry(1, 2, 3, 4, 5, GENERATIONS, b"payload")


def test_an_entry_survives_the_round_trip() -> None:
    assert Entry.decode(ENTRY.encode()) == ENTRY


@given(st.binary(max_size=200))
def test_arbitrary_bytes_neither_raise_nor_decode(raw: bytes) -> None:
    assert Entry.decode(raw) is None


@pytest.mark.parametrize("length", range(len(ENTRY.encode())))
def test_a_truncated_entry_does_not_decode(length: int) -> None:
    assert Entry.decode(ENTRY.encode()[:length]) is None


def test_an_entry_of_another_version_does_not_decode() -> None:
    assert Entry.decode(b"fce0" + ENTRY.encode()[4:]) is None
