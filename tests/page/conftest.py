"""The browser that the tests of the page share, one for each file of tests."""

import browser
import pytest


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium. Not for longer than a module: while it runs, its thread has an event loop of its own."""
    with browser.launched() as found:
        yield found
