"""What all rows of a job are asked, and how two such questions differ."""

from __future__ import annotations

import pytest

from streamguard.jobs.store.fingerprint import MOST_DIFFERENCES, differences, fingerprint
from streamguard.policy.file import loads_policy

POLICY = """
version: 1
timeouts: {total: 60}
json: {schema: {type: object, properties: {n: {type: integer}}}, trailing: reject}
content: [{reason: content.sorry, pattern: "^sorry"}]
"""


def question(policy: str = POLICY, template: str | None = "Hi {{ x }}\nBye", **overrides):
    return fingerprint(loads_policy(policy), template, overrides)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (question(), []),
        (question(template="Hi {{ y }}\nBye"), ['template: line 1 was "Hi {{ x }}", is "Hi {{ y }}"']),
        (question(template="Hi {{ x }}\nBye\nNow"), ['template: line 3 was not there, is "Now"']),
        (question(template="Hi {{ x }}\r\nBye"), ["template: its line ends changed"]),
        (question(template=None), ["template: there is none any more"]),
        (question(POLICY.replace("integer", "number")), ['schema: /properties/n/type: was "integer", is "number"']),
        (
            question(POLICY.replace("schema: {type: object, properties: {n: {type: integer}}}, ", "")),
            [
                'schema: /type: was "object", is not there',
                'schema: /properties/n/type: was "integer", is not there',
            ],
        ),
        (question(POLICY.replace("reject", "cut")), ['policy: /json/trailing: was "reject", is "cut"']),
        (question(POLICY.replace("^sorry", "^no")), ['policy: /content/0/pattern: was "^sorry", is "^no"']),
        (question(POLICY + "mode: observe"), ['policy: /mode: was "enforce", is "observe"']),
        (question(POLICY + "completion: {require_content: false}"), ["policy: /completion/require_content: was true, is false"]),
        (question(model="m"), ['model: /model: was not there, is "m"']),
        (question(max_tokens=5), ["model: /max_tokens: was not there, is 5"]),
        (question(POLICY.replace("total: 60", "total: 90")), []),
        (question(POLICY + "retry: {attempts: 5, rules: [{when: [json.*]}]}\ncaps: {characters: 9}\nbudgets: [{name: b, tokens: 9}]\nprices: {m: {input: '1', output: '2'}}"), []),
    ],
)  # fmt: skip
def test_what_changed(changed, said) -> None:
    """Each difference is a sentence with its place; clocks, caps, retries, prices and budgets are none."""
    assert [one.partition(" (null)")[0] for one in differences(question(), changed)] == said
    assert (changed.digest == question().digest) == (not said)


def test_many_differences_are_counted() -> None:
    """A schema that is another one altogether does not fill the screen."""
    other = ", ".join(f"p{number}: {{type: integer}}" for number in range(50))
    found = list(differences(question(), question(POLICY.replace("n: {type: integer}", other))))
    assert (len(found), found[-1]) == (MOST_DIFFERENCES + 1, "and 41 more like that")
