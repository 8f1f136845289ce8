"""A check's expression as a tree: a small, closed part of Python's expressions, with Python's own precedence.

In charge of grammar. It is a parser of its own because the mistakes of a policy are read by people: Python's messages
differ from version to version, and its parser can be brought to its own limits. It never calls Python's.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from streamguard.guards.checks import nodes
from streamguard.guards.checks.tokens import Mistake, Token, Wrong, reserved, tokens

MAX_DEPTH: Final = 40
"""Most brackets and signs inside one another."""

MAX_LISTED: Final = 100
"""Most items of a list."""

_COMPARISONS: Final = frozenset(("<", "<=", ">", ">=", "==", "!=", "in", "not"))


def parse(text: str) -> nodes.Node | Mistake:
    """Read an expression.

    :returns: its tree, or what is wrong with it.
    """
    try:
        return _Parser(text).whole()
    except Wrong as wrong:
        return wrong.mistake


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> nodes.Node:
        if len(self._tokens) == 1:
            raise Wrong(0, "the expression is empty")
        found = self._expression()
        if self._next < len(self._tokens) - 1:
            raise self._unexpected("the end")
        return found

    # -- words ---------------------------------------------------------------------------------------------------------

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _is(self, text: str) -> bool:
        token = self._token
        return token.text == text and token.kind in ("sign", "word")

    def _take(self) -> Token:
        token = self._token
        self._next += 1
        return token

    def _expect(self, text: str) -> Token:
        if not self._is(text):
            raise self._unexpected(text)
        return self._take()

    def _unexpected(self, wanted: str) -> Wrong:
        token = self._token
        if token.kind == "end":
            return Wrong(token.at, f"the expression ends where {wanted} is expected")
        if (said := reserved(token)) is not None:
            return Wrong(token.at, said)
        shown = f'"{token.text[:40]}"' if token.kind == "text" else token.text[:40]
        return Wrong(token.at, f"{shown} where {wanted} is expected")

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Wrong(at, f"more than {MAX_DEPTH} brackets and signs inside one another")

    # -- grammar, loosest first ----------------------------------------------------------------------------------------

    def _expression(self) -> nodes.Node:
        self._deeper(self._token.at)
        yes = self._any_of()
        if self._is("if"):
            self._take()
            condition = self._any_of()
            self._expect("else")
            no = self._expression()
            yes = nodes.Choice(yes.at, no.end, condition, yes, no)
        self._depth -= 1
        return yes

    def _any_of(self) -> nodes.Node:
        parts = [self._all_of()]
        while self._is("or"):
            self._take()
            parts.append(self._all_of())
        return parts[0] if len(parts) == 1 else nodes.Logic(parts[0].at, parts[-1].end, "or", tuple(parts))

    def _all_of(self) -> nodes.Node:
        parts = [self._negation()]
        while self._is("and"):
            self._take()
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else nodes.Logic(parts[0].at, parts[-1].end, "and", tuple(parts))

    def _negation(self) -> nodes.Node:
        if not self._is("not"):
            return self._comparison()
        token = self._take()
        self._deeper(token.at)
        of = self._negation()
        self._depth -= 1
        return nodes.Unary(token.at, of.end, "not", of)

    def _comparison(self) -> nodes.Node:
        first = self._sum()
        rest: list[tuple[str, int, nodes.Node]] = []
        while self._token.text in _COMPARISONS and self._token.kind in ("sign", "word"):
            sign = self._take()
            text = sign.text
            if text == "not":
                self._expect("in")
                text = "not in"
            rest.append((text, sign.at, self._sum()))
        return nodes.Comparison(first.at, rest[-1][2].end, first, tuple(rest)) if rest else first

    def _sum(self) -> nodes.Node:
        left = self._product()
        while self._is("+") or self._is("-"):
            sign = self._take()
            right = self._product()
            left = nodes.Binary(left.at, right.end, sign.text, left, right)
        return left

    def _product(self) -> nodes.Node:
        left = self._signed()
        while any(self._is(sign) for sign in ("*", "/", "//", "%")):
            sign = self._take()
            right = self._signed()
            left = nodes.Binary(left.at, right.end, sign.text, left, right)
        return left

    def _signed(self) -> nodes.Node:
        if not (self._is("-") or self._is("+")):
            return self._reached()
        token = self._take()
        self._deeper(token.at)
        of = self._signed()
        self._depth -= 1
        return nodes.Unary(token.at, of.end, token.text, of)

    def _reached(self) -> nodes.Node:
        """A value, and what is reached from it by `.name` and `[index]`."""
        found = self._atom()
        steps = 0
        while self._is(".") or self._is("[") or self._is("("):
            sign = self._take()
            steps += 1
            if steps > MAX_DEPTH:
                raise Wrong(sign.at, f"more than {MAX_DEPTH} members deep")
            if sign.text == "(":
                raise Wrong(sign.at, "only functions can be called, by their name")
            if sign.text == ".":
                found = self._member(found)
                continue
            index = self._expression()
            found = nodes.Item(found.at, self._expect("]").end, found, index)
        return found

    def _member(self, of: nodes.Node) -> nodes.Node:
        token = self._token
        if token.kind == "word":
            raise Wrong(token.at, f'{token.text} is a word of the language: write ["{token.text}"]')
        if token.kind != "name":
            raise self._unexpected("a member's name")
        self._take()
        return nodes.Member(of.at, token.end, of, token.text, token.at)

    def _atom(self) -> nodes.Node:
        token = self._token
        if token.kind == "number":
            self._take()
            return nodes.Number(token.at, token.end, Decimal(token.text))
        if token.kind == "text":
            self._take()
            return nodes.Text(token.at, token.end, token.text)
        if self._is("True") or self._is("False"):
            self._take()
            return nodes.Boolean(token.at, token.end, token.text == "True")
        if self._is("(") or self._is("["):
            return self._bracket()
        if token.kind != "name" or reserved(token) is not None:
            raise self._unexpected("a value")
        self._take()
        if self._is("("):
            return self._call(token)
        return nodes.Name(token.at, token.end, token.text)

    def _bracket(self) -> nodes.Node:
        opening = self._take()
        closing = ")" if opening.text == "(" else "]"
        if self._is(closing):
            raise Wrong(opening.at, "an empty list")
        items = [self._expression()]
        if self._is("for"):
            raise Wrong(self._token.at, "for … in … stands inside a function's brackets alone, such as sum(… for …)")
        listed = opening.text == "["
        while self._is(","):
            self._take()
            listed = True
            if self._is(closing):
                break
            items.append(self._expression())
            if len(items) > MAX_LISTED:
                raise Wrong(items[-1].at, f"a list of more than {MAX_LISTED} items")
        end = self._expect(closing).end
        if listed:
            return nodes.Listed(opening.at, end, tuple(items))
        return items[0]

    def _call(self, function: Token) -> nodes.Node:
        self._take()
        arguments: list[nodes.Node] = []
        while not self._is(")"):
            argument = self._expression()
            if self._is("for"):
                if arguments:
                    raise Wrong(self._token.at, "for … in … has to be all there is inside the brackets")
                argument = self._each(argument)
                if not self._is(")"):
                    raise self._unexpected(")")
            arguments.append(argument)
            if len(arguments) > MAX_LISTED:
                raise Wrong(argument.at, f"more than {MAX_LISTED} arguments")
            if not self._is(","):
                break
            self._take()
        end = self._expect(")").end
        return nodes.Call(function.at, end, function.text, tuple(arguments))

    def _each(self, element: nodes.Node) -> nodes.Node:
        self._take()
        name = self._token
        if name.kind != "name" or reserved(name) is not None:
            raise self._unexpected("a name")
        self._take()
        self._expect("in")
        source = self._any_of()
        conditions = []
        while self._is("if"):
            self._take()
            conditions.append(self._any_of())
        if self._is("for"):
            raise Wrong(self._token.at, "one for in each function: put the second one inside a function of its own")
        end = conditions[-1].end if conditions else source.end
        return nodes.Each(element.at, end, element, name.text, name.at, source, tuple(conditions))
