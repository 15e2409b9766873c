"""What all peers serve: pages of the countries that the service itself has, from memory.

They have no database, as a hit asks none. The folder BODIES holds the service's own list of all of
them. Every computed page is counted, so that a cache that computes is found out (`/computed`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel

EXPIRE_SECONDS = 300
# As in the service. Not what FastAPI does by itself, but it makes all of them faster, and has nothing
# to do with a cache.
TELEMETRY = {"tracing": False, "metrics": False, "logs": False}


class Country(BaseModel):
    alpha_2: str
    alpha_3: str
    numeric: str
    name: str
    official_name: str | None
    region: str | None
    subregion: str | None
    currencies: list[str]


class Page(BaseModel):
    items: list[Country]
    total: int
    limit: int
    offset: int


_ROWS = json.loads((Path(os.environ["BODIES"]) / "249").read_text(encoding="utf-8"))["items"]
_computed = 0


def page(limit: int) -> Page:
    """A page as an endpoint makes it from the rows of a database."""
    global _computed
    _computed += 1
    items = [Country(**row) for row in _ROWS[:limit]]
    return Page(items=items, total=len(_ROWS), limit=limit, offset=0)


def computed() -> int:
    return _computed
