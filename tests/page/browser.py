"""Headless Chromium for the tests of the report page: found on this machine, driven by Playwright, watched for trouble."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")

# Without a sandbox, which needs privileges that containers lack; without a GPU; and with nothing that asks the network
# for updates, so that a request seen is one that the page made.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def executable():
    """The path of Chromium: the environment's CHROMIUM, else what the machine has; None if there is none."""
    given = os.environ.get("CHROMIUM")
    return given or next((path for path in map(shutil.which, NAMES) if path), None)


def missing(why):
    """Skip, or fail where the environment says that a browser has to be there."""
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"{why}, and REQUIRE_BROWSER=1 asks for it", pytrace=False)
    pytest.skip(why)


@contextlib.contextmanager
def launched():
    """A headless Chromium; skips the test, or fails it under REQUIRE_BROWSER=1, where it or Playwright is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed: pip install '.[browser]'")
        raise
    path = executable()
    if path is None:
        missing("no Chromium on this machine: apt install chromium, or set CHROMIUM to its path")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS), headless=True)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visit(browser, path, width=1280, height=900, scheme="light", **options):
    """The page at a path on disk, in a window of its own: a Playwright `Page`.

    Whatever the page writes to the console as an error or a warning, throws, or asks of the network is a failed test once
    the block is left.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    page = context.new_page()
    address, trouble = Path(path).resolve().as_uri(), []

    def heard(message):
        if message.type in ("error", "warning"):
            trouble.append(f"console: {message.text}")

    def asked(request):
        if request.url.split("#")[0] != address and not request.url.startswith(("data:", "blob:")):
            trouble.append(f"request: {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: trouble.append(f"thrown: {error}"))
    page.on("request", asked)
    try:
        page.goto(address)
        yield page
    finally:
        context.close()
    assert not trouble, trouble


def until(page, condition, seconds=5):
    """Wait until the expression `condition` is true. Playwright's own waiting is forbidden by the page's content policy."""
    for _ in range(int(seconds * 50)):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"after {seconds} s it is still not so: {condition}")
