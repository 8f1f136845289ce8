"""Jobs under kill -9 and under disk faults, all of it: `make matrix`, or `python -m bench.kill_matrix`.

Three hundred kills at random moments; a fault at the N-th operation on a file or on the journal for every N of a job of
forty rows; and a kill in front of every such operation. Then the same kills with two worker processes: of their parent,
and of one of them in front of every message and call. Some five minutes, and half an hour of waiting. Ends with exit
code 1 if anything was lost, doubled, torn or asked needlessly.
"""

from __future__ import annotations

import json
import subprocess
import sys

MODES = {
    "kill -9 at random moments": ("tests.jobs.kills", "random", "--kills", "300"),
    "the N-th operation fails, every N": ("tests.jobs.kills", "fails"),
    "kill -9 before the N-th operation, every N": ("tests.jobs.kills", "dies"),
    "two workers, their parent's N-th, every N": ("tests.jobs.worker_kills", "parent"),
    "two workers, the N-th of one, every N": ("tests.jobs.worker_kills", "child"),
}


def main() -> None:
    """Run all of it and print a table."""
    print(f"{'':>44} {'jobs':>5} {'kills':>6} {'faults':>7} {'lost':>5} {'doubled':>8} {'torn':>5} {'asked again':>12}")
    clean = True
    for title, arguments in MODES.items():
        command = [sys.executable, "-m", *arguments]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        again = f"{found['reissued']} of {found['in_flight']}"
        print(
            f"{title:>44} {found['jobs']:>5} {found['kills']:>6} {found['faults']:>7} {found['lost']:>5} "
            f"{found['doubled']:>8} {found['torn']:>5} {again:>12}"
        )
        clean = clean and not any(found[name] for name in ("lost", "doubled", "torn", "mixed"))
        clean = clean and found["reissued"] <= found["in_flight"] and found["most_reissued"] <= found["concurrency"]
    print("\nasked again: calls issued a second time, of those that were under way at a kill or fault.")
    print(
        "Each kill cost at most as many calls as ran at once; with n clean kills, a defect that shows in a share p of"
    )
    print("kills stays unseen with a probability of (1 - p) ** n: with 300, one of 1 % is excluded at 95 %.")
    sys.exit(not clean)


if __name__ == "__main__":
    main()
