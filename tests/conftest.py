"""The kit's own fixtures, for tests from a tree that is not installed too."""

from __future__ import annotations

import os

import pytest

from streamguard.testing import pytest_plugin

# Processes that run tests side by side are given a width of 80 columns; a result must not depend on how many there are.
os.environ.pop("COLUMNS", None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin unless its entry point did."""
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin, "streamguard")
