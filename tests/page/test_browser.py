"""The watch that the browser keeps on a page would notice what it is there for."""

import pytest
from browser import visit


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        ("<script>console.error('it broke')</script>", "it broke"),
        ("<script>throw new Error('thrown away')</script>", "thrown away"),
        ("<img src='https://example.org/a.png'>", "example.org"),
    ],
)
def test_trouble_is_noticed(chromium, tmp_path, body, trouble):
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><title>t</title><link rel='icon' href='data:,'>{body}")
    with pytest.raises(AssertionError, match=trouble), visit(chromium, path) as page:
        page.wait_for_timeout(50)


def test_a_quiet_page_is_quiet(chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>t</title><p>nothing</p>")
    with visit(chromium, path, width=390) as page:
        assert page.evaluate("innerWidth") == 390
