"""A conversation's history, of which every line is complete: what was said, and the answers that stood.

In charge of the `messages` of a request: whose turn it is, which tool calls wait for results, and which answers may
become history. It sends nothing and knows no policy; `messages(client, **conversation.request())` does the asking.

An answer enters as a whole or not at all. What an aborted attempt said never does, because only the answer that stood
is handed over; what a failed call was asked stays in front of the history, to be asked again or dropped. Blocks go back
to the provider as they came: thinking with its signature, tool calls with their ids, citations, and blocks of types
that are yet to be invented.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import msgspec

from streamguard.errors import ConfigError, Problem
from streamguard.outcome import Outcome

COMPLETE: Final = frozenset({"end_turn", "stop_sequence", "tool_use", "pause_turn", "compaction"})
"""Stop reasons after which an answer is complete, whatever a policy accepts beside them."""

_MARKS: Final = ("partial_json", "deltas")
"""Fields that an assembled block has where something of it was cut off or could not be placed."""

Block = dict[str, Any]


class ConversationError(ConfigError):
    """What was asked of a conversation would make a history that the provider rejects, or one that is not true."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model called and that has no result yet."""

    id: str
    name: str
    input: Mapping[str, Any]


class Conversation:
    """A history that grows by whole turns. Used by one call at a time; plain data, so any event loop will do.

    ```python
    conversation = streamguard.Conversation(model="claude-haiku-4-5", max_tokens=2000)
    conversation.user("What does Sörensen owe us?")
    outcome = await streamguard.run(messages(client, **conversation.request()), policy=policy)
    conversation.commit(outcome)
    ```

    :param messages: a history to go on with, such as `messages` of an earlier one, saved as JSON. A last turn of the
        user's is one that was not answered yet.
    :param request: what every request of this conversation has, such as `model`, `max_tokens`, `system` and `tools`.
    :raises ConversationError: the history is none that a provider takes; it has every mistake.
    """

    def __init__(self, *, messages: Iterable[Mapping[str, Any]] = (), **request: Any) -> None:
        self._request = request
        self._history: list[dict[str, Any]] = [copy.deepcopy(dict(message)) for message in messages]
        if problems := list(_problems(self._history)):
            raise ConversationError(problems)
        self._results: dict[str, Block] = {}
        """Results of the last turn's tool calls, by the call's id."""
        self._said: list[str | Block] = []
        """What the user's next turn has beside them."""
        self._asked: int | None = None
        """How much of what was said the latest request had; `None` if none is open."""
        self._paused = bool(self._history) and _is_paused(self._history[-1]["content"])
        """Whether the provider paused its turn, and goes on when it gets the same again."""
        if self._history and self._history[-1]["role"] == "user":
            self._reopen(self._history.pop()["content"])

    # -- the user's turn ----------------------------------------------------------------------------------------------

    def user(self, content: str | Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> Self:
        """Say something: text, a content block or several. What is said before the next request is one turn.

        :param content: a text, a content block, or a list of both.
        :raises ConversationError: nothing was said, or a tool's result, which is for `tool_result`.
        """
        blocks = [content] if isinstance(content, str | Mapping) else list(content)
        if not blocks or blocks == [""]:
            raise ConversationError("user() was given nothing to say")
        for block in blocks:
            if not isinstance(block, str | Mapping):
                raise ConversationError(f"a content block is a mapping, not {block!r}")
            if isinstance(block, Mapping) and block.get("type") == "tool_result":
                raise ConversationError("a tool's result goes to tool_result(), which knows the call it belongs to")
        self._said += [block if isinstance(block, str) else copy.deepcopy(dict(block)) for block in blocks]
        return self

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls of the last turn that have no result yet, in their order."""
        return tuple(call for call in self._calls() if call.id not in self._results)

    def tool_result(
        self,
        call: ToolCall | str,
        content: str | Iterable[Mapping[str, Any]] = "",
        *,
        is_error: bool = False,
    ) -> Self:
        """Add the result of a tool call. The next request needs a result for each of them.

        :param call: the call, or its id.
        :param content: text or content blocks.
        :param is_error: whether the tool failed; `content` then tells the model how.
        :raises ConversationError: there is no such call without a result.
        """
        name = call if isinstance(call, str) else call.id
        if name not in (open_ := [call.id for call in self.tool_calls]):
            raise ConversationError(f"no tool call {name!r} waits for a result; waiting: {', '.join(open_) or 'none'}")
        block: Block = {"type": "tool_result", "tool_use_id": name}
        if content != "":
            block["content"] = content if isinstance(content, str) else [copy.deepcopy(dict(one)) for one in content]
        if is_error:
            block["is_error"] = True
        self._results[name] = block
        return self

    def drop(self) -> Self:
        """Forget what was not answered: what the user said, and tool results, since the last turn that stood."""
        self._said.clear()
        self._results.clear()
        self._asked = None
        return self

    # -- asking, and answers ------------------------------------------------------------------------------------------

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history, and after it what was not answered yet: a copy, as the API takes it, fit for JSON."""
        turn = self._turn(len(self._said))
        return copy.deepcopy([*self._history, *([turn] if turn else [])])

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return the arguments of a request for the next answer: `messages(client, **conversation.request())`.

        Asking again asks the same, until an answer is committed.

        :param changes: arguments of this request alone, before those of the conversation.
        :raises ConversationError: tool calls have no result yet, or there is nothing to answer.
        """
        if "messages" in changes:
            raise ConversationError("the messages of a request are the conversation's own; say more with user()")
        if waiting := self.tool_calls:
            calls = ", ".join(f"{call.name} ({call.id})" for call in waiting)
            raise ConversationError(f"tool calls wait for a result: {calls}; give it with tool_result()")
        if not self._said and not self._results and not self._paused:
            raise ConversationError("there is nothing to answer: say something with user()")
        self._asked = len(self._said)
        return {**self._request, **changes, "messages": self.messages}

    def commit(self, answer: Any) -> None:
        """Make the turn that was asked and its answer history: both, or neither if this raises.

        A `cut` answer becomes its document alone, since what came after it is not known.

        :param answer: an `Outcome`, or a provider's own message (of `client.messages.create()`, for one).
        :raises ConversationError: nothing was asked, or the answer is not complete.
        """
        if self._asked is None:
            raise ConversationError("commit() without request(): this conversation asked nothing that is not answered")
        content, stop_reason = _complete(answer)
        turn = self._turn(self._asked)
        history = [*self._history, turn] if turn else self._history[:-1]
        if turn is None:  # the provider paused its turn, and this is the rest of it
            content = [*_blocks(self._history[-1]["content"]), *content]
        self._history = [*history, {"role": "assistant", "content": content}]
        self._results = {}
        self._said = self._said[self._asked :]
        self._asked, self._paused = None, stop_reason in ("pause_turn", "compaction")

    # -- parts --------------------------------------------------------------------------------------------------------

    def _calls(self) -> Iterator[ToolCall]:
        if self._history:
            for block in _blocks(self._history[-1]["content"]):
                if block.get("type") == "tool_use":
                    yield ToolCall(id=block["id"], name=block["name"], input=copy.deepcopy(block["input"]))

    def _turn(self, said: int) -> dict[str, Any] | None:
        """The user's turn. Results come first, in the order of their calls: the API takes them nowhere else."""
        results = [self._results[call.id] for call in self._calls() if call.id in self._results]
        content: list[str | Block] = [*results, *self._said[:said]]
        if not content:
            return None
        if len(content) == 1 and isinstance(content[0], str):
            return {"role": "user", "content": content[0]}
        return {"role": "user", "content": [_text(one) if isinstance(one, str) else one for one in content]}

    def _reopen(self, content: str | list[Block]) -> None:
        for block in [content] if isinstance(content, str) else content:
            if isinstance(block, dict) and block.get("type") == "tool_result":
                self._results[block["tool_use_id"]] = block
            else:
                self._said.append(block)


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _is_paused(content: Any) -> bool:
    """Whether a turn was paused: every finished one ends with text or with calls of the caller's tools.

    A turn that ends with work of the provider's, with what came of it, or with thinking goes on when it is sent back.
    """
    return isinstance(content, list) and bool(content) and content[-1].get("type") not in ("text", "tool_use")


def _blocks(content: Any) -> list[Block]:
    return [_text(content)] if isinstance(content, str) else content


# -- answers ----------------------------------------------------------------------------------------------------------


def _complete(answer: Any) -> tuple[list[Block], str | None]:
    """The blocks of an answer as the provider wants them back, and its stop reason.

    :raises ConversationError: it is not complete.
    """
    completed: str | None = None
    message = answer
    if isinstance(answer, Outcome):
        completed, message = answer.completed, answer.message
        if message is None:
            raise ConversationError("the outcome has no message of a provider's: its source gives none")
    if message is None:
        raise ConversationError("there is no answer: the call is not over, or it failed")
    if isinstance(message, BaseException):
        raise ConversationError(f"a call that failed has no answer: {message}")
    content, stop_reason = _field(message, "content"), _field(message, "stop_reason")
    if _field(message, "role") != "assistant" or not isinstance(content, list):
        raise ConversationError(f"{type(message).__name__} is no answer: commit an Outcome or the provider's message")
    if completed == "enough":
        raise ConversationError(
            "the answer was ended as soon as the named parts stood (completed: enough), so it is no turn"
        )
    blocks = [_block_json(block) for block in content]
    if completed == "cut":
        assert isinstance(answer, Outcome)
        blocks = _cut(blocks, answer)
    elif stop_reason == "refusal":
        raise ConversationError("the model refused: while that stands in the history it goes on refusing; drop() it")
    elif completed is None and stop_reason not in COMPLETE:
        raise ConversationError(f"the answer is not complete: its stop reason is {stop_reason!r}")
    blocks = [block for block in blocks if not _empty(block)]
    problems = [*_unfinished(blocks, signed=stop_reason not in COMPLETE and completed != "cut")]
    if not blocks:
        problems = [Problem(pointer="/content", problem="the answer has no content, so it is no turn")]
    if problems:
        raise ConversationError(problems)
    return blocks, stop_reason


def _cut(blocks: list[Block], outcome: Outcome) -> list[Block]:
    """The answer up to the end of its document, which is all that was accepted of it."""
    if blocks and blocks[-1].get("type") == "tool_use":
        call = {name: value for name, value in blocks[-1].items() if name not in _MARKS}
        return [*blocks[:-1], call | {"input": copy.deepcopy(outcome.data)}]
    return [*(block for block in blocks if block.get("type") != "text"), _text(outcome.text)]


def _unfinished(blocks: Sequence[Block], *, signed: bool) -> Iterator[Problem]:
    """Blocks that something is missing of. `signed`: thinking without a signature may have been cut off."""
    for index, block in enumerate(blocks):
        pointer, kind = f"/content/{index}", block.get("type")
        if any(mark in block for mark in _MARKS):
            yield Problem(pointer=pointer, problem=f"the {kind} block was cut off or has parts that nobody could place")
        elif kind == "tool_use" and not isinstance(block.get("input"), Mapping):
            yield Problem(pointer=pointer, problem="the input of the tool call is no object")
        elif kind == "thinking" and signed and not block.get("signature"):
            yield Problem(pointer=pointer, problem="the thinking has no signature: it was cut off")


def _empty(block: Block) -> bool:
    """A text block without text: models write such blocks, and the API does not take them back."""
    return block.get("type") == "text" and not str(block.get("text") or "").strip()


def _field(message: Any, name: str) -> Any:
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)


def _block_json(block: Any) -> Block:
    """A block as the SDK sends it, or as it came."""
    if isinstance(block, Mapping):
        return copy.deepcopy(dict(block))
    left_out = getattr(block, "__api_exclude__", None)
    plain: Block = block.model_dump(mode="json", exclude_unset=True, by_alias=True, exclude=left_out, warnings=False)
    return plain


# -- a history from outside -------------------------------------------------------------------------------------------


def _problems(messages: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """What is wrong with a history, by place."""
    calls: list[str] = []
    turn = 0
    for index, message in enumerate(messages):
        pointer, role, content = f"/messages/{index}", message.get("role"), message.get("content")
        last = index == len(messages) - 1
        if role not in ("user", "assistant", "system") or (role == "system" and last):
            which = "the last turn" if role == "system" else "a turn"
            yield Problem(pointer=f"{pointer}/role", problem=f"{which} is the user's or the assistant's, not {role!r}")
            continue
        if not content or not isinstance(content, str | list) or not all(map(_is_block, _blocks(content))):
            yield Problem(pointer=f"{pointer}/content", problem="a turn has text, or content blocks with a `type`")
            continue
        if role == "system":
            continue
        if role != ("user", "assistant")[turn % 2]:
            yield Problem(pointer=f"{pointer}/role", problem="turns alternate, and the first one is the user's")
        turn += 1
        blocks = _blocks(content)
        if role == "user":
            results = [str(block.get("tool_use_id")) for block in blocks if block["type"] == "tool_result"]
            if set(results) - set(calls) or (not last and set(calls) - set(results)):
                problem = f"the calls before it are {_listed(calls)}, its results are for {_listed(results)}"
                yield Problem(pointer=f"{pointer}/content", problem=problem)
        calls = [str(block["id"]) for block in blocks if block["type"] == "tool_use"]


def _is_block(block: Any) -> bool:
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
        return False
    return block["type"] != "tool_use" or (
        "id" in block and "name" in block and isinstance(block.get("input"), Mapping)
    )


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names)) or "none"
