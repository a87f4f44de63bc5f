"""What a finished site carries besides its pages: a security policy, and texts for machines."""

import json
import re
from urllib.parse import urlsplit

import pytest
import yaml
from browsing import entries, reader
from bs4 import BeautifulSoup

from snippets.site import ROOT, share_cards
from snippets.site.delivery import script_hashes, with_policy
from snippets.site.numbers import fill
from snippets.site.page import read_page
from snippets.site.plain import to_markdown

ENTRIES = pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.key)


def soup_of(built_site, entry) -> BeautifulSoup:
    return BeautifulSoup((built_site / entry.address).read_text(encoding="utf-8"), "lxml")


def meta(soup, name: str) -> str:
    tag = soup.find("meta", attrs={"property": name}) or soup.find("meta", attrs={"name": name})
    assert tag, f"no <meta> {name}"
    return tag["content"]


def policy_of(soup) -> dict[str, list[str]]:
    tag = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert tag, "no policy"
    parts = [part.split() for part in tag["content"].split(";")]
    return {name: values for name, *values in parts}


# ---------------------------------------------------------------- security


def test_every_file_of_html_has_a_policy_before_its_first_script(built_site):
    pages = sorted(built_site.rglob("*.html"))
    assert len(pages) == len(entries()) + 1  # and the one for a wrong address
    for path in pages:
        text = path.read_text(encoding="utf-8")
        policy = policy_of(BeautifulSoup(text, "lxml"))
        assert text.index("Content-Security-Policy") < text.index("<script")
        assert policy["default-src"] == ["'none'"]
        assert "'unsafe-inline'" not in policy["script-src"] + policy["style-src"]
        assert "'unsafe-eval'" not in str(policy) and "http" not in str(policy)


@ENTRIES
def test_the_policy_allows_the_scripts_of_the_page_and_no_other(entry, built_site):
    text = (built_site / entry.address).read_text(encoding="utf-8")
    soup = BeautifulSoup(text, "lxml")
    allowed = [v.strip("'") for v in policy_of(soup)["script-src"] if v != "'self'"]
    assert sorted(allowed) == sorted(set(script_hashes(text)))
    assert 3 <= len(allowed) <= 8
    # What a hash cannot allow: the policy would silently switch these off.
    handlers = [a for tag in soup.find_all(True) for a in tag.attrs if a.startswith("on")]
    assert handlers == []
    assert not soup.find_all(href=re.compile("^javascript:", re.I))
    assert not soup.find_all("style"), "put styles into docs/assets/css"


def test_data_is_not_hashed_and_scripts_are():
    html = (
        '<head><meta charset="utf-8"></head><script>alert(1)</script>'
        '<script type="application/json">{}</script><script src="x.js"></script>'
    )
    # printf 'alert(1)' | openssl dgst -sha256 -binary | base64
    assert script_hashes(html) == ["sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI="]
    assert with_policy(html).count("sha256-") == 1
    assert with_policy("<p>no head</p>") == "<p>no head</p>"


@pytest.mark.browser
def test_a_script_that_is_slipped_in_does_not_run(browser, site_address, built_site, tmp_path):
    """The policy works: the same page with one more script, handler and style refuses them."""
    text = (built_site / "index.html").read_text(encoding="utf-8")
    planted = (
        "<script>window.planted = 1</script>"
        '<img src="x" onerror="window.planted = 1"><style>h1 { display: none }</style>'
    )
    tampered = text.replace("</article>", f"{planted}</article>")
    with reader(browser, site_address) as (page, log):
        page.route(
            "**/index.html",
            lambda route: route.fulfill(body=tampered, content_type="text/html"),
        )
        page.goto(site_address + "index.html")
        page.wait_for_function("document.readyState === 'complete'")
        assert page.evaluate("window.planted") is None
        assert page.locator("h1").first.is_visible()
        refused = [line for line in log.take() if "Content Security Policy" in line]
        assert len(refused) >= 3, refused


# ---------------------------------------------------------------- previews and search engines


@ENTRIES
def test_each_page_says_what_it_is(entry, built_site):
    soup = soup_of(built_site, entry)
    address = soup.find("link", rel="canonical")["href"]
    assert urlsplit(address).path.lstrip("/") == entry.address
    assert meta(soup, "og:url") == address
    assert 30 <= len(meta(soup, "description")) <= 160
    assert meta(soup, "og:description") == meta(soup, "description")
    card = built_site / urlsplit(meta(soup, "og:image")).path.lstrip("/")
    from PIL import Image

    with Image.open(card) as image:
        assert image.size == share_cards.SIZE
    data = json.loads(soup.find("script", type="application/ld+json").string)
    assert data["@context"] == "https://schema.org"
    assert data["url"] == address and data["headline"] == meta(soup, "og:title")
    is_program = bool(soup.find(class_="language-python"))
    assert ("LearningResource" in data["@type"]) == is_program


def test_titles_and_descriptions_are_each_pages_own(built_site):
    soups = [soup_of(built_site, entry) for entry in entries()]
    for what in (lambda s: s.title.string.strip(), lambda s: meta(s, "description")):
        assert len({what(soup) for soup in soups}) == len(soups)


def test_the_site_map_names_every_page(built_site):
    text = (built_site / "sitemap.xml").read_text(encoding="utf-8")
    paths = {urlsplit(url).path.lstrip("/") for url in re.findall(r"<loc>(.*?)</loc>", text)}
    assert paths == {entry.address for entry in entries()}
    robots = (built_site / "robots.txt").read_text(encoding="utf-8")
    assert urlsplit(re.search(r"^Sitemap: (\S+)$", robots, re.M)[1]).path == "/sitemap.xml"


def test_cards_are_what_their_pages_say_and_a_rule_sees_when_not(tmp_path):
    assert share_cards.stale(ROOT) == [] and share_cards.left_over(ROOT) == []
    page = tmp_path / "docs" / "index.md"
    page.parent.mkdir()
    page.write_text("---\ndescription: One line.\n---\n# A title\n", encoding="utf-8")
    assert share_cards.stale(tmp_path) == ["docs/assets/cards/site.png"]
    (written,) = share_cards.write_cards(tmp_path)
    first = (tmp_path / written).read_bytes()
    assert share_cards.stale(tmp_path) == []
    page.write_text("---\ndescription: Another line.\n---\n# A title\n", encoding="utf-8")
    assert share_cards.stale(tmp_path) == ["docs/assets/cards/site.png"]
    share_cards.write_cards(tmp_path)
    assert (tmp_path / written).read_bytes() != first


# ---------------------------------------------------------------- pages as plain Markdown


def test_llms_txt_lists_every_page_and_each_is_there(built_site):
    text = (built_site / "llms.txt").read_text(encoding="utf-8")
    config = yaml.safe_load(re.sub(r"!\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert text.startswith(f"# {config['site_name']}\n\n> ")
    listed = re.findall(r"^- \[[^\]]+\]\((\S+)\): \S.{20,}$", text, re.M)
    paths = [urlsplit(url).path.lstrip("/") for url in listed]
    assert paths == [re.sub(r"html$", "md", entry.address) for entry in entries()]
    everything = (built_site / "llms-full.txt").read_text(encoding="utf-8")
    for path in paths:
        page = (built_site / path).read_text(encoding="utf-8")
        assert re.match(r"# \S", page), path
        assert page in everything


@pytest.mark.parametrize("entry", [e for e in entries() if e.is_lesson], ids=lambda e: e.key)
def test_a_page_as_markdown_is_whole(entry, built_site):
    """It holds all code, all outputs and every figure's words, and nothing is left to fill in."""
    page = read_page(ROOT / "docs" / entry.source)
    text = (built_site / entry.address).with_suffix(".md").read_text(encoding="utf-8")
    # Solutions are indented, in their folds.
    flat = "\n".join(line.strip() for line in text.splitlines())
    for block in page.blocks:
        parts = [block.code]
        if block.output:
            parts.append((ROOT / block.output).read_text(encoding="utf-8"))
        for part in parts:
            assert "\n".join(line.strip() for line in part.strip().splitlines()) in flat
        for figure in block.figures:
            assert f"[Figure: {fill(figure.alternative)}]" in text
    left = re.findall(r"--8<--|\{\{ *\w+/|<svg|<div|///|^---$", text, re.M)
    assert left == []


def test_markup_goes_and_formulas_stay(site):
    site.replace(
        "docs/discriminative/line.md",
        "## Measured",
        'A <span class="x">word</span> of $p(x_t\\mid x_<t)$.\n\n## Measured',
    )
    text = to_markdown(site.page())
    assert "A word of $p(x_t\\mid x_<t)$." in text
    assert "The slope is 2.04" in text
