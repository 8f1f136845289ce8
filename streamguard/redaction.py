"""Foreign text for a person, without what looks like a key: bodies of errors, and what somebody else's code raised."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"""(?ix)
    \b sk- [\w-]{8,}                                     # keys of this and other providers
    | \b (?:bearer|basic) \s+ [\w.~+/=-]{8,}             # an authorization header, echoed
    | (?<=://) [^/\s:@]+ : [^/\s@]+ (?=@)                # user and password of a proxy
    | \b ey[\w-]{10,} \. [\w-]{10,} \. [\w-]*            # a JSON Web Token
    | (?:api[_-]?key|token|secret|password) ["']? \s* [=:] \s* ["']? [^\s"'&,}]{6,}
    """
)

EXCERPT_BYTES = 4096
"""The most of a foreign text that is kept in an error."""


def redacted(data: bytes | str, limit: int = EXCERPT_BYTES) -> str:
    """The beginning of a foreign text, for a person: at most `limit` bytes, without what looks like a key."""
    data = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    # Cut first: a long body need not be searched. The end is redacted again where the cut halved a key.
    text = data[:limit].decode("utf-8", "backslashreplace")
    return _SECRET.sub("[redacted]", text) + ("…" if len(data) > limit else "")
