"""The table of what is measured. One line is one row of the result; nothing else has to know of it.

A row names another one `against` which it is set, measured in the same round. To measure another
way of serving, add a `Target`, and lines that use it.
"""

from dataclasses import dataclass, replace

from benchmarks.targets import Target
from benchmarks.traffic import (
    AUTHORIZATION,
    GZIP,
    Traffic,
    always,
    changes,
    every_country,
    unseen_pages,
)


@dataclass(frozen=True, slots=True)
class Proof:
    """What an answer has to be for its row to say what it claims."""

    status: int = 200
    cache_status: str = ""
    """Part of `Cache-Status`; when empty, there must be no such header."""
    encoding: str = ""
    body: str = ""
    """The name of the sample that the body is equal to, as JSON."""
    counter: str = ""
    """A path that tells how many requests were not answered from the cache so far."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    target: Target
    traffic: Traffic
    proof: Proof
    against: str = ""
    connections: int = 32
    conditional: bool = False
    """Whether the client sends the ETag that it was given before."""
    never_repeats: bool = False


PATH_20, PATH_249 = "/countries?limit=20", "/countries?limit=250"
LIST_20, LIST_249 = always(PATH_20), always(PATH_249)
# What the bare application sends back, and what lists are compared with.
SAMPLES = {
    "20": LIST_20,
    "249": LIST_249,
    "gzip": always(PATH_249, GZIP),
    "one": always("/countries/FR"),
}

APPLICATION = "benchmarks.app:app"
SERVICE = Target("service", APPLICATION)
TWO_WORKERS = Target("service-2-workers", APPLICATION, workers=2, alone=False)
WRITER = Target("service-writes", APPLICATION, writes=True)
MEMORY_WRITER = Target(
    "service-writes-memory", APPLICATION, writes=True, environment={"CACHE_URL": "memory://"}
)
BARE = Target("bare", "benchmarks.bare:app")
BARE_TWO_WORKERS = Target("bare-2-workers", "benchmarks.bare:app", workers=2, alone=False)

PLAIN = Proof()
PLAIN_20, PLAIN_249 = (Proof(body=sample) for sample in ("20", "249"))
COMPUTED = "/benchmark/computed"
HIT = Proof(cache_status="; hit", counter=COMPUTED)
HIT_20, HIT_249 = (replace(HIT, body=sample) for sample in ("20", "249"))

BARE_20, BARE_249 = "bare, 20 items", "bare, 249 items"
ONE_WORKER_HIT = "hit, 20 items"

ROWS = (
    Row(BARE_20, BARE, always("/20"), PLAIN_20),
    Row(ONE_WORKER_HIT, SERVICE, LIST_20, HIT_20, BARE_20),
    Row(BARE_249, BARE, always("/249"), PLAIN_249),
    Row("hit, 249 items", SERVICE, LIST_249, HIT_249, BARE_249),
    Row("bare, 249 items, compressed", BARE, always("/gzip"), PLAIN),
    Row(
        "hit, 249 items, compressed",
        SERVICE,
        always(PATH_249, GZIP),
        replace(HIT_249, encoding="gzip"),
        "bare, 249 items, compressed",
    ),
    Row("local hit, 20 items", SERVICE, always("/benchmark/local?limit=20"), HIT_20, BARE_20),
    Row("local hit, 249 items", SERVICE, always("/benchmark/local?limit=250"), HIT_249, BARE_249),
    Row(
        "304 to If-None-Match, 20 items",
        SERVICE,
        LIST_20,
        replace(HIT, status=304),
        ONE_WORKER_HIT,
        conditional=True,
    ),
    Row(
        "hit per user, with a guard, 20 items",
        SERVICE,
        always("/benchmark/per-user?limit=20", AUTHORIZATION),
        HIT_20,
        BARE_20,
    ),
    Row("bare, one country", BARE, always("/one"), PLAIN),
    Row("hit, one country of 249", SERVICE, every_country, HIT, "bare, one country"),
    Row(
        "uncached, 20 items",
        SERVICE,
        unseen_pages("/benchmark/uncached"),
        PLAIN,
        never_repeats=True,
    ),
    Row(
        "miss, 20 items",
        SERVICE,
        unseen_pages("/countries"),
        Proof(cache_status="; stored"),
        "uncached, 20 items",
        never_repeats=True,
    ),
    Row("write, memory://", MEMORY_WRITER, changes, PLAIN),
    Row("write, Redis", WRITER, changes, PLAIN, "write, memory://"),
    Row("bare, 20 items, 1 connection", BARE, always("/20"), PLAIN_20, connections=1),
    Row("hit, 20 items, 1 connection", SERVICE, LIST_20, HIT_20, "bare, 20 items, 1 connection", 1),
    Row("bare, 20 items, 256 connections", BARE, always("/20"), PLAIN_20, connections=256),
    Row(
        "hit, 20 items, 256 connections",
        SERVICE,
        LIST_20,
        HIT_20,
        "bare, 20 items, 256 connections",
        256,
    ),
    Row("bare, 20 items, 2 workers", BARE_TWO_WORKERS, always("/20"), PLAIN_20),
    # Each worker counts for itself.
    Row(
        "hit, 20 items, 2 workers",
        TWO_WORKERS,
        LIST_20,
        replace(HIT_20, counter=""),
        "bare, 20 items, 2 workers",
    ),
)
