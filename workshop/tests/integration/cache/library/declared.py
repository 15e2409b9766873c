"""What the library declares: tags, or nothing at all. The code is the same.

LIBRARY_TAGS=yes     models, tables and policies have the tags that a careful author gives them
LIBRARY_EXPIRE=0     nothing is cached, so that the answers are true
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

from app.cache import cache
from app.database import ReadSession, Sessions

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

WITH_TAGS = os.environ.get("LIBRARY_TAGS") == "yes"
EXPIRE_SECONDS = float(os.environ.get("LIBRARY_EXPIRE", "300"))

service: list[Sessions] = []


def tags(*names: str) -> tuple[str, ...]:
    return names if WITH_TAGS else ()


def cached(*names: str, **policy: Any) -> Callable[[Endpoint], Endpoint]:
    """`@cache` with these tags, or without any."""
    decorator = cache(EXPIRE_SECONDS, tags=tags(*names), **policy)
    return cast(Callable[[Endpoint], Endpoint], decorator)


def reading() -> ReadSession:
    """For cached functions, which open a session of their own: it has no identity, and is no
    argument."""
    return service[-1].read()
