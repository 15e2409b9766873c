"""Which server is at the other end: whether it may be used, and the incarnation of its data.

A server that comes back with an older snapshot, or a replica that missed a DEL and is promoted,
brings back generations that were deleted. What tells is its replication id: each start, each
promotion and each loss of history makes another one. Generations begin with a digest of it, the
*incarnation* of the data, and those of another incarnation count as missing. (The run id will not
do: after failing over and back it is the same again.)
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hiredis import ReplyError

from app.cache.backends.base import Generations, UnsupportedServer
from app.cache.backends.redis import scripts
from app.cache.backends.redis.resp import ProtocolError
from app.cache.backends.redis.scripts import Command
from app.cache.entry import GENERATION_BYTES, INCARNATION_BYTES

# While there are lookups the server is asked again this often: a demotion or a new replication id
# does not end a connection.
RECHECK_SECONDS = 1.0

NOT_FENCED = (
    "failovers are not fenced: the cache server does not tell its master_replid, so after it was"
    " restored from a snapshot or a replica was promoted, old entries may be valid again"
)

log = logging.getLogger("app.cache")


class Server:
    """`on_change` is called when the data of the server are no longer those that they were."""

    QUESTION: Command = ("INFO", "replication")
    HELLO: Sequence[Command] = (QUESTION, ("INFO", "cluster"), *scripts.LOAD)

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._asked = 0.0
        self._complaint = ""
        self.incarnation = bytes(INCARNATION_BYTES)
        self.warnings: tuple[str, ...] = ()

    def welcome(self, answers: list[Any]) -> None:
        """The answers to HELLO. Raises what is wrong with the server, and logs it once."""
        replication, cluster, *loaded = answers
        self._asked = time.monotonic()
        if _fields(cluster).get("cluster_enabled") == "1":
            self._complain(
                "the server at CACHE_URL is a node of a Redis Cluster, which is not supported:"
                " allowed is one Redis or Valkey server (cluster-enabled no), with replicas or"
                " without, or memory://"
            )
            raise UnsupportedServer(self._complaint)
        self.check([replication])
        for script, answer in zip(scripts.ALL, loaded, strict=True):
            if answer != script.sha.encode():
                self._complain(
                    "the server at CACHE_URL does not load scripts; the cache needs SCRIPT LOAD,"
                    f" EVALSHA and INFO: {answer!r}"
                )
                raise ConnectionError(self._complaint)
        self._complaint = ""

    def check(self, answers: list[Any]) -> None:
        """The answer to QUESTION. Raises when the server is no master."""
        (answer,) = answers
        fields = _fields(answer)
        role = fields.get("role", "master")
        if role != "master":
            self._complain(f"the server at CACHE_URL is no master (role:{role}): it is not used")
            raise ConnectionError(self._complaint)
        replid = fields.get("master_replid", "").encode()
        incarnation = bytes(INCARNATION_BYTES)
        if replid:
            incarnation = hashlib.blake2b(replid, digest_size=INCARNATION_BYTES).digest()
        elif not self.warnings:
            log.warning("%s (INFO replication: %.80r)", NOT_FENCED, answer)
        self.warnings = () if replid else (NOT_FENCED,)
        if incarnation != self.incarnation:
            self.incarnation = incarnation
            self._on_change()

    def is_to_be_asked(self) -> bool:
        """Once in RECHECK_SECONDS."""
        now = time.monotonic()
        if now - self._asked < RECHECK_SECONDS:
            return False
        self._asked = now
        return True

    def complete(self, generations: Mapping[str, bytes | None]) -> Generations | None:
        """None unless all of them are there, and of this incarnation."""
        for generation in generations.values():
            if generation is None or not self.knows(generation):
                return None
        return generations  # type: ignore[return-value]

    def knows(self, generation: bytes) -> bool:
        return len(generation) == GENERATION_BYTES and generation.startswith(self.incarnation)

    def new_generation(self) -> bytes:
        return self.incarnation + secrets.token_bytes(GENERATION_BYTES - INCARNATION_BYTES)

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            log.error(complaint)


def _fields(info: Any) -> dict[str, str]:
    """Those of an answer to INFO; none when the server does not know it, or not from this user."""
    if isinstance(info, ReplyError):
        if not str(info).startswith(("NOPERM", "ERR")):
            raise ConnectionError(str(info))
        return {}
    if not isinstance(info, bytes):
        raise ProtocolError(f"INFO was answered with {info!r:.80}")
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
