"""Foreign text for a person, without what looks like a key: bodies of errors, and what somebody else's code raised.

Every pattern here is linear: these texts are strangers'. A repetition is possessive, or bounded, and a match begins
only where a word does.
"""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"""(?ix)
    # Keys by their look: of this provider and others, AWS, Google, GitHub, GitLab, Slack; tokens; private keys
    (?<![\w-]) (?: sk- [\w-]{8,}+
        | (?:AKIA|ASIA|ABIA|ACCA) [A-Z0-9]{12,}+
        | AIza [\w-]{20,}+ | ya29\. [\w.-]{10,}+
        | gh[opsur]_ \w{16,}+ | github_pat_ \w{16,}+ | glpat- [\w-]{10,}+ | xox[abeoprs]- [\w-]{8,}+
        | ey[\w-]{10,}+ \. [\w-]{10,}+ (?: \. [\w-]*+ )? )
    | -----BEGIN [A-Z ]{0,40} PRIVATE[ ]KEY----- [\w\s+/=\\]*+ (?: -----END [A-Z ]{0,60}----- )?
    # Whoever stands before the host of an address; a password may have slashes that nobody escaped
    | (?<=://) (?: [^\s/@"'<>]++ | [^\s@"'<>/]{0,64} : [^\s@"'<>]{1,160} ) (?=@)
    # Headers whose value is a secret, to the end of the line or of the quotes
    | (?<![\w-]) (?:proxy-)?authorization \\{0,3} ["']? \s{0,8}+ [:=] \s{0,8}+ \\{0,3} ["']? [^\r\n"'\\]{1,4096}+
    | (?<![\w-]) (?:set-)?cookie2? \\{0,3} ["']? \s{0,8}+ [:=] \s{0,8}+ \\{0,3} ["']? [^\r\n"'\\]{1,8192}+
    | (?<!\w) (?:bearer|basic) \s{1,8}+ [\w.~+/=-]{8,}+
    # Names that say so, in JSON (escaped too), YAML, queries, environments and headers
    | (?: (?:api|access|secret|private|auth|account|client|subscription|shared|signing|session|master) [_-]?key
          (?:[_-]?id)?
        | token | secret | passwo?r?d | passphrase | pwd | credentials?
        | (?<=[?&;]) (?:key|sig|signature|code|auth|sas|se)(?==) )
      \\{0,3} ["']? \s{0,8}+
      (?: = \s{0,8}+ \\{0,3} ["']? [^\s"'&,;}\\]++ | (?: : | %3[ad] ) \s{0,8}+ \\{0,3} ["']? [^\s"'&,;}\\]{6,}+ )
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


def bare_address(url: str) -> str:
    """An address for a person: scheme, host, port and the number of a database; without user, password and options.

    From where it is no such address on, nothing is shown: anything may be a password that nobody escaped.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    before, _, options = rest.partition("?")
    # Behind a question mark an `@` may be a password's as well as an option's.
    place = "?" if "@" in options else before.rpartition("@")[2]
    found = re.match(
        r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})?(?![^:/])(?::\d{1,5}(?![^/]))?(?:/\d{0,5}$)?", place
    )
    shown = found[0] if found is not None else ""
    return f"{scheme}://{shown}" + ("" if shown == place else "…")
