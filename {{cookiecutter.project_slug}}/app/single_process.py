"""`memory://` is a cache of one process: another one would not hear of its writes."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def only_process() -> Iterator[None]:
    """Raises RuntimeError while another process runs this code in such a block.

    It does not see a process in another container, or on another machine.
    """
    # A lock on the folder of the code: whatever started the processes, and however one ends, the
    # operating system knows. Nothing is written.
    folder = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                "CACHE_URL is memory://, a cache of one process, and this is not the only one:"
                " start one process (WEB_CONCURRENCY, --workers), or set CACHE_URL=redis://…"
            ) from None
        except OSError as error:  # a file system without locks
            log.warning("cannot tell whether another process uses memory://: %r", error)
        yield
    finally:
        os.close(folder)
