"""What a hint does to the next answer of a small local model: `python -m bench.hints [--minutes M] [--seed N]`.

Three arms: `plain` asks again as before, `reason` sends reason, place and what was wrong, `expected` also what would
have been right. The comparison is paired: a document's first bad answer is the model's own, and each arm begins with
that very answer (the server takes no seed). Then each asks the model once. So what differs is the hint alone.

The model is a base model of 270 million parameters: it completes text and was not taught to follow instructions. What
it does with a hint says little about models that were. The harness is what stays: `--base-url` and `--model` name
another server of the Messages API, whose key is in ANTHROPIC_API_KEY.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final

import anthropic
import anyio

from streamguard import Grounded, JsonDocument, Policy, Retry, Rule, Timeouts, messages, run
from streamguard.demo.documents import SCHEMA, Document, documents
from streamguard.demo.local_model import LocalModel, serving
from streamguard.errors import CallError
from streamguard.outcome import AttemptRecord, CallRecord
from streamguard.source import Attempt, EventStream, Source
from streamguard.testing import answer, script

FIELDS: Final = ("number", "supplier", "currency", "category", "total", "note")
"""Without the date: to write it otherwise than the invoice does is beyond the model."""
ARMS: Final[Mapping[str, str | None]] = {
    "plain": None,
    "reason": "(The last JSON was rejected: {reason} at {pointer}: {message}.)\n\nJSON:",
    "expected": "(The last JSON was rejected: {reason} at {pointer}: {message}; expected {expected}.)\n\nJSON:",
}
TEMPERATURE: Final = 0.7
EXAMPLES: Final = 2
MAX_TOKENS: Final = 160
SHORT: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": list(FIELDS),
    "properties": {name: SCHEMA["properties"][name] for name in FIELDS},
}
SECTION: Final = JsonDocument(
    schema=SHORT,
    trailing="cut",
    grounded=[
        *(Grounded(at=f"/{name}") for name in ("number", "supplier", "note")),
        Grounded(at="/total", as_="number"),
    ],
)


class Second:
    """A source whose first answer is given, and whose others are the model's."""

    def __init__(self, first: str, model: Source) -> None:
        self._first = script(answer(first), request=model.request, messages=True)
        self._model = model
        self.request, self.sees_bytes = model.request, model.sees_bytes

    def open(self, attempt: Attempt) -> AbstractAsyncContextManager[EventStream]:
        """Play the given answer, or ask the model."""
        return self._first.open(attempt) if attempt.number == 1 else self._asked(attempt)

    @asynccontextmanager
    async def _asked(self, attempt: Attempt) -> AsyncIterator[EventStream]:
        async with self._model.open(attempt) as stream:
            yield stream


class Arm:
    """What came of one arm."""

    def __init__(self) -> None:
        self.valid: list[bool] = []
        self.right: list[bool] = []
        self.same: list[bool] = []
        """Whether the second answer died of the same reason at the same place."""
        self.tokens = 0
        self.reasons: Counter[str] = Counter()

    def take(self, came: CallRecord, value: Any, document: Document) -> None:
        """Count one second answer."""
        first, second = came.attempts[0], came.attempts[-1]
        self.valid.append(second.ended is None)
        self.right.append(value == record(document))
        self.same.append(_place(first) == _place(second))
        self.tokens += second.usage.high.output_tokens or 0
        self.reasons[second.reason or "valid"] += 1


def _place(attempt: AttemptRecord) -> tuple[str | None, str | None]:
    where = getattr(attempt.ended, "where", None)
    return attempt.reason, None if where is None else where.pointer


def record(document: Document) -> dict[str, Any]:
    """What is to be found in a document."""
    return {name: document.record[name] for name in FIELDS}


def prompt(document: Document, examples: Sequence[Document]) -> str:
    """Some examples, and the document."""
    shown = "".join(
        f"Invoice:\n{example.text}\n\nJSON:\n{json.dumps(record(example), ensure_ascii=False)}\n###\n\n"
        for example in examples
    )
    return f"Invoices, and the JSON record of each.\n\n{shown}Invoice:\n{document.text}\n\nJSON:\n"


async def measure(client: anthropic.AsyncAnthropic, model: str, seed: int, until: float) -> tuple[int, dict[str, Arm]]:
    """Ask until the time is over; gives how many first answers there were, and the arms."""
    arms = {name: Arm() for name in ARMS}
    made = documents(10_000, seed)
    examples, count = made[:EXAMPLES], 0
    for turn, document in enumerate(made[EXAMPLES:]):
        if time.monotonic() > until:
            break
        source = messages(
            client,
            model=model,
            max_tokens=MAX_TOKENS,
            messages=[{"role": "user", "content": prompt(document, examples)}],
            stop_sequences=["\n###"],
            extra_body={"temperature": TEMPERATURE},
        )
        count += 1
        first = (await _came(source, Retry(), document))[0].attempts[0]
        if first.reason is None or not first.reason.startswith("json."):
            continue
        order = list(ARMS)
        random.Random(f"{seed}/{turn}").shuffle(order)
        for name in order:
            retry = Retry(attempts=2, rules=[Rule(when="json.*", hint=ARMS[name])])
            came, value = await _came(Second(first.text, source), retry, document)
            assert came.attempts[0].reason == first.reason
            assert (came.attempts[1].hint is None) == (ARMS[name] is None)
            arms[name].take(came, value, document)
    return count, arms


async def _came(source: Source, retry: Retry, document: Document) -> tuple[CallRecord, Any]:
    policy = Policy(json=SECTION, retry=retry, timeouts=Timeouts(total=120))
    try:
        outcome = await run(source, policy=policy, source_text=document.text)
    except CallError as error:
        return error.record, None
    return outcome, outcome.value


def interval(good: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, in percent (Wilson)."""
    if not count:
        return 0.0, 100.0
    z, share = 1.96, good / count
    middle, width = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return 100 * max(0.0, (middle - width) / (1 + z * z / count)), 100 * (middle + width) / (1 + z * z / count)


def chance(better: int, worse: int) -> float:
    """The chance of so uneven a split of pairs that differ, if a hint does nothing (McNemar, exact, two-sided)."""
    count = better + worse
    tail = sum(math.comb(count, k) for k in range(min(better, worse) + 1)) / 2**count
    return min(1.0, 2 * tail)


def tell(count: int, arms: Mapping[str, Arm]) -> None:
    """Print what was found."""
    plain = arms["plain"]
    pairs = len(plain.valid)
    print(f"{count} first answers, {pairs} of them bad; each asked again once in every arm")
    print("arm        valid (95 %)            right  same place  tokens/valid  pairs better, worse  chance")
    for name, arm in arms.items():
        valid, right = sum(arm.valid), sum(arm.right)
        low, high = interval(valid, pairs)
        better = sum(new and not old for new, old in zip(arm.valid, plain.valid, strict=True))
        worse = sum(old and not new for new, old in zip(arm.valid, plain.valid, strict=True))
        versus = "-" if name == "plain" else f"{better:3}, {worse:3}              {chance(better, worse):.2f}"
        share = f"{100 * valid / pairs if pairs else 0:5.1f} % ({low:.0f} to {high:.0f})"
        per = f"{arm.tokens / valid:6.0f}" if valid else "     -"
        print(f"{name:10} {valid:4} {share:20} {right:4} {sum(arm.same):9}   {per:>10}  {versus:>20}")
    for name, arm in arms.items():
        print(f"{name}: {', '.join(f'{reason} {times}' for reason, times in arm.reasons.most_common())}")


def main(argv: list[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.hints", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="how long to ask [default: 4]")
    parser.add_argument("--seed", type=int, default=1, help="of the documents [default: 1]")
    parser.add_argument("--base-url", help="of a server instead of the local model")
    parser.add_argument("--model", default="", help="the model's name there")
    given = parser.parse_args(argv)
    here = nullcontext(LocalModel(given.base_url, given.model)) if given.base_url else serving(parallel=1, say=print)
    with here as model:
        key = os.environ.get("ANTHROPIC_API_KEY", "none") if given.base_url else "none"

        async def asked() -> tuple[int, dict[str, Arm]]:
            async with anthropic.AsyncAnthropic(api_key=key, base_url=model.url, max_retries=0) as client:
                return await measure(client, model.name, given.seed, time.monotonic() + 60 * given.minutes)

        tell(*anyio.run(asked))


if __name__ == "__main__":
    main()
