"""Every page, as a reader sees it: light and dark, on a phone, a tablet and a desk."""

from collections import Counter

import pytest
from browsing import (
    SCHEMES,
    WIDTHS,
    check_axe,
    check_looks,
    checks,
    entries,
    reader,
    settle,
    told,
)

pytestmark = pytest.mark.browser
# Pages that differ in what a keyboard meets on them, and widths at which it meets it.
KEYBOARD = [
    ("index", 1440),
    ("discriminative/logistic_regression", 390),
    ("discriminative/logistic_regression", 1440),
    ("generative/index", 820),
    ("choosing/claims", 390),
    ("notebooks/both_families", 1440),
    ("contributing", 1440),
]
PAGES = pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.key)


def test_nav_names_every_page_of_the_site(built_site):
    built = {p.relative_to(built_site).as_posix() for p in built_site.rglob("*.html")}
    assert {entry.address for entry in entries()} == built - {"404.html"}


@PAGES
def test_page_is_in_order(entry, browser, site_address, record_property):
    """No noise, no strange host, no overflow, no shift, no violation, everything legible."""
    problems, found = {}, Counter()
    for scheme in SCHEMES:
        with reader(browser, site_address, scheme=scheme) as (page, log):
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(site_address + entry.address)
                settle(page)
                lines = check_looks(page)
                if width == min(WIDTHS):
                    # Text enlarged four times in a window of 1280 pixels (WCAG 1.4.10).
                    page.set_viewport_size({"width": 320, "height": 900})
                    lines += checks(page).evaluate("c => c.overflow()")
                    page.set_viewport_size({"width": width, "height": 900})
                violations, rules = check_axe(page)
                found += rules
                problems[f"{scheme} {width}"] = log.take() + lines + violations
    record_property("axe", f"{entry.key}|{len(problems)}|{found.total()}")
    told(entry.source, problems)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "state"), [(390, "drawer"), (390, "search"), (1440, "search")])
def test_opened_parts_are_in_order(width, state, scheme, browser, site_address):
    """The drawer of small windows, and the search dialog with results."""
    with reader(browser, site_address, scheme=scheme, width=width) as (page, log):
        page.goto(site_address + "generative/index.html")
        if state == "drawer":
            page.locator("label[for=__drawer].md-header__button").click()
            page.wait_for_function("document.querySelector('#__drawer').checked")
        else:
            page.keyboard.press("/")
            page.keyboard.type("model")
            page.locator(".md-search-result__item a").first.wait_for()
        settle(page)
        problems = {f"{scheme} {width}": [*log.take(), *check_axe(page)[0]]}
    told(f"{state} open", problems)


@pytest.mark.parametrize(("key", "width"), KEYBOARD)
def test_keyboard_reaches_everything(key, width, browser, site_address):
    """Tab, from the top: all that can be used is reached once, in sight, and then one is out."""
    with reader(browser, site_address, width=width) as (page, _):
        page.goto(f"{site_address}{key}.html")
        settle(page)
        handle = checks(page)
        handle.evaluate("c => c.watchFocus()")
        for _ in range(40):
            for _ in range(20):
                page.keyboard.press("Tab")
            if handle.evaluate("c => c.order.some(e => e.again)") or page.evaluate(
                "document.activeElement === document.body"
            ):
                break
        else:
            pytest.fail("800 Tabs do not lead through the page")
        first = handle.evaluate("c => c.order[0].words")
        lines = handle.evaluate("c => [...c.missed(), ...c.unseen()]")
    assert "Skip to content" in first
    assert not lines, "\n".join(dict.fromkeys(lines))
