"""Compare the CPU time of a request in two versions of the service: `make bench-micro BASE=revision`.

What `make bench` measures depends on sockets, the load generator and the neighbours of the machine.
Here the application is called directly and only its own CPU time counts, so that a difference of a few
per cent can be seen. Each version runs in processes of its own (`micro_loop.py`), in turn, on one
PostgreSQL and one Redis (DATABASE_URL, CACHE_URL). It is run in the folder of the generated service.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

LOOP = Path(__file__).with_name("micro_loop.py")
# The routes that only benchmarks need; an old version may not have them.
ROUTES = Path("benchmarks/app.py")
API_TOKEN = secrets.token_urlsafe(32)

Microseconds = dict[str, float]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("base", type=Path, help="the folder of the version to compare with")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="default: 5")
    options = parser.parse_args(arguments)

    subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], check=True)
    pairs = []
    for number in range(1, options.pairs + 1):
        print(f"pair {number} of {options.pairs} …", file=sys.stderr, flush=True)
        # A Redis database for each: entries of one version are not the other's.
        pairs.append((measure(options.base, database=0), measure(Path.cwd(), database=1)))
    print(table(pairs))
    return 0


def measure(folder: Path, *, database: int) -> Microseconds:
    """The CPU time per request of each case, of the version in this folder."""
    done = subprocess.run(
        [sys.executable, str(LOOP), str(ROUTES.resolve())],
        cwd=folder,
        env=os.environ
        | {
            "API_TOKEN": API_TOKEN,
            # What git holds of a version is not rendered, and its pyproject.toml has no name.
            "SERVICE_NAME": "micro",
            "CACHE_URL": f"{os.environ['CACHE_URL'].rpartition('/')[0]}/{database}",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"The version in {folder} cannot be measured, see above.")
    measured: Microseconds = json.loads(done.stdout)
    return measured


def table(pairs: Sequence[tuple[Microseconds, Microseconds]]) -> str:
    lines = [
        "| µs of CPU per request | base | working tree | working tree / base (least-most) |",
        "| --- | --- | --- | --- |",
    ]
    for case in pairs[0][0]:
        base, tree = (median(pair[side][case] for pair in pairs) for side in (0, 1))
        ratios = sorted(pair[1][case] / pair[0][case] for pair in pairs)
        ratio = f"{median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})"
        lines.append(f"| {case} | {base:.1f} | {tree:.1f} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
