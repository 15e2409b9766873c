"""Mechanisms of the cache that a run can go without, to show that it finds what they are for."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from app.cache.entry import Entry
from app.cache.flight import Flight
from app.cache.redis import RedisBackend
from app.cache.store import Store


async def _no_hold(_backend: object, _tags: Sequence[str], _writer: str) -> None:
    """Says that it is done."""


_release, _judge = RedisBackend.release, Store._judge


async def _release_as_unchanged(
    backend: RedisBackend, tags: Sequence[str], writer: str, *, changed: bool
) -> None:
    await _release(backend, tags, writer, changed=False)


def _judge_as_valid(store: Store, entry: Entry | None, generations: bytes | None) -> Any:
    return _judge(
        store, entry and replace(entry, generations=generations or b""), generations or b""
    )


# What is replaced, and by what.
MECHANISMS: dict[str, tuple[type, str, object]] = {
    "hold": (RedisBackend, "hold", _no_hold),
    "release": (RedisBackend, "release", _release_as_unchanged),
    "validation": (Store, "_judge", _judge_as_valid),
    "joining": (Flight, "may_be_joined", lambda _flight, _generations: True),
}


def switched_off(name: str) -> AbstractContextManager[object]:
    owner, attribute, replacement = MECHANISMS[name]
    return patch.object(owner, attribute, replacement)
