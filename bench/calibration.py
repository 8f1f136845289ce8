"""Calibrate on simulated streams, and look at the other half: `python -m bench.calibration`.

The simulated provider's answers, with the times at which it would have sent them: good ones, broken ones and loops.
Printed are what `streamguard calibrate` says of them; how often, over seeded splits, the unseen half keeps the asked
share; what is saved beside the best limits that a search over all answers finds; and what limits fitted before do when
the provider's first tokens double.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from streamguard.calibration import Fit, Measured, fit, measure
from streamguard.calibration.fitting import ends
from streamguard.demo.documents import documents, prompt
from streamguard.demo.provider import Order, attempt
from streamguard.policy.file import load_policy
from streamguard.replay import Recording
from streamguard.testing.steps import Pace, Pause

BAD = 0.05


def recording(name: str, text: str, seed: str, slower: float = 1.0) -> Recording | None:
    """One answer of the simulated provider as a recording; `None` for a request that it refuses or breaks."""
    body = {"model": "m", "max_tokens": 1024, "messages": [{"role": "user", "content": text}]}
    items = attempt(body, seed, Order(bad_answers=BAD, refuses=False))
    now, every, chunks = 0.0, 0.0, list[tuple[float, bytes]]()
    for item in items:
        if isinstance(item, Pause):
            now += item.seconds * slower
        elif isinstance(item, Pace):
            every = 0.0 if item.per_second is None else 1 / item.per_second
        elif isinstance(item, bytes):
            now += every
            chunks.append((now, item))
    if not chunks:
        return None
    data = b"".join(piece for _, piece in chunks)
    return Recording(file=name, data=data, chunks=tuple((at, len(piece)) for at, piece in chunks), head=chunks[0][0])


def simulated(count: int, seed: int, slower: float = 1.0) -> list[Recording]:
    """So many answers."""
    some = (
        recording(f"{seed}-{at:05}.sse", prompt(one), f"{seed}/{at}", slower)
        for at, one in enumerate(documents(count, seed=seed))
    )
    return [one for one in some if one is not None]


def write(folder: Path, some: Sequence[Recording]) -> None:
    """Write recordings with their times, as `streamguard calibrate` reads them."""
    for one in some:
        (folder / one.file).write_bytes(one.data)
        about = {"chunks": [list(chunk) for chunk in one.chunks or ()], "headers_s": one.head}
        (folder / one.file).with_suffix(".json").write_bytes(msgspec.json.encode(about))


def by_any(found: Fit, answers: Sequence[Measured]) -> int:
    """How many answers any limit ends."""
    return sum(any(ends(one.knob, one.value, answer) for one in found.knobs) for answer in answers)


def saved(limits: dict[str, float], answers: Sequence[Measured]) -> float:
    """≈ Tokens of bad answers beyond the ceiling on characters, which is what ends runaways here."""
    ceiling = limits["caps.characters"]
    return sum(
        one.tokens * max(0.0, 1 - ceiling / one.needs["caps.characters"])
        for one in answers
        if not one.good and one.needs["caps.characters"] > 0
    )


def main() -> None:
    """Run it, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibration", description=__doc__)
    parser.add_argument("--answers", type=int, default=1700)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.01)
    chosen = parser.parse_args()
    policy = load_policy("streamguard:extraction")
    some = simulated(chosen.answers, 1)
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), some)
        command = [sys.executable, "-m", "streamguard", "calibrate", name, "--false-aborts", f"{chosen.rate:.3%}"]
        subprocess.run(command, check=True)
    answers = [measure(one, policy) for one in some]
    kept = 0
    for seed in range(chosen.splits):
        found = fit(answers, chosen.rate, seed=seed)
        kept += found.ended_checked <= chosen.rate * found.checked
    print(f"\nthe unseen half keeps {chosen.rate:.1%}: {kept} of {chosen.splits} splits")
    found = fit(answers, chosen.rate)
    good = sorted(one.needs["caps.characters"] for one in answers if one.good)
    best = {"caps.characters": good[-1 - int(chosen.rate * len(good))]}
    mine = saved({one.knob: one.value for one in found.knobs}, answers)
    print(f"saved by the ceiling: {mine:,.0f} tokens, {mine / saved(best, answers):.1%} of the best one by search")
    for slower in (1.0, 2.0):
        later = [measure(one, policy) for one in simulated(chosen.answers, 2, slower)]
        healthy = [one for one in later if one.good]
        print(f"first tokens x {slower:g}: {by_any(found, healthy)} of {len(healthy)} later good answers ended")


if __name__ == "__main__":
    main()
