"""Programs beside the service, each in a process of its own."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE

from tests.services import SERVICE

PROGRAM_SECONDS = 60


async def run(program: str, environment: dict[str, str], *arguments: str) -> list[str]:
    """The lines that it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.integration.cache.library.{program}", *arguments),
        cwd=SERVICE,
        stdout=PIPE,
        env=os.environ | environment,
    )
    async with asyncio.timeout(PROGRAM_SECONDS):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().splitlines()
