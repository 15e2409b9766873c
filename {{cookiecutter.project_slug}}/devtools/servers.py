"""The life of a server: started until it answers, stopped, started again on the same port.

Each kind of server says how it is run and how it is known to answer: `postgres.py`, `redis.py`.
"""

import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from devtools.processes import (
    POLL_SECONDS,
    Command,
    DevtoolsError,
    GuardedProcess,
    free_port,
    is_free,
)

START_SECONDS = 60.0
LOG_LINES = 15


class Server(ABC):
    """A server of this process. `source` tells a reader where it comes from."""

    def __init__(self, *, version: str, source: str, log: Path) -> None:
        self.version = version
        self.source = source
        self.log = log
        self.port = 0
        self._process: GuardedProcess | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def _command(self) -> Command: ...

    @abstractmethod
    def _answers(self, pid: int) -> bool: ...

    @property
    def pid(self) -> int:
        """The process of the server itself, for tests that suspend or kill it."""
        if self._process is None:
            raise DevtoolsError(f"{self.source} is stopped: call start() first")
        return self._process.pid

    def start(self) -> None:
        if self._process is not None and self._process.running:
            return
        with self.log.open("ab") as log:
            # A session of its own: on Ctrl-C the application drains while its servers are up.
            self._process = GuardedProcess(
                self._command(), stdin=subprocess.DEVNULL, output=log, new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(self._process.pid):
            if not self._process.running:
                self.stop()
                raise DevtoolsError(f"{self.source} ended at once. {end_of(self.log)}")
            if time.monotonic() > deadline:
                self.stop()
                raise DevtoolsError(
                    f"{self.source} does not answer on port {self.port}. {end_of(self.log)}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def start_on_free_port(self, preferred: int | None) -> None:
        self.port = free_port(preferred)
        try:
            self.start()
        except DevtoolsError:
            if is_free(self.port):
                raise
            self.port = free_port(None)  # another server was faster
            self.start()


def end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return "\n  ".join([f"The end of its log, {log}:", *lines])
