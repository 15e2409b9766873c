"""One row, measured for a second with servers of its own."""

import subprocess
import sys

from tests.services import SERVICE


def test_a_row_is_measured_beside_the_one_it_is_set_against() -> None:
    # A process of its own: it chooses its cores.
    options = ["--rounds", "1", "--seconds", "1", "--only", "^hit, 20 items$"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=SERVICE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "## Machine" in done.stdout
    assert "| hit, 20 items " in done.stdout
    assert "× bare, 20 items" in done.stdout
    assert "round 1 of 1: bare, 20 items" in done.stderr
