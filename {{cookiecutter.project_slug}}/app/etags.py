"""ETags of single resources, and `If-Match` (RFC 9110, section 13.1.1), which keeps two clients
from overwriting each other's changes."""

import re
import uuid
from typing import Annotated

from fastapi import Header

from app.errors import Changed

_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')

IfMatch = Annotated[
    list[str] | None,
    Header(description="Change it only while its `ETag` is one of these; otherwise 412."),
]


def etag(version: uuid.UUID) -> str:
    return f'"{version.hex}"'


def require_match(if_match: list[str] | None, version: uuid.UUID) -> None:
    """Raises Changed when the client named versions and this one is not among them."""
    if if_match is None or _matches(", ".join(if_match), version):
        return
    raise Changed("It has been changed since you read it: read it again, then repeat your change.")


def _matches(if_match: str, version: uuid.UUID) -> bool:
    if if_match.strip() == "*":
        return True
    # A weak tag never matches here. What the cache adds after a dash tells apart what is shown: a
    # hash of it, and its coding. A change is of the row, whose version stands before the dash.
    return any(
        not weak and opaque.partition("-")[0] == version.hex
        for weak, opaque in _ENTITY_TAG.findall(if_match)
    )
