"""A service without servers: a cache in memory, and nobody where PostgreSQL should listen."""

from collections.abc import AsyncIterator

import pytest

from app.settings import Settings
from tests.clients import Client, make_settings, serving


@pytest.fixture
def settings() -> Settings:
    # Port 1 refuses at once.
    return make_settings(database_url="postgresql://app:app@127.0.0.1:1/app")


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with serving(settings) as client:
        yield client
