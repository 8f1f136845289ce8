"""How one attempt may end under a policy: every cause with the moment at which it speaks.

In charge of holding what a script says against a policy's sections, one by one, as the documentation describes them.
Each cause has an earliest and a latest moment; where they differ the policy promises an estimate or a bound, not a
moment. An attempt may end by any cause whose earliest moment is not after some other cause's latest.

It imports nothing of the package's guards and engine: a policy is data to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import regex

from streamguard.testing.oracle.causes import NEVER, RANKS, Cause, Moment
from streamguard.testing.oracle.checked import check_causes
from streamguard.testing.oracle.clocks import SERVER_TOOLS, THINKING, Clocks
from streamguard.testing.oracle.documents import Documents, is_object, is_unfinished
from streamguard.testing.oracle.protocol import Protocol
from streamguard.testing.oracle.reading import Said, read, read_opened
from streamguard.testing.steps import Item

_JSON = tuple(
    f"json.{name}"
    for name in (
        *("malformed", "schema", "duplicate_name", "fence", "preamble", "trailing", "depth", "number", "size"),
        *("incomplete", "ungrounded"),
    )
)
_STOPS = {
    "max_tokens": "stop.max_tokens",
    "refusal": "stop.refusal",
    "pause_turn": "stop.pause",
    "model_context_window_exceeded": "stop.context_window",
    "end_turn": "stop.not_allowed",
    "stop_sequence": "stop.not_allowed",
    "tool_use": "stop.not_allowed",
    "compaction": "stop.not_allowed",
}
_CUTS = ("max_tokens", "model_context_window_exceeded", "refusal", "pause_turn")
_LATE_CHARACTERS = 128
"""How many characters later than its sign a loop may be noticed: it is looked for in steps."""


_FEWEST = 0.14
"""Tokens for each character that is no blank, at the very least: the lightest characters, at the low end of a scale."""
_BATCH = 32
"""Tokens that may not have been weighed yet."""


class Attempt:
    """What may become of one attempt.

    :param items: what the provider does.
    :param policy: the policy, or anything with its sections as attributes.
    :param request: the attempt's request.
    :param left: seconds that the call has left when the attempt begins.
    :param sees_bytes: whether the source shows pings and other bytes.
    :param opened: whether the attempt begins with the response's head, as somebody else has sent the request.
    """

    def __init__(
        self,
        items: Sequence[Item],
        policy: Any,
        request: Mapping[str, Any],
        *,
        left: float = NEVER,
        event_bytes: int = 1_048_576,
        sees_bytes: bool = True,
        opened: bool = False,
    ) -> None:
        self._policy = policy
        self._request = request
        self._left = left
        self._sees_bytes = sees_bytes
        self._causes: list[Cause] = []
        self._events: list[Said] = []
        self._first_output: Moment | None = None
        self._doubtful = False
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self.fell = False
        """Whether counts cannot all be true, so that none is exact."""
        self.usage: dict[str, int] = {}
        """The last count of each kind that the provider told, up to the attempt's end."""
        self._clocks = Clocks(policy.timeouts, request, left, sees_bytes=sees_bytes, off=self._observes("timeouts"))
        self._read((read_opened if opened else read)(items, event_bytes=event_bytes))
        self._judge()

    @property
    def ends(self) -> list[Cause]:
        """All ways in which the attempt may end."""
        first = min(cause.latest for cause in self._causes)
        return [cause for cause in self._causes if cause.earliest <= first]

    def delivered(self, cause: Cause) -> set[bool]:
        """Whether a consumer who is shown events at once has seen output before the attempt ended so."""
        first = self._first_output
        if first is None or first > cause.latest:
            return {False}
        # What one read brings together with the end may or may not have been handed out before it; and what it brings
        # together with the message's end, before it is known what follows that.
        stop = next((said.time for said in self._events if said.kind == "stop"), NEVER)
        return {True} if first.time < min(cause.earliest.time, stop) else {True, False}

    def text(self, cause: Cause) -> str:
        """All text up to the moment of a cause, of the message itself."""
        stop = next((said.number for said in self._events if said.kind == "stop"), NEVER)
        own = (said for said in self._deltas("text") if said.number < stop)
        return "".join(said.about[2] for said in own if self._at(said) <= cause.latest)

    # Reading, and what speaks while reading: clocks, failures, the end.

    def _observes(self, name: str) -> bool:
        section = getattr(self._policy, name)
        return section is None or (section.mode or self._policy.mode) == "observe"

    def _add(
        self, who: str, reasons: Sequence[str | None], at: Said, latest: Moment | None = None, **about: Any
    ) -> None:
        moment = Moment(at.time, at.number, RANKS.index(who))
        self._causes.append(Cause(tuple(reasons), moment, moment if latest is None else latest, **about))

    def _surely_over(self, now: float) -> bool:
        return any(cause.latest.time < now for cause in self._causes)

    def _read(self, everything: Iterator[Said]) -> None:
        protocol = Protocol()
        stopped: Said | None = None
        drained = NEVER
        grace = self._policy.timeouts.close_grace
        for said in everything:
            over = ("broken", "raw", "end", "failed")
            if stopped is not None and (said.time > stopped.time + grace or said.kind in over):
                drained = min(said.time, stopped.time + grace)
                break
            if said.kind == "wait":
                if stopped is None:
                    self._causes += self._clocks.run_out(said.about, said.time, said.number)
            elif said.kind in ("failed", "broken", "raw", "end"):
                self._failed(said)
                break
            elif stopped is not None:
                if said.kind == "usage":  # nothing is judged after the end, and a late count still counts
                    self._count(said)
            else:
                if protocol.broken(said):
                    if not self._observes("completion"):
                        self._add("completion", ("transport.decode",), said)
                        break
                    self._doubtful = True
                self._take(said)
                if said.kind == "stop":
                    stopped = said
            if self._surely_over(said.time) or said.time == NEVER:
                break
        if stopped is None:
            if not self._causes:
                raise ValueError("the script goes on for ever, and nothing in the policy ends it")
            return
        self._stop_reason = protocol.stop_reason
        # After the end the socket is read for a while, and nothing there speaks.
        wrong = self._wrong_end(protocol)
        if wrong is not None and not self._observes("completion"):
            self._add("completion", (wrong,), stopped)
        # Nothing is claimed of an answer that a guard would have rejected that only looks on.
        whole = None if wrong is not None or self._doubtful else "whole"
        end = Moment(min(drained, stopped.time + grace), NEVER)
        self._causes.append(Cause((whole,), end, end, accepted=True))

    def _failed(self, said: Said) -> None:
        if said.kind == "failed":
            self._add("failed", said.about.reasons, said, answer=said.about)
        else:
            if said.kind == "raw":
                self._first_output = self._first_output or self._at(said)
            self._add("failed", said.about or ("transport.incomplete",), said)

    def _take(self, said: Said) -> None:
        self._clocks.heard(said)
        if self._first_output is None and self._shows(said):
            self._first_output = self._at(said)
        if said.kind in ("head", "bytes") or (said.kind == "ping" and not self._sees_bytes):
            return
        self._events.append(said)
        if said.kind == "usage":
            self._stop_sequence = said.about[2] or self._stop_sequence
            self._count(said)

    def _count(self, said: Said) -> None:
        for name, given in said.about[1].items():
            # A count is a number however it is written; a 0 beside output means that nobody counted.
            count = int(float(given)) if str(given).replace(".", "", 1).isdigit() else None
            if count:
                self.fell = self.fell or count < self.usage.get(name, 0)
                self.usage[name] = max(count, self.usage.get(name, 0))
            elif name == "input_tokens":
                self.fell = True  # the input is known from the start only, or not at all

    def _shows(self, said: Said) -> bool:
        """Whether whoever looks on sees output here: a tool's input is when its block has ended, if it is an object."""
        if said.kind == "close":
            return is_object("".join(one.about[2] for one in self._deltas("tool_input", said.about)))
        if said.kind == "open":
            return said.about[1] in (*THINKING, *SERVER_TOOLS)
        return said.kind == "delta" and said.about[1] != "tool_input"

    def _wrong_end(self, protocol: Protocol) -> str | None:
        """What is wrong with a message that ended by itself: its stop reason, or that nothing is in it."""
        spec = self._policy.completion
        if protocol.stop_reason not in spec.accept:
            caps, asked = self._policy.caps, self._request.get("max_tokens", 0)
            if protocol.stop_reason == "max_tokens" and caps is not None and (caps.output_tokens or asked) < asked:
                # The request was sent with the cap in place of its own limit.
                return "cap.output_tokens"
            return _STOPS.get(protocol.stop_reason or "", "stop.unknown")
        asked_for = self._request.get("stop_sequences")
        if protocol.stop_reason == "stop_sequence" and not asked_for and self._stop_sequence is None:
            return "stop.unknown"
        called, text = protocol.called, self._all("text").strip()
        if (protocol.stop_reason == "tool_use" and not called) or (spec.require_content and not (called or text)):
            return "stop.empty"
        return None

    # What speaks about content, found afterwards.

    @staticmethod
    def _at(said: Said) -> Moment:
        return Moment(said.time, said.number)

    def _deltas(self, kind: str, index: int | None = None) -> Iterator[Said]:
        return (
            said
            for said in self._events
            if said.kind == "delta" and said.about[1] == kind and index in (None, said.about[0])
        )

    def _all(self, kind: str) -> str:
        return "".join(said.about[2] for said in self._deltas(kind))

    def _judge(self) -> None:
        self._calls()
        if not self._observes("json_document"):
            self._documents(self._policy.json_document)
        for section in self._policy.content:
            if (section.mode or self._policy.mode) != "observe":
                self._content(section)
        if not self._observes("repetition"):
            self._repetition(self._policy.repetition)
        if not self._observes("caps"):
            self._caps(self._policy.caps)

    def _next(self, after: Said | None) -> Said | None:
        """What the message says next about a block that was closed: another one begins, or the message ends."""
        later = (said for said in self._events if after is not None and said.number > after.number)
        return next((said for said in later if said.kind in ("open", "stop")), None)

    def _calls(self) -> None:
        """A closed call of the caller's tool whose input is no object, whatever the policy says."""
        for block in self._events:
            if block.kind != "open" or block.about[1] != "tool_use":
                continue
            index = block.about[0]
            close = next((s for s in self._events if (s.kind, s.about) == ("close", index)), None)
            pieces = (said for said in self._deltas("tool_input", index) if close is None or said.number < close.number)
            text = "".join(said.about[2] for said in pieces)
            again = sum(said.kind == "open" and said.about[0] == index for said in self._events) > 1
            if close is None or not text or (is_object(text) and not again):
                continue
            end = self._next(close)
            cut = end is not None and end.kind == "stop" and self._stop_reason in _CUTS
            if is_unfinished(text) and not again:
                # It is judged by what the message says next: another block, or why it ended.
                if end is not None and not cut:
                    self._add("json", ("json.malformed", "json.incomplete"), end)
                continue
            last = None if end is None or cut or again else Moment(end.time, end.number, RANKS.index("json"))
            self._add("json", ("json.malformed", "json.incomplete"), close, last or Moment(NEVER))

    def _documents(self, section: Any) -> None:
        stop = next((said for said in self._events if said.kind == "stop"), None)
        if section.where == "text":
            schema = _schema(section, self._request.get("output_config", {}).get("format", {}).get("schema"))
            tools = bool(self._request.get("tools"))
            documents = Documents(section, schema, framed=True, may_end=not tools, request=self._request)
            self._document(documents, list(self._deltas("text")), stop)
            return
        given = {tool["name"]: tool.get("input_schema") for tool in self._request.get("tools", ())}
        blocks = [said for said in self._events if said.kind == "open" and said.about[1] == "tool_use"]
        for block in blocks:
            index, name = block.about[0], block.about[2].get("name")
            schema = _schema(section, given.get(name))
            documents = Documents(section, schema, framed=False, may_end=False, request=self._request)
            close = next((said for said in self._events if (said.kind, said.about) == ("close", index)), None)
            end = self._next(close) if close is not None else stop
            self._document(documents, list(self._deltas("tool_input", index)), end, close=close, empty="{}")

    def _document(
        self,
        documents: Documents,
        deltas: list[Said],
        end: Said | None,
        *,
        close: Said | None = None,
        empty: str = "",
    ) -> None:
        """When the document, which comes in these pieces, is dead, or complete."""
        texts = _growing(tuple(said.about[2] for said in deltas))
        own = [text for said, text in zip(deltas, texts, strict=True) if end is None or said.number < end.number]
        whole = own[-1] if own else empty
        self._causes += check_causes(self._policy, documents, deltas, own)
        done = _first(texts, lambda text: documents.document(text) is not None) if documents.cuts else None
        if done is not None and documents.accepts(texts[done]):
            self._add("accepted", self._ends(deltas[done]), deltas[done], accepted=True)
            return
        good = end is not None and documents.accepts(whole)
        # What comes after the end mends nothing, but it may spoil what was good.
        judged = texts if good else own
        dead = _first(judged, lambda text: documents.life(text) == "dead")
        unsure = _first(judged, lambda text: documents.life(text) != "alive")
        if good and unsure is None:
            return
        last = None if dead is None else Moment(deltas[dead].time, deltas[dead].number, RANKS.index("json"))
        if dead is not None and texts[dead] == empty == "{}":
            last = None  # it may be that the input was cut before its first character
        if end is not None and last is None and not good:
            last = Moment(end.time, end.number, RANKS.index("json"))
        if unsure is not None:
            self._add("json", _JSON, deltas[unsure], last or Moment(NEVER))
        elif end is not None:
            first = end if close is None or is_unfinished(whole) else close
            self._add("json", _JSON, first, Moment(end.time, end.number, RANKS.index("json")))

    def _ends(self, done: Said) -> Sequence[str]:
        """How an answer counts whose document closes there: `whole` where the message's end may follow it at once."""
        for said in self._events:
            if said.number <= done.number:
                continue
            if said.kind == "stop":
                return "cut", "whole"
            if said.kind == "open" or (said.kind == "delta" and said.about[2].strip(" \t\r\n`~")):
                break
        return ("cut",)

    def _content(self, section: Any) -> None:
        """A forbidden pattern: noticed once it stands there, at the latest a batch later or with its block."""
        flags = {"ignore_case": regex.I, "multiline": regex.M, "dot_all": regex.S}
        pattern = regex.compile(section.pattern, sum(flags[flag] for flag in section.flags))
        kinds = ("text", "thinking", "tool_input") if section.where == "any" else (section.where,)
        for kind in kinds:
            deltas = list(self._deltas(kind))
            texts = _growing(tuple(said.about[2] for said in deltas))
            there = _first(texts, lambda text: pattern.search(text) is not None)
            if there is None:
                continue
            later = (said for said, text in zip(deltas, texts, strict=True) if len(text) > len(texts[there]) + 80)
            ends = (s for s in self._events if s.kind in ("close", "stop") and s.number > deltas[there].number)
            last = min(
                (self._at(said) for said in (next(later, None), next(ends, None)) if said), default=Moment(NEVER)
            )
            self._add("content", (section.reason,), deltas[there], last._replace(rank=RANKS.index("content")))

    def _repetition(self, section: Any) -> None:
        kinds = ("text", "thinking", "tool_input") if section.where == "any" else (section.where,)
        for kind in kinds:
            deltas = list(self._deltas(kind))
            sizes = _sizes(deltas)
            text = self._all(kind)
            for reason, begin, lasts in _signs(text, section.max_whitespace, section.max_period, section.min_repeats):
                first = next(n for n, size in enumerate(sizes) if size >= begin)
                sure = (n for n, size in enumerate(sizes) if size >= begin + _LATE_CHARACTERS)
                surely = next(sure, None) if lasts >= begin + _LATE_CHARACTERS else None
                last = Moment(NEVER) if surely is None else self._at(deltas[surely])._replace(rank=len(RANKS))
                self._add("repetition", (reason,), deltas[first], last)

    def _caps(self, section: Any) -> None:
        deltas = [said for said in self._events if said.kind == "delta"]
        sizes = _sizes(deltas)
        if section.characters is not None:
            over = next((n for n, size in enumerate(sizes) if size > section.characters), None)
            if over is not None:
                self._add("caps", ("cap.characters",), deltas[over])
        calls = [said for said in self._events if said.kind == "open" and said.about[1] == "tool_use"]
        if section.tool_calls is not None and len(calls) > section.tool_calls:
            self._add("caps", ("cap.tool_calls",), calls[section.tool_calls])
        events = [one for said in self._events for one in [said] * (1 + self._closes_a_whole_input(said))]
        if section.events is not None and len(events) > section.events:
            self._add("caps", ("cap.events",), events[section.events])
        counted = (("output_tokens", "output_tokens"), ("thinking_tokens", ""))
        for name, field in counted:
            limit = getattr(section, name)
            if limit is not None:
                visible = [d for d in deltas if name == "output_tokens" or d.about[1] == "thinking"]
                self._estimated(f"cap.{name}", visible, limit, field)
        if section.cost_usd is not None:
            # A token has at least a byte, so an answer of few bytes cannot have cost much.
            price = self._policy.prices[self._request["model"]]
            self._estimated("cap.cost", deltas, float(section.cost_usd) * 1e6 / float(price.output), "output_tokens")

    def _closes_a_whole_input(self, said: Said) -> bool:
        """Whether this ends the block of a tool whose input came whole with its start: it is told as a piece then."""
        blocks = (one.about for one in self._events if one.kind == "open" and one.number < said.number)
        tools = ("tool_use", *SERVER_TOOLS)
        return (
            said.kind == "close"
            and any(index == said.about and kind in tools for index, kind, _ in blocks)
            and not any(one.number < said.number for one in self._deltas("tool_input", said.about))
        )

    def _estimated(self, reason: str, deltas: list[Said], limit: float, field: str) -> None:
        """A cap on tokens, estimated: it may speak once more bytes were written than it allows tokens, and must when
        there are so many characters of words and signs that no tokenizer makes so few tokens of them; or when the
        provider's own count says so."""
        rank = RANKS.index("caps")
        over, surely = None, None
        written, heavy = 0, 0
        for said in deltas:
            written += len(said.about[2].encode("utf-8", "surrogatepass"))
            heavy += sum(not char.isspace() for char in said.about[2])
            if over is None and written > limit:
                over = said
            if surely is None and heavy * _FEWEST > limit + _BATCH:
                surely = said
        told = (s for s in self._events if s.kind == "usage" and isinstance(s.about[1].get(field), int | float))
        counts = (s for s in told if s.about[1][field] > limit)
        latest = [self._at(said)._replace(rank=rank) for said in (surely, next(counts, None)) if said is not None]
        if over is not None or latest:
            at = Moment(over.time, over.number, rank) if over is not None else min(latest)
            self._causes.append(Cause((reason,), min([at, *latest]), min(latest, default=Moment(NEVER))))


def _schema(section: Any, requested: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    given = section.schema_
    if given == "request":
        return requested
    return None if given is None else _thawed(given)


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thawed(inner) for key, inner in value.items()}
    return [_thawed(inner) for inner in value] if isinstance(value, list | tuple) else value


@lru_cache(maxsize=256)
def _growing(pieces: tuple[str, ...]) -> list[str]:
    """The text after each piece."""
    texts, text = [], ""
    for piece in pieces:
        text += piece
        texts.append(text)
    return texts


def _sizes(deltas: Sequence[Said]) -> list[int]:
    sizes, size = [], 0
    for said in deltas:
        size += len(said.about[2])
        sizes.append(size)
    return sizes


def _first(texts: Sequence[str], holds: Any) -> int | None:
    """The first of growing texts for which something holds that goes on to hold once it does."""
    low, high = 0, len(texts)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(texts[middle]) else (middle + 1, high)
    return low if low < len(texts) else None


@lru_cache(maxsize=256)
def _signs(text: str, blanks: int | None, longest: int | None, repeats: int) -> tuple[tuple[str, int, int], ...]:
    """Signs of loops in a text: which, after how many characters it stands there, and how long it goes on to."""
    found = []
    if blanks is not None and (run := regex.search(rf"\s{{{blanks + 1},}}", text)):
        found.append(("repetition.whitespace", run.start() + blanks + 1, run.end()))
    for period in range(1, (longest or 0) + 1):
        length = max(repeats * period, 256)
        run_of = 0
        for at in range(period, len(text)):
            run_of = run_of + 1 if text[at] == text[at - period] else 0
            if run_of + period == length:
                end = at + 1
                while end < len(text) and text[end] == text[end - period]:
                    end += 1
                found.append(("repetition.loop", at + 1, end))
                break
    return tuple(found)
