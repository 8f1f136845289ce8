"""Templates: rows of data to requests, and mistakes of the template with their lines."""

from __future__ import annotations

import tracemalloc

import pytest

from streamguard.errors import JobError
from streamguard.jobs.input.rows import Row
from streamguard.jobs.input.template import RenderError, Template, read_template


def row(**data) -> Row:
    return Row(custom_id="1", line=1, data=data)


def user(text: str) -> dict:
    return {"messages": [{"role": "user", "content": text}]}


def test_a_text_renders_the_users_message() -> None:
    """Fields by name, `row` for the whole object, and nothing escaped."""
    template = Template("{{ title }} <{{ row['the body'] }}>\n", "t.j2")
    assert template.params(row(**{"title": "a & b", "the body": "<x>"})) == user("a & b <<x>>")


def test_names_that_python_or_jinja_use_are_just_fields() -> None:
    """A row may call its fields self, items, row or anything else."""
    template = Template("{{ items[0] }} {{ range }} {{ row.row }} {{ row.self }}", "t.j2")
    assert template.params(row(items=[1], range="r", row="inner", self="s")) == user("1 r inner s")


def test_front_matter_makes_the_rest_of_the_request() -> None:
    """Model, limits, a rendered system prompt and prefill, and whatever else a request can have."""
    template = Template(
        "---\nmodel: m\nmax_tokens: 9\ntemperature: 0\nsystem: |\n  For {{ who }}.\nprefill: '{'\n"
        "thinking: {type: disabled}\nextra: {brand_new: [1]}\n---\n\nHi {{ who }}",
        "t.j2",
    )
    assert template.params(row(who="x")) == {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0,
        "thinking": {"type": "disabled"},
        "brand_new": [1],
        "system": "For x.",
        "messages": [{"role": "user", "content": "\nHi x"}, {"role": "assistant", "content": "{"}],
    }


def test_cache_marks_the_end_of_the_system_text() -> None:
    """`cache: true` makes a block of it, with the mark that the provider caches by."""
    template = Template("---\nsystem: For {{ who }}.\ncache: true\n---\nHi", "t.j2")
    mark = {"cache_control": {"type": "ephemeral"}}
    assert template.params(row(who="x")) == {"system": [{"type": "text", "text": "For x.", **mark}], **user("Hi")}
    plain = Template("---\nsystem: Same.\ncache: false\n---\nHi", "t.j2")
    assert plain.params(row()) == {"system": "Same.", **user("Hi")}


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("cache: true", "needs a system text"),
        ("cache: true\nsystem: [{type: text, text: a}]", "needs a system text"),
        ("cache: yes please\nsystem: a", "must be true or false, got 'yes please'"),
    ],
)
def test_cache_needs_something_to_mark(front: str, said: str) -> None:
    """A mark without a shared part is a mistake, with its line."""
    with pytest.raises(JobError, match=said):
        Template(f"---\n{front}\n---\nHi", "t.j2")


def test_system_may_be_blocks() -> None:
    """Blocks, such as cached ones, go through as they are."""
    blocks = [{"type": "text", "text": "{{ not rendered }}", "cache_control": {"type": "ephemeral"}}]
    template = Template(
        "---\nsystem:\n- {type: text, text: '{{ not rendered }}', cache_control: {type: ephemeral}}\n---\nHi", "t.j2"
    )
    assert template.params(row()) == {"system": blocks, **user("Hi")}


def test_empty_front_matter_lets_a_text_begin_with_dashes() -> None:
    """Two fences with nothing between them say that there is none."""
    assert Template("---\n# nothing\n---\n---\nHi", "t.j2").params(row()) == user("---\nHi")


UNUSABLE = [
    ("", ["t.j2:1: the template is empty: its text is the user's message"]),
    ("a\n{% if %}", ["t.j2:2: not a template: Expected an expression, got 'end of statement block'"]),
    ("---\nmodel: m\nHi", ["t.j2:1: the front matter has no end: a second line of three dashes"]),
    ("---\nmodel: m\n---\nHi\n\n{{", ["t.j2:6: not a template: unexpected 'end of template'"]),
    (
        "---\nmax_token: 3\nmodel: 7\nmax_tokens: no\nstream: true\nsystem: 3\nprefill: [x]\nextra: {beta: 3}\n---\nx",
        [
            't.j2:2:1: /max_token: unknown; did you mean "max_tokens"?',
            "t.j2:3:8: /model: must be a model's name, got 7",
            "t.j2:4:13: /max_tokens: must be a whole number of tokens from 1, got 'no'",
            "t.j2:5:1: /stream: must be left out: every request is sent as a stream",
            "t.j2:6:9: /system: must be a text or a list of blocks",
            "t.j2:7:10: /prefill: must be a text",
            "t.j2:8:8: /extra: beta is no field that a request can have here",
        ],
    ),
    (
        "---\nmessages: []\nsystem: |\n  a\n  {{\n---\nHi",
        [
            "t.j2:2:1: /messages: is what the template itself renders; for other messages send batch lines",
            "t.j2:5: /system: not a template: unexpected 'end of template'",
        ],
    ),
]


@pytest.mark.parametrize(("text", "said"), UNUSABLE)
def test_every_mistake_of_a_template_at_once(text: str, said: list[str]) -> None:
    """All of them, in order, with the line of the file, behind front matter too."""
    with pytest.raises(JobError) as caught:
        Template(text, "t.j2")
    assert list(map(str, caught.value.problems)) == said


UNRENDERABLE = [
    ("{{ txet }}", 't.j2:1: txet is undefined: the row has no such field; did you mean "text"?'),
    ("\n\n{{ nope }}", "t.j2:3: nope is undefined: the row has no such field"),
    ("{% if nope %}x{% endif %}", "t.j2:1: nope is undefined: the row has no such field"),
    ("{% for x in nope %}x{% endfor %}", "t.j2:1: nope is undefined: the row has no such field"),
    ("{{ nope | length }}", "t.j2:1: nope is undefined: the row has no such field"),
    ("{{ row.txet }}", 't.j2:1: txet is undefined: the row has no such field; did you mean "text"?'),
    ("{{ deep.insid }}", "t.j2:1: undefined: 'dict object' has no attribute 'insid'; did you mean \"inside\"?"),
    ("---\nmodel: m\n---\n\n{{ nope }}", "t.j2:5: nope is undefined: the row has no such field"),
    ("---\nmodel: m\nsystem: |\n  a\n  {{ nope }}\n---\nHi", "t.j2:5: nope is undefined: the row has no such field"),
    ("{{ 1 / 0 }}", "t.j2:1: ZeroDivisionError: division by zero"),
    ("{% include 'other' %}", "t.j2:1: TypeError: no loader for this environment specified"),
    ("{{ ''.__class__ }}", "t.j2:1: SecurityError: access to attribute '__class__' of 'str' object is unsafe."),
    ("{{ items.append(1) }}", "t.j2:1: SecurityError: "),
    ("{{ empty }}", "t.j2: renders an empty message for this row"),
    ("---\nprefill: '{ '\n---\nHi", "t.j2: prefill must not end with whitespace: the API refuses that"),
]


@pytest.mark.parametrize(("text", "said"), UNRENDERABLE)
def test_what_a_row_lacks_is_named(text: str, said: str) -> None:
    """The variable, the template's line, and what was probably meant; the sandbox holds."""
    template = Template(text, "t.j2")
    with pytest.raises(RenderError) as caught:
        template.params(row(text="x", deep={"inside": 1}, items=[], empty=" \n"))
    assert str(caught.value).startswith(said)


def test_what_is_undefined_can_be_asked_for() -> None:
    """`default` and `is defined` are how a template says that a field is optional."""
    assert Template("{{ a | default('-') }}{% if b is defined %}!{% endif %}", "t.j2").params(row()) == user("-")


def test_templates_are_read_from_files(tmp_path) -> None:
    """A BOM is no part of the text; what cannot be read is a mistake with the file's name."""
    (tmp_path / "t.j2").write_bytes(b"\xef\xbb\xbfHi {{ a }}")
    assert read_template(tmp_path / "t.j2").params(row(a=1)) == user("Hi 1")
    (tmp_path / "latin.j2").write_bytes(b"a\nb\xe4")
    for name, said in (("latin.j2", ":2: not UTF-8"), ("none.j2", ": no such file"), (".", ": not a file")):
        with pytest.raises(JobError) as caught:
            read_template(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}{said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ 'a' * n }}", "too much"),
        ("{{ [1] * n }}", "too much"),
        ("{{ n * 'abc' }}", "too much"),
        ("{{ n ** n }}", "too large"),
        ("{{ '%10000000000d' % 1 }}", "width"),
        ("{{ '%*d' % (n, 1) }}", "width"),
        ("{{ '{:>10000000000}'.format(1) }}", "width"),
        ("{{ '%10000000000d'|format(1) }}", "width"),
        ("{{ 'a'.center(n) }}", "more than"),
        ("{{ 'a'.ljust(n) }}", "more than"),
        ("{{ 'a'.zfill(n) }}", "more than"),
        ("{{ 'a\tb'.expandtabs(n) }}", "more than"),
        ("{{ 'a'|center(n) }}", "more than"),
        ("{{ 'a'|indent(n) }}", "more than"),
        ("{{ [1]|slice(n)|list }}", "more than"),
        ("{{ [1]|batch(n, 0)|list }}", "more than"),
        ("{{ ('a' * 100000).replace('', 'a' * 1000)|length }}", "too long"),
        ("{% for i in range(n) %}a{% endfor %}", "steps|takes longer"),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps|takes longer"),
        ("{% for i in range(1000) %}{{ 'a' * 100000 }}{% endfor %}", "longer than"),
        ("{{ lipsum(n=100000) }}", "lipsum"),
        # What puts out nothing
        (
            "{% for a in big %}{% for b in big %}{% for c in big %}{% endfor %}{% endfor %}{% endfor %}",
            "steps|takes longer",
        ),
        (
            "{% for a in text %}{% for b in text %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}",
            "steps|takes longer",
        ),
        (
            "{% for a in big %}{% for b in big %}{% if a in big %}{% endif %}{% endfor %}{% endfor %}",
            "steps|takes longer",
        ),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
            "steps|takes longer",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% for a in [big] recursive %}{{ loop([big, big]) }}{% endfor %}", "recursion|steps"),
        (
            "{% set ns = namespace(x=0) %}{% for a in big %}{% for b in big %}{% set ns.x = ns.x + 1 %}{% endfor %}{% endfor %}",
            "steps|takes longer",
        ),
        # What is made and kept
        (
            "{% set ns = namespace(t='ab') %}{% for a in range(64) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
            "too long",
        ),
        (
            "{% set ns = namespace(t='ab') %}{% for a in range(64) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
            "too long|longer",
        ),
        ("{% set x %}{% for a in big %}{{ 'a' * 1000000 }}{% endfor %}{% endset %}", "longer than"),
        ("{% set b = 'a' * 9000000 %}{% set x %}{% for a in big %}{{ b }}{% endfor %}{% endset %}", "longer than"),
        ("{% set x %}{% for a in range(90000) %}" + "x" * 10000 + "{% endfor %}{% endset %}", "longer than"),
        (
            "{% set ns = namespace(l=[]) %}{% for a in big %}{% set ns.l = ns.l + ['a' * 9000000] %}{% endfor %}",
            "longer than",
        ),
        (
            "{% set ns = namespace(l=[]) %}{% set b = 'a' * 9000000 %}{% for a in big %}{% set ns.l = ns.l + [b|upper] %}{% endfor %}",
            "longer",
        ),
        # What becomes long only as a text
        (
            "{% set ns = namespace(l=['a' * 1000]) %}{% for a in range(64) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
            "too long",
        ),
        (
            "{% set ns = namespace(l=['a' * 1000]) %}{% for a in range(64) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l|tojson }}",
            "too long",
        ),
        (
            "{% set ns = namespace(l=['a' * 1000]) %}{% for a in range(64) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ '%s' % ns.l }}",
            "too long",
        ),
        ("{% set l = ['a' * 100000] * 100000 %}{{ l|string|length }}", "too long"),
        ("{{ ('a' * 9000000)|replace('a', 'b' * 9000000) }}", "too long"),
        ("{{ ('a' * 9000000).replace('a', 'b' * 9000000) }}", "too long"),
        ("{{ range(9000)|join('a' * 100000) }}", "too long"),
        ("{{ big|join(d='a' * 9000000) }}", "too long"),
        ("{{ ('a' * 9000000).join(big) }}", "too long"),
        ("{{ ('a' * 900000).translate({97: 'b' * 900000}) }}", "not translated"),
        ("{{ ('{0}' * 100000).format('a' * 9000000) }}", "too long"),
        ("{{ ('%s' * 10000) % (('a' * 9000000,) * 10000) }}", "too long"),
        ("{{ '{:{}}'.format(1, 999999) }}", "width of an argument"),
        ("{{ '{:>9999}'.format(1) * 1000000 }}", "too much"),
    ],
)
def test_a_row_cannot_make_a_template_take_everything(text: str, said: str) -> None:
    """Numbers of a row in widths, counts and ranges: a mistake of the row, at once and in little memory."""
    tracemalloc.start()
    with pytest.raises(RenderError, match=f"(?i){said}"):
        Template(text, "t.j2").params(
            row(n=10_000_000_000, big=[str(number) for number in range(3000)], text="ab" * 3000)
        )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000_000


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ '-' * n }}", "-" * 40),
        ("{{ '%5.2f' % 3.14159 }} {{ '{:>6}'.format('a') }} {{ '%s-%s'|format(1, 2) }}", " 3.14      a 1-2"),
        ("{{ 'a'.center(5) }}|{{ 'a'|center(5) }}|{{ 'a\nb'|indent(2) }}", "  a  |  a  |a\n  b"),
        (
            "{% for i in range(3) %}{{ i }}{% endfor %}{{ n + 2 }} {{ 3 * n }} {{ 2 ** 10 }} {{ 'a' + 'b' }}",
            "01242 120 1024 ab",
        ),
        ("{{ 'banana'.replace('a', 'oo') }} {{ 10000000|round }} {{ '100%' }}", "boonoonoo 10000000 100%"),
        (
            "{% for k, v in {'a': [1, 2]}.items() %}{{ loop.index }}/{{ loop.length }}:{{ k ~ v ~ 3 }}{% endfor %}",
            "1/1:a[1, 2]3",
        ),
        ("{% for a in [] %}{% else %}none{% endfor %}{{ ['a', 'b']|join(', ') }} {{ [1, 2]|join }}", "nonea, b 12"),
        (
            "{{ ['b', 'a']|sort|join('-') }} {{ [{'a': 1}, {'a': 2}]|sum(attribute='a') }} {{ ', '.join(['x']) }}",
            "a-b 3 x",
        ),
        ("{% for x in [1, 2] recursive %}{{ x }}{{ loop([3]) if x == 1 }}{% endfor %} {{ [1]|tojson }}", "132 [1]"),
        (
            "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(3, b=4) }} {{ [{'a': 1}]|map(attribute='a')|list }}",
            "1234 [1]",
        ),
    ],
)
def test_what_templates_do_is_done(text: str, rendered: str) -> None:
    """Rules, columns, loops and sums of a usual size."""
    assert Template(text, "t.j2").params(row(n=40)) == user(rendered)
