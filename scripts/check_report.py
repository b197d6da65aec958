#!/usr/bin/env python3
"""Opens receipts in headless Chromium and fails if anything is wrong with how they show.

    scripts/check_report.py REPORT.html... [--screenshots FOLDER]

Every report is opened in light and dark, on a desktop and on a phone. Wrong are: a message on the console, a violation
of the page's policy, a request for anything but the page, a page wider than the screen, texts of a plot that overlap
or leave their card, and a plot that says nothing to screen readers. Standard library only; `browser.py` says where
Chromium is taken from.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from browser import SCREENS, Browser  # noqa: E402

SCHEMES = ["light", "dark"]

# What a page finds wrong with itself.
INSPECTION = """(screen => {
    const wrong = [], root = document.scrollingElement;
    if (root.scrollWidth > screen) wrong.push(`the page is ${root.scrollWidth} wide on a screen of ${screen}`);
    for (const plot of document.querySelectorAll('svg.plot')) {
        const card = plot.closest('.card').getBoundingClientRect();
        if (!plot.getAttribute('aria-label')) wrong.push('a plot has no label');
        const texts = [...plot.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
        texts.forEach(([words, box], place) => {
            if (box.width === 0) wrong.push(`the text "${words}" has no size: are there fonts?`);
            if (box.left < card.left || box.right > card.right || box.top < card.top || box.bottom > card.bottom)
                wrong.push(`the text "${words}" leaves its card`);
            for (const [others, other] of texts.slice(place + 1)) {
                const wide = Math.min(box.right, other.right) - Math.max(box.left, other.left);
                const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
                if (wide > 0.5 && high > 2) wrong.push(`the texts "${words}" and "${others}" overlap`);
            }
        });
    }
    const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
    if (new Set(ids).size !== ids.length) wrong.push('an id is used twice');
    return wrong;
})"""


def complaint(event: dict, page: str) -> str | None:
    """What an event says is wrong, if anything."""
    method, parameters = event.get("method"), event.get("params", {})
    if method == "Log.entryAdded":
        return f"{parameters['entry']['level']}: {parameters['entry']['text']}"
    if method == "Runtime.consoleAPICalled":
        return f"console.{parameters['type']}"
    if method == "Runtime.exceptionThrown":
        return f"exception: {parameters['exceptionDetails']['text']}"
    if method == "Audits.issueAdded":
        return f"issue: {parameters['issue']['code']} {json.dumps(parameters['issue']['details'])}"
    if method == "Network.requestWillBeSent" and parameters["request"]["url"] != page:
        return f"request for {parameters['request']['url']}"
    return None


def check(browser: Browser, report: Path, scheme: str, screen: str, screenshots: Path | None) -> list[str]:
    """Opens one report on one screen and returns what is wrong."""
    width, height, mobile = SCREENS[screen]
    page = report.resolve().as_uri()
    browser.show(scheme, width, height, mobile)
    browser.open(page)
    wrong = browser.evaluate(f"{INSPECTION}({width})")
    wrong += filter(None, (complaint(event, page) for event in browser.events))
    if screenshots:
        browser.picture(screenshots / f"{report.stem}-{screen}-{scheme}.png")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT.html")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="keep a picture of every page here")
    arguments = parser.parse_args()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    failed = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            for report, screen, scheme in itertools.product(arguments.reports, SCREENS, SCHEMES):
                wrong = check(browser, report, scheme, screen, arguments.screenshots)
                failed |= bool(wrong)
                print(f"{report}, {screen}, {scheme}: {'; '.join(wrong) or 'ok'}")
        finally:
            browser.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
