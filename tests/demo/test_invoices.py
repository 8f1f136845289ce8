"""Invoices are read back from prompts as they were made."""

from __future__ import annotations

import pytest

from streamguard.demo.documents import documents, prompt
from streamguard.demo.invoices import found


@pytest.mark.parametrize("document", documents(60, 3), ids=lambda document: document.id)
def test_what_was_written_is_found(document) -> None:
    """Bare, behind an instruction, and behind the demo's own examples."""
    assert found(document.text) == document.record
    assert found(f"Extract the invoice as JSON.\n\n{document.text}\n") == document.record
    assert found(prompt(document)) == document.record


@pytest.mark.parametrize(
    "text", ["", "hello", "Invoice AB-12345, 01.02.2026, for office\n", "x\nInvoice AB-12345, 01.02.2026, for office\n"]
)
def test_nothing_is_found(text: str) -> None:
    """A text without a whole invoice gives nothing."""
    assert found(text) is None
