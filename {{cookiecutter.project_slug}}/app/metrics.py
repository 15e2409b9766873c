"""`GET /metrics`: what the cache does, for Prometheus.

Counters are those of one process. With several workers, set PROMETHEUS_MULTIPROC_DIR to an empty
folder (see the documentation of prometheus_client), and the page adds them up.
"""

import os
from functools import cache

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

EVENTS = Counter("cache_events", "What the cache did.", ["event", "label"])

router = APIRouter()


class PrometheusRecorder:
    """The cache's `Recorder`; its events and labels are few and fixed."""

    def count(self, event: str, label: str = "", amount: float = 1) -> None:
        _counter(event, label).inc(amount)


@cache
def _counter(event: str, label: str) -> Counter:
    return EVENTS.labels(event, label)


@router.get("/metrics", include_in_schema=False)
def metrics() -> Response:
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
