"""The checker: reads a whole history and says what must not have happened. It knows the rules, not the code."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from bench.cluster.history import History
from bench.cluster.world import LEASE, SCOPE
from streamguard.jobs.store.resume import ALONE_FROM, MAX_ROW_FAILURES, POISON


def violations(history: History) -> list[str]:
    """Return every rule that was broken, in words."""
    return [
        *_ends(history),
        *_money(history),
        *_rows(history),
        *_claims(history),
        *_processes(history),
        *_pace(history),
    ]


def _ends(history: History) -> Iterator[str]:
    if history.stuck:
        yield "somebody waits for ever"
    elif history.unfinished and not history.out_of_budget:
        yield f"rows without a result although one process was left to itself with them: {history.unfinished}"


def _money(history: History) -> Iterator[str]:
    world = history.world
    bill = sum(event.value[1] for event in world.log if event.kind == "sent")
    if bill > world.cap + world.lost_money:
        yield f"the bill is {bill}, the budget {world.cap}"
    if history.stuck or world.lost_money:
        return
    balance = world.money.balance(SCOPE)
    if balance.held:
        yield f"{balance.held} are held by nobody"
    if balance.settled + balance.uncertain < bill:
        yield f"the ledger counts {balance.settled} + {balance.uncertain}, the bill is {bill}"
    if balance.taken > world.cap:
        yield f"the ledger has given out {balance.taken} of {world.cap}"
    if (found := world.money.rebuild()) and not world.lost_money:
        yield f"the ledger's counters were wrong: {found}"
    calm = not any(event.kind in ("killed", "paused", "cut", "hang", "step", "raised") for event in world.log)
    if calm and balance.uncertain:
        yield f"{balance.uncertain} are uncertain although nothing went wrong"


def _rows(history: History) -> Iterator[str]:
    world = history.world
    lines: dict[str, set[bytes]] = defaultdict(set)
    asked = Counter(event.key for event in world.log if event.kind == "asking")
    for event in world.log:
        kept = world.rows.rows.get(event.key)
        if (
            event.kind == "emitted"
            and event.key not in world.forgot_rows
            and kept is not None
            and kept.line is not None
        ):
            lines[event.key].add(event.value)
    for key, found in lines.items():
        # What is no row's own fault is not kept: whoever emits such a line is followed by others.
        kept_line = world.rows.rows[key].line
        others = {one for one in found if one != kept_line and _was_kept(history, key, one)}
        if others:
            yield f"{key} has several results: {sorted(found)}"
    ended = {event.value[0]: event.value[1] for event in world.log if event.kind == "ended"}
    stand = {event.value[0] for event in world.log if event.kind == "kept"}
    for event in world.log:
        shown = event.kind == "emitted" and event.key not in world.forgot_rows and event.value not in stand
        if shown and ended.get(event.value, "") in (None, "json.schema"):
            yield f"{event.key} was shown a result that is not kept: {event.value!r}"
    for key, row in world.rows.rows.items():
        if row.line is not None and row.owner is not None:
            yield f"{key} is done and has an owner"
        if row.reason in ("provider.overloaded", "budget.denied", "budget.lost"):
            yield f"{key} is kept with {row.reason}, which is not its own fault"
        if row.reason == POISON and row.deaths < MAX_ROW_FAILURES:
            yield f"{key} is given up after {row.deaths} deaths"
        if row.line is None and not history.stuck and key in history.rows and not history.out_of_budget and asked[key]:
            outage = any(event.kind == "back" and event.key == key for event in world.log)
            if not outage:
                yield f"{key} was asked and has no result"


def _was_kept(history: History, key: str, line: bytes) -> bool:
    return any(event.kind == "kept" and event.key == key and event.value[1] == line for event in history.world.log)


def _claims(history: History) -> Iterator[str]:
    """Whether a row was given to somebody while another had it: leases worked out again, from the log alone."""
    world = history.world
    until: dict[str, float] = {}
    holder: dict[str, str] = {}
    done: dict[str, bytes] = {}
    deaths: dict[str, int] = {}
    excused: set[str] = set()
    """Processes that may lose a row: somebody did something to them."""
    anybody = False
    for event in world.log:
        match event.kind:
            case "killed" | "paused" | "cut" | "raised":
                excused.add(event.node)
            case "hang" | "step":
                anybody = True
            case "emptied" | "failover" if event.node == "journal":
                return
            case "lease":
                until[event.node] = event.store + event.value
            case "left":
                until.pop(event.node, None)
            case "back":
                if holder.get(event.key) == event.node:
                    del holder[event.key]
            case "mine":
                before = holder.get(event.key)
                if event.key in done:
                    yield f"{event.key} was given to {event.node} although it is done"
                if before not in (None, event.node) and until.get(before, 0.0) > event.store:
                    yield f"{event.key} was given to {event.node} while {before} had it"
                if before not in (None, event.node):
                    deaths[event.key] = deaths.get(event.key, 0) + 1
                    if not anybody and before not in excused:
                        yield f"{event.key} was taken from {before}, to which nothing had happened"
                if event.value != deaths.get(event.key, 0):
                    yield f"{event.key} has {event.value} deaths, and {deaths.get(event.key, 0)} owners had died"
                holder[event.key] = event.node
            case "kept":
                stands, brought = event.value
                if event.key not in done:
                    done[event.key] = stands
                    if stands != brought:
                        yield f"the first result of {event.key} is not the one that stands"
                elif stands != done[event.key]:
                    yield f"the result of {event.key} changed"
                holder.pop(event.key, None)
            case "busy":
                before = holder.get(event.key)
                if event.key in done:
                    yield f"{event.key} is done, and {event.node} was told to wait"
                elif before is None or until.get(before, 0.0) <= event.store:
                    yield f"{event.node} waits for {event.key}, which nobody has"


def _processes(history: History) -> Iterator[str]:
    """Turns, and who is asked alone; a request is sent only under a claim."""
    yield from _patience(history)
    deaths: dict[tuple[str, str], int] = {}
    mine: set[tuple[str, str]] = set()
    for event in history.world.log:
        if event.kind == "mine":
            deaths[event.node, event.key] = event.value
            mine.add((event.node, event.key))
        elif event.kind in ("back", "kept"):
            mine.discard((event.node, event.key))
        elif event.kind == "asking":
            if (event.node, event.key) not in mine:
                yield f"{event.node} asks {event.key} without a claim"
            if event.value > history.concurrency:
                yield f"{event.node} asks {event.value} rows at a time, of {history.concurrency}"
            suspect = deaths.get((event.node, event.key), 0)
            if suspect >= MAX_ROW_FAILURES:
                yield f"{event.node} asks {event.key} after {suspect} deaths"
            if suspect >= ALONE_FROM and event.value > 1:
                yield f"{event.node} asks {event.key}, a suspect, beside others"


def _patience(history: History) -> Iterator[str]:
    """Whether a journal was given up that could have been waited for."""
    away: Counter[str] = Counter()
    for event in history.world.log:
        match event.kind:
            case "cut" if event.key == "journal":
                away[event.node] += event.value
            case "paused":
                away[event.node] += event.value
            case "hang" if event.node == "journal":
                away["all"] += event.value
            case "emptied" if event.node == "journal":
                return
            case "killed":
                away[event.node] += LEASE
            case "raised" if event.value == "JournalLost" and away[event.node] + away["all"] < LEASE / 2:
                yield f"{event.node} gave the journal up, which was away for {away[event.node] + away['all']} s"


def _pace(history: History) -> Iterator[str]:
    """Turns: each is somebody's who lives, and nobody waits for one longer than the limits and troubles explain."""
    world, away, refused, kinds = history.world, 0.0, 0, set[str]()
    own: dict[str, float] = {}
    for event in world.log:
        match event.kind:
            case "paced" if (
                not own.update({event.node: event.value[2]}) and abs(event.value[0] - event.value[1]) > 0.01
            ):
                yield f"{event.value[0]:g} turns are out, of which programs have {event.value[1]:g}"
                return
            case "hang" if event.node == "pace":
                away += event.value
                kinds.add("away")
            case "cut" if event.key == "pace":
                away += event.value
                kinds.add("away")
            case "paused":
                away += event.value
                kinds.add("paused")
            case "step" | "emptied" | "failover":
                away += MOST_STEP
                kinds.add(event.kind)
            case "refused":
                refused += 1
            case "flushed" if own.get(event.node, 0.0) > 0.01 and not kinds & {"away", "paused", "emptied", "failover"}:
                yield f"{event.node} is over, and has {own[event.node]:g} turns out"
            case "turn" if event.value[1] and not kinds & {"away", "paused"}:
                yield f"{event.node} went on alone although the pace's store answered"
            case "turn" if event.value[0] > away + longest_wait(history):
                yield f"{event.node} waited {event.value[0]:.0f} s for a turn"
                return
    calm = not kinds and not any(event.kind == "killed" for event in world.log)
    if calm and world.provider is not None and world.provider.states_limits and refused:
        yield f"{refused} requests were refused although the limits were stated and nothing went wrong"
    left = [event.value for event in world.log if event.kind == "paced" and event.node == "last"]
    if left and not history.stuck and left[-1][0] > 0.01:
        yield f"{left[-1][0]:g} turns are out although everybody is gone"


def longest_wait(history: History) -> float:
    """Seconds for which a call may wait for its turn where nothing goes wrong: the line before it, at the slowest."""
    provider = history.world.provider
    line = 3 * (history.concurrency + 2)
    return 60.0 + line * (10.0 if provider is None or provider.per_minute is None else 600.0 / provider.per_minute)


MOST_STEP = 240.0
"""Seconds by which clocks step, or for which what was known of the limits is wrong."""
