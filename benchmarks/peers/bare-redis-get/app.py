"""bare ASGI with one redis.get

The least that a cache in Redis costs with redis-py and a pool: no routing, no key to make, no check.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs

from redis.asyncio import Redis

from countries import EXPIRE_SECONDS, page

redis = Redis.from_url(os.environ["CACHE_URL"])


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    # The query itself is the key: making one is left out too.
    key = scope["query_string"]
    body = await redis.get(key) if key else b""
    if body is None:
        limit = int(parse_qs(key.decode())["limit"][0])
        body = page(limit).model_dump_json().encode()
        await redis.set(key, body, ex=EXPIRE_SECONDS)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(receive: Any, send: Any) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
