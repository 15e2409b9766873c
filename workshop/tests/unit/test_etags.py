"""`If-Match`, as RFC 9110 section 13.1.1 has it."""

import uuid

import pytest

from app.errors import Changed
from app.etags import etag, require_match

VERSION = uuid.UUID("00000000-0000-4000-8000-00000000abcd")
CURRENT = etag(VERSION)
OTHER = etag(uuid.UUID(int=1))
AS_SHOWN = CURRENT[:-1] + '-3b1010c3fdbbc2a8"'
COMPRESSED = CURRENT[:-1] + '-3b1010c3fdbbc2a8-gzip"'


def test_an_etag_is_the_version_in_quotes() -> None:
    assert CURRENT == '"0000000000004000800000000000abcd"'


@pytest.mark.parametrize(
    "if_match",
    [
        None,
        ["*"],
        [CURRENT],
        [f"{OTHER}, {CURRENT}"],
        [f"{OTHER},{CURRENT}"],
        [OTHER, CURRENT],
        [AS_SHOWN],
        [COMPRESSED],
        [f"W/{CURRENT}, {CURRENT}"],
    ],
)
def test_a_change_may_go_on(if_match: list[str] | None) -> None:
    require_match(if_match, VERSION)


@pytest.mark.parametrize(
    "if_match",
    [
        [""],
        [OTHER],
        [f"{OTHER}, {OTHER}"],
        [f"W/{CURRENT}"],
        [f"W/{COMPRESSED}"],
        [CURRENT.strip('"')],
        [CURRENT.replace("abcd", "abcde")],
        [f'"{CURRENT}"'.replace('""', '"x"')],
        ['"*"'],
    ],
)
def test_a_change_is_refused(if_match: list[str]) -> None:
    with pytest.raises(Changed):
        require_match(if_match, VERSION)
