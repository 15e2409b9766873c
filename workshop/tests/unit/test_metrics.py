import re

from fastapi import FastAPI

from app import metrics
from app.cache import Cache, InMemoryBackend, cache
from tests.unit.cache.serving import serving


async def test_the_page_says_what_the_cache_did() -> None:
    app = FastAPI()
    app.include_router(metrics.router)

    @app.get("/planets")
    @cache(60)
    async def planets() -> list[str]:
        return ["Mars"]

    opened = Cache(InMemoryBackend(), recorder=metrics.PrometheusRecorder())
    async with serving(app, opened) as client:
        before = await counted(client)
        for _ in range(3):
            await client.get("/planets")
        after = await counted(client)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['event="hit",label="fresh"'] == 2
    assert grown['event="miss",label="absent"'] == 1
    assert grown['event="stored",label=""'] == 1


async def counted(client) -> dict[str, float]:  # type: ignore[no-untyped-def]
    text = (await client.get("/metrics")).text
    found = re.findall(r"^cache_events_total\{(.*)\} (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}
