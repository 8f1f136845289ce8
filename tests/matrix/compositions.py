"""Random scripts: one to four attempts, each with a fault of its own, spliced, cut or whole; a seed is a case."""

from __future__ import annotations

import random
from typing import NamedTuple

from streamguard.retry.rules import Backoff, Retry, Rule
from streamguard.testing import faults
from streamguard.testing.faults import Fault, Say, Shape
from streamguard.testing.play import Chunk
from streamguard.testing.scripted import Script
from streamguard.testing.steps import Item, fin, omit_last_chunk, pause, rst
from tests.matrix.cells import EVENT_BYTES, Question, Surface, check
from tests.matrix.configs import configs
from tests.matrix.surfaces import IN_MEMORY

FAULTS: tuple[Fault, ...] = tuple(fault for fault in faults.ALL if not fault.sockets)
ENDINGS = (omit_last_chunk(), rst(), fin())
RETRIES = (
    Retry(attempts=4, rules=(Rule(when=("*",)),)),
    Retry(attempts=4, rules=(Rule(when=("*",), wait=Backoff(initial=0.5, max=8)),)),
    Retry(attempts=3, rules=(Rule(when=("json.*", "transport.*"), max_uses=1), Rule(when=("*",), wait=3.0))),
)


class Composition(NamedTuple):
    """One case."""

    seed: int
    names: tuple[str, ...]
    question: Question
    surface: Surface

    def __str__(self) -> str:
        return f"composition {self.seed} ({', '.join(self.names)}; {self.surface.name})"


def composed(seed: int) -> Composition:
    """The case of a seed."""
    rng = random.Random(seed)
    config = rng.choice(list(configs().values()))
    names, attempts = [], []
    for _ in range(rng.randint(1, 4)):
        name, items = _attempt(rng, config.shape)
        names.append(name)
        attempts.append(items)
    if rng.random() < 0.5:
        attempts.append(tuple(Say(config.shape).answer()))
    policy = config.policy
    if rng.random() < 0.7:
        policy = policy.model_copy(update={"retry": rng.choice(RETRIES)})
    surface = rng.choice(IN_MEMORY)
    chunk: Chunk = rng.choice(["event", "whole", rng.randrange(1000), "byte" if rng.random() < 0.1 else "event"])
    question = Question(Script.of(*attempts), policy, config.request, chunk, EVENT_BYTES)
    return Composition(seed, tuple(names), question, surface)


def _attempt(rng: random.Random, shape: Shape) -> tuple[str, tuple[Item, ...]]:
    """One attempt: a fault, one fault's beginning with another's end, or a fault cut somewhere or slowed down."""
    fault = rng.choice(FAULTS)
    items = fault.attempt(shape, event_bytes=EVENT_BYTES)
    kind = rng.random()
    if kind < 0.15:
        other = rng.choice(FAULTS)
        rest = other.attempt(shape, event_bytes=EVENT_BYTES)
        at, begin = rng.randint(0, len(items)), rng.randint(0, len(rest))
        if _frames(items[:at]) and _frames(rest[begin:]):
            return f"{fault.id}[:{at}]+{other.id}[{begin}:]", (*items[:at], *rest[begin:])
    elif kind < 0.3 and items:
        at = rng.randint(0, len(items))
        if _frames(items[:at]):
            return f"{fault.id}[:{at}]+cut", (*faults.with_truth(items[:at]), rng.choice(ENDINGS))
    elif kind < 0.4 and items:
        at = rng.randint(0, len(items))
        if _frames(items):
            return f"{fault.id}+pause@{at}", (*items[:at], pause(rng.choice((0.5, 20, 61, 130))), *items[at:])
    return fault.id, items


def _frames(items: tuple[Item, ...]) -> bool:
    """Whether it is made of frames only, so that a splice is still a stream."""
    return all(isinstance(item, bytes) for item in items)


async def wrong(case: Composition) -> list[str]:
    """Everything that does not hold of a case."""
    seen = await case.surface.ask(case.question)
    found = [] if seen is None else list(check(case.question, case.surface, seen))
    if any("]+F" in name for name in case.names):
        # What is spliced of two answers tells the usage of one, and nobody says what the other would be billed.
        found = [one for one in found if "tokens, at " not in one and "micro-USD were spent" not in one]
    return [f"{case}: {one}" for one in found]
