"""Stop reasons in other APIs' words, as gateways leave them → the provider's.

In charge of one table. What an accepted reason is, the completion guard says; a reason that is in neither stays as it
came, and is unknown there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamguard.adapters.anthropic.usage import word

STOP_WORDS: Final[Mapping[str, str]] = {
    # OpenAI: chat completions (`finish_reason`), then responses (`incomplete_details.reason`)
    "length": "max_tokens",
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
    "max_output_tokens": "max_tokens",
    # Gemini (`finishReason`, in capitals); `STOP` and `MAX_TOKENS` are above and the provider's own
    "safety": "refusal",
    "recitation": "refusal",
    "blocklist": "refusal",
    "prohibited_content": "refusal",
    "spii": "refusal",
    # Bedrock's Converse
    "guardrail_intervened": "refusal",
    "content_filtered": "refusal",
    # Mistral, text-generation-inference, Cohere
    "model_length": "model_context_window_exceeded",
    "eos_token": "end_turn",
    "complete": "end_turn",
    "tool_call": "tool_use",
}
"""Another API's word, in lower case → the provider's."""

_OWN: Final = frozenset({"end_turn", "stop_sequence", "tool_use", "max_tokens", "refusal", "pause_turn", "compaction"})


def stop_reason(value: object) -> str | None:
    """Return a stop reason in the provider's words, or `None` for none.

    :param value: what came: a text in any case; anything else is none.
    """
    said = word(value)
    if said is None:
        return None
    lower = said.lower()
    return lower if lower in _OWN else STOP_WORDS.get(lower, said)
