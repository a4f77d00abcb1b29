"""The picture of `gradstarve report` in the README: its top and a theorem in the light, its explorer on a phone in the dark.

    gradstarve report --quick
    python notebooks/figures/report.py gradstarve-out/report.html

Writes report.png. Needs Playwright (extra `browser`) and Chromium.
"""

import base64
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "page"))

from browser import launched, visit

WIDE, PHONE, HEIGHTS, GAP = 1170, 390, (690, 700), 28
THEOREM = "starving-pair"


def pictures(browser, path):
    """Three screenshots as PNG: the top of the page, a theorem opened, and the explorer on a phone."""
    with visit(browser, path, width=WIDE, height=HEIGHTS[0]) as page:
        yield page.screenshot()
    with visit(browser, path, width=WIDE, height=HEIGHTS[1]) as page:
        page.evaluate(f"location.hash = '#{THEOREM}'")
        page.wait_for_timeout(300)
        yield page.screenshot()
    with visit(browser, path, width=PHONE, height=sum(HEIGHTS) + GAP, scheme="dark") as page:
        page.evaluate("location.hash = '#explorer'")
        page.wait_for_timeout(300)
        yield page.screenshot()


def main(path):
    with launched() as browser:
        images = ["data:image/png;base64," + base64.b64encode(image).decode() for image in pictures(browser, path)]
        first, second, third = (f'<img src="{image}">' for image in images)
        page = browser.new_page(viewport={"width": WIDE + PHONE + 3 * GAP, "height": sum(HEIGHTS) + 3 * GAP})
        style = f"body {{ display: flex; gap: {GAP}px; margin: 0; padding: {GAP}px; background: #e4e7eb }}"
        style += f"div {{ display: grid; gap: {GAP}px }}"
        style += "img { display: block; border-radius: 6px; box-shadow: 0 2px 10px #0004 }"
        page.set_content(f"<!doctype html><style>{style}</style><body><div>{first}{second}</div>{third}")
        page.screenshot(path=HERE / "report.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the page, as in: python notebooks/figures/report.py gradstarve-out/report.html")
    main(sys.argv[1])
