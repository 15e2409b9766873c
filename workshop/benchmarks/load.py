"""Load generators: `wrk` from PATH, otherwise the one in `client.py`.

A run in which anything failed raises LoadError: a response that is no 2xx or 3xx, a socket error, a
list of pages that was gone through twice though it should not be.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.client import HOST, LoadError
from benchmarks.traffic import SERVICE, Request

STARTING_SECONDS = 60.0
MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}

# wrk asks Lua for each request, so they are all made before it starts.
SCRIPT = """
local requests, position = {}, 0
function init(args)
    for line in io.lines(args[1]) do
        local method, path, body = line:match("^(%S+)\\t(%S+)\\t(.*)$")
        if body == "" then body = nil end
        requests[#requests + 1] = wrk.format(method, path, nil, body)
    end
end
function request()
    position = position % #requests + 1
    return requests[position]
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to send round and round, to a port of this machine."""

    port: int
    requests: Sequence[Request]
    connections: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Result:
    completed: int
    per_second: float
    p50_ms: float
    p99_ms: float
    computed: int = 0
    """How many of them a cache did not answer, as far as it tells."""


class Generator(Protocol):
    @property
    def description(self) -> str: ...
    def run(self, load: Load) -> Result:
        """Raises LoadError."""


def find_generator() -> Generator:
    program = shutil.which("wrk")
    return Wrk(program) if program else PythonClient()


@dataclass(frozen=True, slots=True)
class Wrk:
    program: str

    @property
    def description(self) -> str:
        shown = subprocess.run([self.program, "-v"], capture_output=True, text=True, check=False)
        version = re.match(r"wrk (\S+)", shown.stdout + shown.stderr)
        return f"wrk {version[1]}" if version else "wrk"

    def run(self, load: Load) -> Result:
        with tempfile.TemporaryDirectory(prefix="benchmark-wrk-") as folder:
            command = [self.program, *self._arguments(load, Path(folder))]
            shown = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=load.seconds + STARTING_SECONDS,
                check=False,
            )
        if shown.returncode != 0:
            raise LoadError(f"wrk failed: {(shown.stderr or shown.stdout).strip()}")
        return parse_wrk(shown.stdout)

    def _arguments(self, load: Load, folder: Path) -> list[str]:
        first = load.requests[0]
        arguments = ["-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--latency"]
        for name, value in first.headers:
            arguments += ["-H", f"{name}: {value}"]
        if len(load.requests) == 1 and first.method == "GET":
            return [*arguments, f"http://{HOST}:{load.port}{first.path}"]
        (folder / "requests.lua").write_text(SCRIPT)
        lines = (f"{each.method}\t{each.path}\t{each.body}\n" for each in load.requests)
        (folder / "requests").write_text("".join(lines))
        arguments += ["-s", str(folder / "requests.lua"), f"http://{HOST}:{load.port}"]
        return [*arguments, "--", str(folder / "requests")]


def parse_wrk(text: str) -> Result:
    """What `wrk --latency` printed. Raises LoadError when it saw an error."""
    if errors := re.search(r"Socket errors: .+|Non-2xx or 3xx responses: \d+", text):
        raise LoadError(errors[0])
    completed = re.search(r"(\d+) requests in ", text)
    per_second = re.search(r"Requests/sec: +([\d.]+)", text)
    parts = {
        percent: float(value) * MS[unit]
        for percent, value, unit in re.findall(r"^ +(\d\d)% +([\d.]+)(us|ms|s|m) *$", text, re.M)
    }
    if not (completed and per_second and {"50", "99"} <= parts.keys()):
        raise LoadError(f"wrk said what is not understood: {text.strip()}")
    return Result(int(completed[1]), float(per_second[1]), parts["50"], parts["99"])


@dataclass(frozen=True, slots=True)
class PythonClient:
    description: str = (
        "Python on asyncio, as wrk is not on PATH: its figures cannot be compared with those of wrk"
        " (apt-get install wrk, brew install wrk)"
    )

    def run(self, load: Load) -> Result:
        plan = {
            "port": load.port,
            "connections": load.connections,
            "seconds": load.seconds,
            "requests": [request.encode().decode() for request in load.requests],
        }
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.client"],
            cwd=SERVICE,
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            timeout=load.seconds + STARTING_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise LoadError(done.stderr.strip())
        return Result(**json.loads(done.stdout))
