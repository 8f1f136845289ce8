"""The tree of a check's expression, as its parser builds it and its compiler reads it. Plain data."""

from __future__ import annotations

from decimal import Decimal

import msgspec


class Node(msgspec.Struct, frozen=True):
    """A part of an expression."""

    at: int
    """The character it begins at, from 0."""
    end: int
    """The character behind it."""


class Number(Node, frozen=True):
    value: Decimal


class Text(Node, frozen=True):
    value: str


class Boolean(Node, frozen=True):
    value: bool


class Name(Node, frozen=True):
    name: str


class Member(Node, frozen=True):
    """`of.name`, which is the same as `of["name"]`."""

    of: Node
    name: str
    name_at: int


class Item(Node, frozen=True):
    """`of[index]`."""

    of: Node
    index: Node


class Unary(Node, frozen=True):
    """`-x`, `+x` or `not x`."""

    sign: str
    of: Node


class Binary(Node, frozen=True):
    """Arithmetic."""

    sign: str
    left: Node
    right: Node


class Comparison(Node, frozen=True):
    """`a < b <= c`: each pair in turn."""

    first: Node
    rest: tuple[tuple[str, int, Node], ...]
    """The sign, where it stands, and the value behind it."""


class Logic(Node, frozen=True):
    """`a and b and c`, or with `or`."""

    word: str
    parts: tuple[Node, ...]


class Choice(Node, frozen=True):
    """`yes if condition else no`."""

    condition: Node
    yes: Node
    no: Node


class Listed(Node, frozen=True):
    """`[a, b]` or `(a, b)`."""

    items: tuple[Node, ...]


class Each(Node, frozen=True):
    """`element for name in source if condition`: all there is inside a call's brackets."""

    element: Node
    name: str
    name_at: int
    source: Node
    conditions: tuple[Node, ...]


class Call(Node, frozen=True):
    """`function(arguments)`."""

    function: str
    arguments: tuple[Node, ...]
