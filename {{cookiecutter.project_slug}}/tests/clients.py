"""The service as tests use it: an application with its real lifespan, and a client that talks to it
without a network. `statements` collects the SQL that the application sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
from fastapi import FastAPI
from sqlalchemy import event
from starlette.types import Receive, Scope, Send

from app.main import State, create_app
from app.settings import Settings

HIT_SECONDS = 20
TOKEN = "a-token-that-tests-use-and-nobody-else"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Client(httpx.AsyncClient):
    state: State
    statements: list[str]


@asynccontextmanager
async def serving(
    settings: Settings | None = None, *, app: FastAPI | None = None
) -> AsyncIterator[Client]:
    app = app or create_app(settings)
    async with app.router.lifespan_context(app) as state:
        assert state is not None

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(state)
            await app(scope, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with Client(transport=transport, base_url="http://service") as client:
            client.state = cast(State, state)
            client.statements = []
            engine = client.state["engine"].sync_engine
            event.listen(engine, "before_cursor_execute", _collector(client.statements))
            yield client


def make_settings(**values: Any) -> Settings:
    values = {"environment": "test", "log_level": "WARNING", "api_token": TOKEN} | values
    return Settings(**values)


def cache_status(response: httpx.Response) -> str:
    """`hit`, or how the request was forwarded: `fwd=uri-miss`, …"""
    return response.headers["Cache-Status"].split("; ")[1]


def version(response: httpx.Response) -> str:
    """What `If-Match` compares: the ETag of a write, and the beginning of that of a read."""
    return response.headers["ETag"].strip('"').partition("-")[0]


async def until_hit(client: Client, url: str) -> httpx.Response:
    """The first answer from the cache, with the SQL that was sent for it in `statements`.

    Usually that is the second answer. On a busy machine a request may give up on Redis, as it
    should, and nothing is stored.
    """
    async with asyncio.timeout(HIT_SECONDS):
        while True:
            client.statements.clear()
            response = await client.get(url)
            assert response.status_code == 200, response.text
            if cache_status(response) == "hit":
                return response
            await asyncio.sleep(0.02)


def _collector(statements: list[str]) -> Any:
    def collect(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    return collect
