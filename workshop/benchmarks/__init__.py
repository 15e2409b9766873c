"""How fast this service is on this machine, as ratios measured side by side in one run.

`python -m benchmarks` starts servers of its own and prints Markdown. `rows.py` is the table of what
is measured: a new row is one more line there. Not part of the service's image.
"""
