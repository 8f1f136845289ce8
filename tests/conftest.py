"""The kit's own fixtures, for tests from a tree that is not installed too."""

from __future__ import annotations

import pytest

from streamguard.testing import pytest_plugin


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin unless its entry point did."""
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin, "streamguard")
