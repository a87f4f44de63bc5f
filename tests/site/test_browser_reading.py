"""What a reader does on the site: choose, copy, follow, download, print, open it from a folder."""

import json
import shutil

import nbformat
import pytest
from browsing import SCHEMES, check_looks, checks, entries, lessons, reader, settle, told
from bs4 import BeautifulSoup

from snippets.site import ROOT
from snippets.site.page import read_page

pytestmark = pytest.mark.browser
LESSONS = pytest.mark.parametrize("entry", lessons(), ids=lambda entry: entry.key)
HOME = "index.html"


def soup(built_site, address: str) -> BeautifulSoup:
    return BeautifulSoup((built_site / address).read_text(encoding="utf-8"), "lxml")


def test_the_checks_see_what_is_wrong(browser, site_address):
    """The checks are themselves checked, on a page with one fault of each kind."""
    faulty = """
        <body style="background: #fff; margin: 0">
          <p style="width: 3000px">far too wide</p>
          <div role="img" aria-label="Faint">
            <svg class="plot" width="200" height="100" viewBox="0 0 200 100">
              <path d="M0 0h50v50h-50z" fill="#dddddd"/>
              <text x="9" y="90" fill="#999999">pale words</text>
              <image x="90" y="9" width="50" height="50" href="data:image/svg+xml,
                <svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'>
                <rect width='9' height='9' fill='silver'/></svg>"/>
            </svg>
          </div>
          <div class="diagram"><svg width="200" height="50" viewBox="0 0 200 50">
            <rect width="200" height="50" fill="#204080"/>
            <text x="60" y="30" fill="#000000">dark on dark</text>
          </svg></div>
          <math alttext="x" style="color: #bbbbbb"><mi>x</mi></math>
          <pre style="width: 99px; overflow: auto"><code
            style="color: #aaaaaa">a = 1  # and so on and on</code></pre>
          <script>
            console.error("noise")
            fetch("https://elsewhere.example/x").catch(() => 0)
          </script>
        </body>"""
    with reader(browser, site_address, width=820) as (page, log):
        page.route(
            site_address + "faulty.html", lambda r: r.fulfill(content_type="text/html", body=faulty)
        )
        # Late enough to be a shift, on every visit.
        page.add_init_script(
            """addEventListener("DOMContentLoaded", () => requestAnimationFrame(() =>
                requestAnimationFrame(() => document.body.insertAdjacentHTML(
                    "afterbegin", "<p style=height:300px>late"))))"""
        )
        with page.expect_event("requestfailed"):
            page.goto(site_address + "faulty.html")
        page.wait_for_selector("text=late")
        settle(page)
        said = "\n".join(log.take() + check_looks(page))
    for fault in (
        "console error: noise",
        "another host: https://elsewhere.example/x",
        "request fails",
        "px wide in a window of 820",
        "layout shift",
        "“pale words” has contrast 2.8",
        "fill rgb(221, 221, 221) has contrast 1.3",
        "picture “Faint…” is faint: 1.8",
        "“dark on dark” has contrast",
        "formula x has contrast",
        "code “a = 1",
        "scrolls but cannot be focused",
    ):
        assert fault in said, f"not seen: {fault}\n{said}"


def test_the_choice_of_audience_holds_on_other_pages(browser, site_address):
    first, second = lessons()[:2]
    panel = ".tabbed-set >> nth=0 >> .tabbed-block:visible"
    with reader(browser, site_address) as (page, _):
        page.goto(site_address + first.address)
        as_developer = page.locator(panel).inner_text()
        page.get_by_text("For a domain expert", exact=True).first.click()
        page.wait_for_function("JSON.stringify(localStorage).includes('domain expert')")
        assert page.locator(panel).inner_text() != as_developer
        page.goto(site_address + second.address)
        checked = page.locator(".tabbed-set >> nth=0 >> input:checked").get_attribute("id")
        assert page.locator(f"label[for={checked}]").inner_text().strip() == "For a domain expert"
        page.goto(site_address + first.address)
        page.locator(".tabbed-set input:checked").first.focus()
        page.keyboard.press("ArrowLeft")
        assert page.locator(panel).inner_text() == as_developer


@LESSONS
def test_copying_takes_exactly_the_code(entry, browser, site_address):
    """All blocks of the page, pasted in order, are the page's program."""
    blocks = read_page(ROOT / "docs" / entry.source).blocks
    with reader(browser, site_address, permissions=["clipboard-read", "clipboard-write"]) as (
        page,
        _,
    ):
        page.goto(site_address + entry.address)
        settle(page)
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        shown = page.locator("div.language-python.highlight")
        assert shown.count() == len(blocks)
        for index, block in enumerate(blocks):
            button = shown.nth(index).get_by_title("Copy to clipboard")
            button.evaluate("e => e.click()")
            page.wait_for_function("async () => (await navigator.clipboard.readText()) !== ''")
            copied = page.evaluate("navigator.clipboard.readText()")
            assert copied.rstrip() == block.code.rstrip(), f"{entry.source}:{block.line}"
            page.evaluate("navigator.clipboard.writeText('')")


def test_a_box_of_a_diagram_leads_to_its_page(browser, site_address):
    with reader(browser, site_address) as (page, log):
        for address in [HOME, "generative/index.html"]:
            page.goto(site_address + address)
            links = page.locator(".diagram a")
            targets = {link.evaluate("a => a.href.baseVal ?? a.href") for link in links.all()}
            assert len(targets) > 1, f"the diagram of {address} leads nowhere"
            lesson = next(e for e in lessons() if e.address.startswith("generative/"))
            link = next(
                k
                for k in links.all()
                if k.evaluate("a => a.href.baseVal ?? a.href").endswith(
                    lesson.address.split("/")[1]
                )
            )
            link.click()
            page.wait_for_url(site_address + lesson.address)
            assert page.locator("h1").count() == 1
        assert not log.take()


@LESSONS
def test_the_notebook_of_a_page_is_valid(entry, browser, site_address):
    page_read = read_page(ROOT / "docs" / entry.source)
    with reader(browser, site_address) as (page, _):
        page.goto(site_address + entry.address)
        with page.expect_download() as download:
            page.locator("a[download][href$='.ipynb']").click()
        book = nbformat.read(download.value.path(), as_version=4)
    nbformat.validate(book)
    code = [cell.source.strip() for cell in book.cells if cell.cell_type == "code"]
    assert len(code) == len(page_read.blocks)
    assert all(
        cell.outputs
        for cell, block in zip((c for c in book.cells if c.cell_type == "code"), page_read.blocks)
        if block.output
    )


def test_footer_links_lead_through_all_pages(built_site):
    """Next, next, next … visits the pages in the order of nav, and back; each can be edited."""
    addresses = [entry.address for entry in entries()]
    for index, entry in enumerate(entries()):
        html = soup(built_site, entry.address)
        folder = (built_site / entry.address).parent
        for rel, at in (("prev", index - 1), ("next", index + 1)):
            link = html.select_one(f"a.md-footer__link--{rel}")
            expected = addresses[at] if 0 <= at < len(addresses) else None
            found = (
                (folder / link["href"]).resolve().relative_to(built_site).as_posix()
                if link
                else None
            )
            assert found == expected, f"{entry.source}: {rel}"
        if entry.source.endswith(".md"):
            edit = html.select_one("a[rel=edit]")
            assert edit["href"].endswith(f"/docs/{entry.source}"), entry.source
            assert (ROOT / "docs" / entry.source).is_file()


def test_the_page_for_a_wrong_address_leads_home(browser, site_address):
    problems = {}
    for scheme in SCHEMES:
        with reader(browser, site_address, scheme=scheme, width=390) as (page, log):
            page.goto(site_address + "404.html")
            settle(page)
            problems[scheme] = log.take() + checks(page).evaluate("c => c.overflow()")
            page.locator("article a[href]", has_text="start").first.click()
            page.wait_for_load_state()
            assert page.url in (site_address, site_address + HOME)
    told("404.html", problems)


def test_the_scheme_can_be_chosen(browser, site_address):
    """From the system's scheme to light, to dark, and back; the choice survives another page."""
    with reader(browser, site_address, scheme="dark") as (page, _):
        page.goto(site_address + HOME)
        schemes = []
        for _ in range(3):
            schemes.append(page.evaluate("document.body.dataset.mdColorScheme"))
            page.locator("label[for^=__palette]:visible").click()
        assert schemes == ["slate", "default", "slate"]
        page.locator("label[for^=__palette]:visible").click()
        page.goto(site_address + lessons()[0].address)
        assert page.evaluate("document.body.dataset.mdColorScheme") == "default"


def test_the_site_opens_from_a_folder(browser, built_site, tmp_path):
    """Over file://, with no server and no network: pages load, links lead on, search finds."""
    folder = tmp_path / "a copy with spaces"
    shutil.copytree(built_site, folder)
    home = folder.as_uri() + "/"
    with reader(browser, home) as (page, log):
        for address in (HOME, lessons()[0].address):
            page.goto(home + address)
            settle(page)
        assert not log.take()
        page.keyboard.press("/")
        page.keyboard.type("naive bayes")
        first = page.locator(".md-search-result__item a").first
        first.wait_for()
        first.click()
        page.wait_for_url("**/generative/naive_bayes.html*")
        assert not log.take()


def test_a_page_prints_well(browser, site_address):
    """On paper: no navigation, no code cut off, folds keep their titles, ink on white."""
    problems = {}
    for scheme in SCHEMES:
        with reader(browser, site_address, scheme=scheme, width=720) as (page, _):
            page.emulate_media(media="print", color_scheme=scheme)
            for entry in lessons():
                page.goto(site_address + entry.address)
                settle(page)
                problems[f"{scheme} {entry.key}"] = checks(page).evaluate("c => c.printed()")
    told("print", problems)


def test_pages_can_be_read_without_javascript(browser, site_address):
    entry = lessons()[0]
    with reader(browser, site_address, java_script_enabled=False) as (page, log):
        page.goto(site_address + entry.address)
        for part in ("h1", "pre code", "svg.plot", "math", ".md-footer__link--next"):
            assert page.locator(part).first.is_visible(), part
        page.get_by_text("For a domain expert", exact=True).first.click()
        assert page.locator(".tabbed-set >> nth=0 >> .tabbed-block >> nth=1").is_visible()
        assert not log.take()


def test_search_index_names_only_pages_of_the_site(built_site):
    index = json.loads((built_site / "search/search_index.json").read_text(encoding="utf-8"))
    known = {entry.address for entry in entries()} | {""}
    assert {doc["location"].partition("#")[0] for doc in index["docs"]} <= known
