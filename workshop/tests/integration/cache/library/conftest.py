"""The library over real servers, which all tests of a variant share. Each has data of its own, a
shelf."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, get_args

import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.clients import make_settings
from tests.conftest import REDIS_DATABASES, shared
from tests.integration.cache.library.client import Library, Process, Servers, Variant, library_of
from tests.processes import uvicorn
from tests.services import Services, database

APP = "tests.integration.cache.library.app:app"
VARIANTS: dict[Variant, dict[str, str]] = {
    "tags": {"ENVIRONMENT": "test", "LIBRARY_TAGS": "yes"},
    "no-tags": {"ENVIRONMENT": "test"},
    "production": {"ENVIRONMENT": "production", "API_TOKEN": "a-long-secret-of-the-library-tests"},
}

OF_PROCESS: dict[Process, dict[str, str]] = {
    "new": {"CACHE_LISTEN": "true"},
    "plain": {"ENVIRONMENT": "test", "LIBRARY_EXPIRE": "0"},
}
LISTEN_SECONDS, POLL_SECONDS = 20.0, 0.02


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Scheduler(config, log)


class _Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Any test to any worker, except that one worker runs all tests of a variant: their servers are
    started once."""

    def _split_scope(self, nodeid: str) -> str:
        shared = re.search(r"/library/.*\[(tags|no-tags|production)\b", nodeid)
        return shared[1] if shared else nodeid


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=VARIANTS)
async def library(
    request: pytest.FixtureRequest,
    services: Services,
    worker_number: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Library]:
    folder = tmp_path_factory.mktemp(f"library-{request.param}")
    cache = make_url(services.cache_url).set(database=str(worker_number % REDIS_DATABASES))
    template = request.config.stash[shared]["template"]
    async with database(services, template) as database_url, AsyncExitStack() as stack:
        environment = {
            "SERVICE_NAME": f"library-{request.param}",
            "DATABASE_URL": database_url,
            "CACHE_URL": cache.render_as_string(hide_password=False),
            "LOG_LEVEL": "INFO",
            "LIBRARY_GATES": str(folder),
            **VARIANTS[request.param],
        }

        async def start(name: Process) -> None:
            log = folder / f"{name}.log"
            process = uvicorn(settings, app=APP, log=log, **environment | OF_PROCESS.get(name, {}))
            urls[name] = await stack.enter_async_context(process)

        urls: dict[Process, str] = {}
        settings = make_settings(database_url=database_url, cache_url=environment["CACHE_URL"])
        await asyncio.gather(*map(start, get_args(Process)))
        servers = Servers(request.param, urls, environment, folder)
        library = await stack.enter_async_context(library_of(servers))
        async with asyncio.timeout(LISTEN_SECONDS):  # that begins by ending every entry
            while not await library.counted("listener", "connected", "new"):
                await asyncio.sleep(POLL_SECONDS)
        yield library
