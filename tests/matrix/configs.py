"""The sixteen guard configurations of the matrix: off, each guard alone, pairs that interact, the shipped policies."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from streamguard.budgets.spec import BudgetSpec
from streamguard.guards.caps import Caps
from streamguard.guards.checks.custom import check
from streamguard.guards.checks.spec import Check
from streamguard.guards.completion import Completion
from streamguard.guards.content import Content
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.grounding.spec import Grounded
from streamguard.guards.repetition import Repetition
from streamguard.guards.timeouts import Timeouts
from streamguard.policy.file import load_policy
from streamguard.policy.model import Policy
from streamguard.pricing.price import Prices, PriceSpec
from streamguard.retry.rules import Backoff, Retry, Rule
from streamguard.testing import faults, wire
from streamguard.testing.faults import Shape

TOTAL = 600.0
"""Seconds of a call where the policy itself has no limit: without any, nothing bounds a stream that never ends."""

PRICES = Prices({wire.MODEL: PriceSpec(input="3", output="15", cache_read="0.3", cache_write="3.75")})
"""What the scripted model costs, so that budgets and caps on money can be kept."""

NO_CLOCKS = Timeouts(connect=None, first_token=None, progress=None, progress_thinking=None, alive=None, total=TOTAL)
UNJUDGED = Completion(mode="observe")
AGAIN = Retry(attempts=2, rules=(Rule(when=("*",)),))
"""Once more, whatever it was."""

MARKED = Retry(attempts=2, rules=(Rule(when=("json.ungrounded",), accept="marked"), *AGAIN.rules))
"""The same, and in the end values that stand nowhere are kept."""

SOURCE = "Extract the record: number 7, an invoice for a pen and for ink."
WORDS = Content(reason="content.words", pattern="here is|hope that|sure!", flags=("ignore_case",))
TOKEN_CAPS = Caps(characters=2400, output_tokens=300, thinking_tokens=200, tool_calls=1, events=120)
MONEY_CAPS = Caps(characters=400, tool_calls=1, events=400, cost_usd="0.004")


@check(needs=["/id", "/kind"], reason="house.invoice")
async def invoice(number: Any, kind: Any) -> bool:
    """Awaited: an invoice with a whole number."""
    return type(number) is int and kind == "invoice"


@check(needs=["/lines"], reason="house.lines")
def some(lines: Any) -> str | None:
    """A record has lines."""
    return None if lines else "no lines"


KIND = Check(reason="check.kind", that='doc.kind == "invoice" or doc.id < 7')
ITEM = Check(reason="check.item", at="/lines/*", that='not startswith(it, "item 17")')
COUNT = Check(reason="check.count", that="len(doc.lines) > 0")
EACH = Check(reason="check.each", that='all(l != "item 17: 289 pieces" for l in doc.lines)')
RULES = (
    Rule(when=("stop.max_tokens",), max_uses=1, patch={"max_tokens": {"multiply": 2, "max": 4096}}),
    Rule(when=("provider.spend_limit", "stop.refusal"), give_up=True),
    Rule(when=("provider.*", "transport.connect"), wait=Backoff(initial=0.5, max=20), respect_retry_after=True),
    Rule(when=("json.*", "repetition.*", "stop.*"), wait=2.0, hint="The last answer was rejected: {reason}"),
    Rule(when=("timeout.*", "transport.*"), wait=2.0),
)


class Config(NamedTuple):
    """One column of the matrix."""

    name: str
    policy: Policy
    shape: Shape = "text"
    """Where the documents of the faults stand under it."""
    source: str | None = None
    """What the user says, where values are held against it."""

    @property
    def request(self) -> dict[str, Any]:
        asked = faults.request(self.shape)
        return asked if self.source is None else asked | {"messages": [{"role": "user", "content": self.source}]}


def _own(**sections: Any) -> Policy:
    given = {"timeouts": NO_CLOCKS, "completion": UNJUDGED, "retry": AGAIN, "prices": PRICES} | sections
    return Policy(**given)


def _shipped(name: str) -> Policy:
    policy = load_policy(f"streamguard:{name}")
    update: dict[str, Any] = {"prices": PRICES}
    if policy.timeouts.total is None:
        update["timeouts"] = policy.timeouts.model_copy(update={"total": TOTAL})
    if policy.json_document is not None and policy.json_document.where == "text":
        # As its own comment says: with a schema.
        update["json_document"] = JsonDocument(**policy.json_document.model_dump(exclude={"schema_"}), schema="request")
    if policy.budgets:
        # The same budget, in memory: files are the ledgers' own tests' business.
        update["budgets"] = tuple(BudgetSpec(**{**one.model_dump(), "ledger": "memory:"}) for one in policy.budgets)
    return policy.model_copy(update=update)


@cache
def configs() -> dict[str, Config]:
    """All sixteen, by name."""
    schema = JsonDocument(schema="request")
    everything = {
        "timeouts": Timeouts(total=TOTAL),
        "completion": Completion(),
        "json": JsonDocument(schema="request", trailing="cut", fence="strip"),
        "checks": [EACH],
        "content": (WORDS,),
        "repetition": Repetition(),
        "caps": MONEY_CAPS,
        "retry": Retry(attempts=3, rules=RULES),
    }
    own = {
        "off": ("text", _own()),
        "completion": ("text", _own(completion=Completion())),
        "clocks": ("text", _own(timeouts=Timeouts(total=TOTAL))),
        "json": (
            "text",
            _own(json=JsonDocument(grounded=[Grounded(at="/lines/*", ignore=())]), checks=[invoice], retry=MARKED),
        ),
        "caps": ("text", _own(caps=TOKEN_CAPS)),
        "content": ("text", _own(content=(WORDS,))),
        "repetition": ("tool", _own(repetition=Repetition())),
        "schema+completion": ("text", _own(json=schema, completion=Completion(), checks=[KIND, ITEM, some])),
        "tool+repetition": (
            "tool",
            _own(
                json=JsonDocument(where=f"tool:{faults.TOOL}", schema="request"),
                checks=[COUNT],
                repetition=Repetition(),
                completion=Completion(),
            ),
        ),
        "everything": ("text", _own(**everything)),
    }
    shipped = ("extraction", "tool_input", "long_document", "interactive_chat", "agent", "strict_budget")
    sources = {"json": SOURCE}
    found = [Config(name, policy, shape, sources.get(name)) for name, (shape, policy) in own.items()]  # type: ignore[arg-type]
    tools = ("tool_input", "agent")
    found += [Config(name, _shipped(name), "tool" if name in tools else "text") for name in shipped]
    return {config.name: config for config in found}
