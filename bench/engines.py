"""The examples of engines, run: `make engines`, with the engines in a virtual environment of their own.

Each is given 400 rows twice. Every row must come out with its own answer, and the second run must ask nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.light_provider import light_provider

ROWS = 400
EXAMPLES = {"dask": "examples/engines/dask_rows.py"}

POLICY = """
version: 1
timeouts: {total: 60}
pace: off
json: {schema: {type: object, properties: {n: {type: integer}, by: {type: integer}}, required: [n, by]}}
"""


def main() -> None:
    """Run all, and print what came out."""
    clean = True
    for engine, example in EXAMPLES.items():
        with tempfile.TemporaryDirectory() as name, light_provider(Path(name)) as provider:
            folder = Path(name)
            (folder / "policy.yaml").write_text(POLICY)
            rows = [json.dumps({"id": n, "text": f"row {n}"}) + "\n" for n in range(ROWS)]
            (folder / "in.jsonl").write_text("".join(rows))
            said = [str(folder / "policy.yaml"), str(folder / "in.jsonl"), str(folder / "out"), f"sqlite:{folder}/rows"]
            for run in (1, 2):
                command = [sys.executable, example, *said, "m", provider.url]
                subprocess.run(command, check=True, env={**os.environ, "ANTHROPIC_API_KEY": "none"})
                parts = sorted((folder / "out").glob("*"))
                found = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
                good = sum(row["output"] is not None and json.loads(row["output"])["n"] == row["id"] for row in found)
                asked = provider.asked.total()
                print(f"{engine}, run {run}: {len(found)} rows, {good} right, {asked} requests so far")
                clean = clean and len(found) == good == asked == ROWS
    sys.exit(not clean)


if __name__ == "__main__":
    main()
