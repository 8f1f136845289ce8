"""Words that readers with English as a second language stumble over, each with what to write instead.

`tests/test_prose.py` looks for them in README, `docs/`, docstrings of public names and the help of commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

INSTEAD = {
    r"for ever": "forever, without an end",
    r"(?:behind|off) our backs?": "in the background",
    r"by \w+'s leave": "with the permission of",
    r"somebody|someone": "name the person or the program",
    r"whoever": "a caller that, a person who",
    r"of one's own": "of your own",
    r"in vain": "without effect",
    r"goes? round in circles": "repeats itself",
    r"mends?|mended": "repair, correct",
    r"dear|dearer|dearest": "expensive",
    r"at the most(?! \w+ive)": "at most",
    r"to be had": "available",
    r"off the road": "name what is avoided",
    r"the best part of": "most of",
    r"hence|whence|thereby|thereof|herein|thus": "so",
    r"no word more": "nothing else",
    r"under the hood": "inside",
    r"on the fly": "while it runs",
    r"out of the box": "without configuration",
    r"rules? of thumb": "an estimate",
    r"at a glance": "quickly",
    r"boils? down to": "is",
    r"by and large|in a nutshell|hand in hand|keep an eye on|piece of cake|silver bullet": "plain words",
    r"leverage|utili[sz]e|seamless(?:ly)?|blazing(?:ly)?|robust|simply|obviously|of course": "leave it out",
}
"""A regular expression of whole words, in any case, and what to write."""

_FIND = re.compile("|".join(rf"(?P<w{at}>\b(?:{words})\b)" for at, words in enumerate(INSTEAD)), re.IGNORECASE)
_QUOTED = re.compile(r"```.*?```|<!--.*?-->|`[^`\n]*`", re.DOTALL)


def found(text: str) -> Iterator[tuple[int, str, str]]:
    """Each such word in a text outside of code: its line, the word, what to write instead."""
    prose = _QUOTED.sub(lambda part: re.sub(r"[^\n]", " ", part[0]), text)
    for match in _FIND.finditer(prose):
        instead = list(INSTEAD.values())[int(str(match.lastgroup)[1:])]
        yield prose.count("\n", 0, match.start()) + 1, match[0], instead
