"""What an unfinished document still needs and what may come next, as its open frames know it.

For people only: nothing is decided by it. Where not everything can be told, less is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streamguard.viability.explain.messages import accepted
from streamguard.viability.state.frames import Frame, Tracker
from streamguard.viability.syntax.grammar import OBJECT
from streamguard.viability.syntax.pointer import quote


def outlook(frames: list[Frame], root: Any, at: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """See `Listener.outlook`."""
    if not frames:
        return [], tuple(accepted(root, ())) if at == "value" else ()
    missing: list[tuple[str, ...]] = []
    trackers = [tracker for tracker in (frames[0].by_demand.get(root),) if tracker is not None]
    for frame in frames:
        states = [state for tracker in trackers for state in tracker.states]
        if frame.kind == OBJECT and states:
            needed = set.intersection(*(set(state.missing) for state in states))
            missing.append(tuple(name for name in states[0].missing if name in needed))
        else:
            missing.append(())
        if frame is frames[-1]:
            return missing, tuple(dict.fromkeys(_next(frame, trackers, at)))
        trackers = list({id(t): t for s in states if (t := getattr(s, "child", None)) is not None}.values())
    return missing, ()


def _next(frame: Frame, trackers: list[Tracker], at: str) -> Iterator[str]:
    states = [state for tracker in trackers for state in tracker.states]
    if not states:
        return
    if frame.text is not None:
        if all(state.alt.candidates is not None for state in states):
            for state in states:
                yield from (quote(text, 80) for text in state.left())
    elif frame.kind == OBJECT and (at == "name" or (at == "inside" and frame.name_text is not None)):
        if any(state.alt.open or state.left is None for state in states):
            return
        for state in states:
            for unit, name in state.left.items():
                if at == "name" or frame.name_text is None or frame.name_text.extends([unit]):
                    yield quote(name, 80)
    elif at == "value" and frame.kind == OBJECT:
        if all(state.query is not None and state.query.key for state in states):
            for state in states:
                yield from accepted(state.query, ())
    elif at == "value" and all(state.alt.child(frame.count).key for state in states):
        for state in states:
            yield from accepted(state.alt.child(frame.count), frame.canon if state.alt.unique else ())
