"""`GET /metrics`: what the cache does, for Prometheus.

Counters are those of one process. With several workers, set PROMETHEUS_MULTIPROC_DIR to an empty
folder (see the documentation of prometheus_client), and the page adds them up.
"""

import os
from collections import defaultdict

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    generate_latest,
)
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.multiprocess import MultiProcessCollector

from app.cache import Cache
from app.cache.entry import Entry

EVENTS_BETWEEN_FLUSHES = 1000
EVENTS = PrometheusCounter("cache_events", "What the cache did.", ["event", "label"])

router = APIRouter()


class PrometheusRecorder:
    """The cache's `Recorder`; its events and labels are few and fixed.

    A counter of the library costs ten times an addition: it gets sums, every so many events and
    before each page.
    """

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._events = self._milliseconds_saved = 0

    def count(self, event: str, label: str = "", amount: float = 1) -> None:
        self._sums[event, label] += amount
        self._events += 1
        if self._events >= EVENTS_BETWEEN_FLUSHES:
            self.flush()

    def hit(self, state: str, entry: Entry) -> None:
        self._sums["hit", state] += 1
        self._milliseconds_saved += entry.compute_ms
        self._events += 1
        if self._events >= EVENTS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        self._sums["seconds_saved", ""] += self._milliseconds_saved / 1000
        sums, self._sums = self._sums, defaultdict(float)
        self._events = self._milliseconds_saved = 0
        for (event, label), amount in sums.items():
            EVENTS.labels(event, label).inc(amount)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    cache: Cache = request.state.cache
    if isinstance(cache.recorder, PrometheusRecorder):
        cache.recorder.flush()
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
