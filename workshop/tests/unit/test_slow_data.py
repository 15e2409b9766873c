"""`examples/slow_data.py`, run as its reader would run it: slow, then instant, then slow again."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

SERVICE = Path(__file__).parents[2]
START_SECONDS = 30
SLEEP_SECONDS = 2
PAUSE = threading.Event()


@contextmanager
def running(port: int) -> Iterator[httpx.Client]:
    command = [sys.executable, "-m", "uvicorn", "examples.slow_data:app", "--port", str(port)]
    with (
        subprocess.Popen([*command, "--log-level", "warning"], cwd=SERVICE) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        try:
            _wait_until_it_answers(client)
            yield client
        finally:
            process.terminate()


def _wait_until_it_answers(client: httpx.Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.get("/openapi.json")
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def seconds(client: httpx.Client, path: str) -> float:
    started = time.monotonic()
    client.get(path).raise_for_status()
    return time.monotonic() - started


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_slow_data_is_slow_once_until_it_expires_or_the_program_restarts(port: int) -> None:
    with running(port) as client:
        assert seconds(client, "/slow-data") >= SLEEP_SECONDS
        stored = time.monotonic()
        assert seconds(client, "/slow-data") < SLEEP_SECONDS
        assert seconds(client, "/price?euros=1") >= SLEEP_SECONDS
        assert seconds(client, "/price?euros=2") < SLEEP_SECONDS
        while seconds(client, "/slow-data") < SLEEP_SECONDS:
            assert time.monotonic() - stored < 15, "it should have expired after 10 seconds"
            PAUSE.wait(0.1)
        assert time.monotonic() - stored >= 9 + SLEEP_SECONDS  # up to a tenth earlier: jitter
    with running(port) as client:
        assert seconds(client, "/slow-data") >= SLEEP_SECONDS
