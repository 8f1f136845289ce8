"""Guards alone: µs of CPU per event of the whole panel of the extraction policy, and how flat that stays."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench.documents import objects, one_string, pieces
from streamguard import load_policy
from streamguard.events import BlockStarted, Delta, Started
from streamguard.guards.base import AttemptContext
from streamguard.guards.panel import Panel
from streamguard.policy.model import Policy

ROUNDS = 7


def fed(policy: Policy, deltas: list[Delta]) -> list[float]:
    """Seconds of CPU for each tenth of the deltas, fed to a fresh panel."""
    panel = Panel(policy.panel_guards, AttemptContext(), 0.0)
    for event in (Started(), BlockStarted(0, "text")):
        panel.feed(event, 0.0)
    tenth = len(deltas) // 10
    spent = []
    for part in range(10):
        began = time.process_time()
        for event in deltas[part * tenth : (part + 1) * tenth]:
            panel.waiting(0.0)
            panel.heard(0.0)
            if panel.feed(event, 0.0) is not None:
                raise AssertionError("the benchmark's answer tripped")
        spent.append(time.process_time() - began)
    return spent


def main() -> None:
    """Print the table."""
    policy = load_policy("streamguard:extraction")
    # The cap on characters would end the long ones; everything else is the policy as shipped.
    policy = policy.model_copy(update={"caps": policy.caps.model_copy(update={"characters": 10_000_000})})
    print(f"{'document':>24} {'delta':>6} {'µs/event':>9} {'last/first tenth':>17}")
    shapes: list[tuple[str, Callable[[int], str]]] = [("objects", objects), ("one string", one_string)]
    for size in (1_000, 10_000, 100_000, 1_000_000):
        for name, make in shapes:
            text = make(size)
            for width in (4, 100):
                deltas = [Delta(0, "text", piece) for piece in pieces(text, width)]
                if len(deltas) < 20:
                    continue
                # Short documents are repeated, so that the clock's resolution does not decide.
                repeat = max(1, 20_000 // len(deltas))
                rounds = [
                    [sum(tenth) for tenth in zip(*(fed(policy, deltas) for _ in range(repeat)), strict=True)]
                    for _ in range(ROUNDS if size < 1_000_000 else 3)
                ]
                per_event = statistics.median(sum(spent) for spent in rounds) / repeat / (len(deltas) // 10 * 10) * 1e6
                flat = statistics.median(spent[-1] / spent[0] for spent in rounds)
                print(f"{name + f' {size:,}':>24} {width:>6} {per_event:>9.2f} {flat:>17.2f}")
