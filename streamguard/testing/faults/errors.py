"""Chapter C: errors of the provider, and what asking again makes of them."""

from __future__ import annotations

from streamguard.testing import wire
from streamguard.testing.faults.base import GOOD, Catalogue, Items, Say
from streamguard.testing.steps import error, omit_last_chunk, pause, status

CHAPTER = Catalogue()
fault = CHAPTER.fault

_LIMIT = wire.error_body("rate_limit_error")


@fault("F24-overloaded", "classify by the error's type: inside a stream the status is 200")
def overloaded(say: Say) -> Items:
    """`overloaded_error` in the middle of a stream."""
    return [*say.half(), wire.error("overloaded_error")]


@fault("F24-api-error", "the same")
def api_error(say: Say) -> Items:
    """`api_error` in the middle of a stream."""
    return [*say.half(), wire.error("api_error")]


@fault("F24-rate-limit", "the same")
def rate_limit(say: Say) -> Items:
    """`rate_limit_error` in the middle of a stream."""
    return [*say.half(), wire.error("rate_limit_error")]


@fault("F24-text-error", "take an error for one, whatever its form")
def text_error(say: Say) -> Items:
    """An `error` event whose data is no JSON, as some gateways write it."""
    return [*say.half(), wire.frame("error", b"upstream gone")]


@fault("F25-first", "see an error that comes before anything else")
def first(_say: Say) -> Items:
    """An error is the first event of the stream."""
    return [status(), wire.error("overloaded_error")]


@fault("F26-cut-and-again", "never mix the pieces of two attempts")
def cut_and_again(say: Say) -> Items:
    """The stream is cut after most of the document: whoever appends the next attempt has it twice."""
    return [*say.opened(), *say.pieces(GOOD)[:-1], omit_last_chunk()]


def _rate_limits() -> None:
    cases = {
        "one-second": ("1", "wait as long, if the policy says so and the deadline allows it"),
        "a-minute": ("61", "the same: a minute is no less an answer than a second"),
        "two-hours": ("7200", "give up at once where the wait does not fit, and say until when"),
        "garbage": ("soon", "do as if nothing had been said"),
        "negative": ("-5", "do as if nothing had been said"),
        "unsaid": (None, "wait as the policy says"),
    }
    for name, (said, must) in cases.items():
        title = "Status 429 without retry-after." if said is None else f"Status 429 with retry-after: {said}."
        limited = status(429, {} if said is None else {"retry-after": said}, _LIMIT)
        CHAPTER.add(f"F27-{name}", title, must, lambda _, limited=limited: [limited])  # type: ignore[misc]


_rate_limits()


@fault("F28-spend-limit", "ask never again: the limit stands until somebody raises it")
def spend_limit(_say: Say) -> Items:
    """Status 429, but the account's spend limit is reached."""
    return [error("rate_limit_error", status_code=429, code="enforced_spend_limit_reached")]


@fault("F28-usage-limits", "the same")
def usage_limits(_say: Say) -> Items:
    """Status 400, for the account has reached its usage limits."""
    body = wire.error_body("invalid_request_error", "You have reached your specified API usage limits.")
    return [status(400, None, body)]


@fault("F29-outage", "have one owner of retries: so many requests as the policy allows")
def outage(_say: Say) -> Items:
    """Status 529 at every attempt."""
    return [status(529)]


@fault("F29-broken", "the same, for a status without a body that means anything")
def broken(_say: Say) -> Items:
    """Status 502 from a gateway, as a web page."""
    return [status(502, {"content-type": "text/html"}, b"<h1>502 Bad Gateway</h1>")]


@fault("F29-refused", "not ask again what was refused for good")
def refused(_say: Say) -> Items:
    """Status 401."""
    return [status(401)]


@fault("F33-late-answer", "count a request that was sent as one that may be billed", slow=True)
def late_answer(say: Say) -> Items:
    """The request is read, and answered well after 90 s: most clients are gone by then."""
    return [pause(90), status(), *say.answer()]


@fault("F34-never-valid", "ask from scratch: requests must not grow with each attempt")
def never_valid(say: Say) -> Items:
    """The document is of the wrong form, at every attempt."""
    return say.answer('{"id": "seven", "kind": "invoice", "lines": []}')
