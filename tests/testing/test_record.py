"""Records of requests."""

from __future__ import annotations

from streamguard.events import Usage
from streamguard.testing import Bill, Exchange, answer, total, truth
from streamguard.testing.play import facts
from streamguard.testing.steps import as_items


def exchange(items, **fields):
    """A record of a script, in some state."""
    return Exchange(number=1, opened_at=0.0, arrived_monotonic=0.0, facts=facts(as_items(items)), **fields)


def test_bills_grow():
    """While an attempt runs, its bill is of what was sent so far."""
    running = exchange(answer("x" * 16))
    bills = []
    for sent in range(5):
        running.deltas_sent = sent
        bills.append(running.bill.output_tokens)
    assert bills == [0, 1, 2, 3, 4]
    assert running.open


def test_nothing_is_billed_for_a_refusal():
    """An error response and a request that never arrived cost nothing, unless the truth is otherwise."""
    assert exchange([], status=529).bill == Bill()
    assert exchange([], refused=True).bill == Bill()
    assert exchange([truth(input=4)], status=500).bill == Bill(input_tokens=4)
    assert Exchange(number=0, opened_at=0.0, arrived_monotonic=0.0).bill == Bill()


def test_bills_add_up():
    """Bills are sums of tokens, field by field."""
    bill = Bill(input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4)
    assert total([bill, bill]) == Bill(input_tokens=2, output_tokens=4, cache_read_tokens=6, cache_write_tokens=8)
    assert total([]) == Bill()
    assert bill.usage == Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4)
