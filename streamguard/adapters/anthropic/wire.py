"""Events of the Messages API as typed structs: what of the wire's JSON is read.

In charge of the decoder's types and tables. A field that nobody needs kills no answer: what may be of another type on
some server is `Any`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from streamguard.events import DeltaKind


class Message(msgspec.Struct):
    id: Any = None
    model: Any = None
    usage: Any = None
    content: Any = None
    stop_reason: Any = None
    stop_sequence: Any = None


class MessageStart(msgspec.Struct, tag="message_start"):
    message: Message


class Block(msgspec.Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    id: Any = None
    name: Any = None
    input: msgspec.Raw = msgspec.Raw(b"{}")

    def __post_init__(self) -> None:
        self.document()  # a raw value is not checked when it is decoded: what is no UTF-8 is refused here

    def document(self) -> str:
        """The input that the block began with, as text; a `null` is an input without arguments."""
        text = bytes(self.input).decode()
        return "{}" if text == "null" else text


class BlockStart(msgspec.Struct, tag="content_block_start"):
    index: int
    content_block: Block


# A piece with fields that we do not know is none of the plain ones: nothing of it may be lost.
class TextDelta(msgspec.Struct, tag="text_delta", gc=False, forbid_unknown_fields=True):
    text: str


class InputJsonDelta(msgspec.Struct, tag="input_json_delta", gc=False, forbid_unknown_fields=True):
    partial_json: str


class ThinkingDelta(msgspec.Struct, tag="thinking_delta", gc=False, forbid_unknown_fields=True):
    thinking: str


class SignatureDelta(msgspec.Struct, tag="signature_delta", gc=False):
    signature: Any = None


class CitationsDelta(msgspec.Struct, tag="citations_delta", gc=False):
    pass


AnyDelta = TextDelta | InputJsonDelta | ThinkingDelta | SignatureDelta | CitationsDelta


class BlockDelta(msgspec.Struct, tag="content_block_delta", forbid_unknown_fields=True):
    index: int
    delta: AnyDelta


class BlockStop(msgspec.Struct, tag="content_block_stop", gc=False):
    index: int


class MessageDelta(msgspec.Struct, tag="message_delta"):
    delta: Any = None
    usage: Any = None


class MessageStop(msgspec.Struct, tag="message_stop"):
    usage: Any = None
    metrics: Any = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


class PingWire(msgspec.Struct, tag="ping"):
    pass


class ErrorWire(msgspec.Struct, tag="error"):
    pass


Wire = BlockDelta | BlockStart | BlockStop | MessageStart | MessageDelta | MessageStop | PingWire | ErrorWire


def _tags(union: Any) -> frozenset[str]:
    return frozenset(struct.__struct_config__.tag for struct in union.__args__)


TYPES: Final = _tags(Wire)
DELTA_TYPES: Final = _tags(AnyDelta)
INNER: Final = {"content_block_delta": "delta", "content_block_start": "content_block"}
PIECE_FIELDS: Final[dict[type, tuple[DeltaKind, str]]] = {
    TextDelta: ("text", "text"),
    InputJsonDelta: ("tool_input", "partial_json"),
    ThinkingDelta: ("thinking", "thinking"),
}
KNOWN_FIELDS: Final = {
    struct.__struct_config__.tag: ("type", *struct.__struct_fields__) for struct in AnyDelta.__args__
}
decode: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(Wire).decode
