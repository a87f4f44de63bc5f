"""Diagrams: drawn once when recorded, put in place by the build."""

import logging
import re
import xml.etree.ElementTree as ET

import pytest

from snippets.site import ROOT
from snippets.site.diagrams import (
    FOLDER,
    fences,
    formatter,
    identifier,
    missing,
    normal,
    render,
    stale,
)
from snippets.site.problems import PageError

SOURCE = """flowchart LR
    accTitle: Two boxes
    accDescr: The first box leads to the second.
    one["First<br>box"]:::generative_planned --> two["Second"]:::discriminative_here
    click two href "two.html"
"""


def test_every_diagram_of_the_site_is_drawn_and_none_is_left_over():
    assert missing(ROOT) == []
    assert stale(ROOT) == []
    assert len(fences(ROOT)) >= 12


def test_the_name_follows_the_source_and_not_its_indentation():
    assert identifier(SOURCE) == identifier("\n" + SOURCE + "  \n")
    assert identifier(SOURCE) != identifier(SOURCE.replace("Second", "2nd"))
    assert normal("  a  \n\n") == "a\n"


def test_a_diagram_without_description_or_svg_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "mkdocs.diagrams"):
        formatter("flowchart LR\n  a --> b", "mermaid", "diagram", {}, None)
    assert "accTitle" in caplog.text and "accDescr" in caplog.text
    assert "python -m snippets record" in caplog.text


@pytest.mark.parametrize("path", sorted((ROOT / FOLDER).glob("*.svg")), ids=lambda p: p.stem)
def test_recorded_diagrams_are_small_clean_and_described(path):
    text = path.read_text(encoding="utf-8")
    ET.fromstring(text)
    assert len(text) <= 40_000
    assert "<style" not in text and "foreignObject" not in text and "<script" not in text
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b(?!_)", re.sub(r"url\(#[^)]*\)", "", text))
    assert "<title" in text and "<desc" in text
    names = re.findall(r'\sid="([^"]+)"', text)
    assert len(set(names)) == len(names) and all(path.stem in name for name in names)


@pytest.mark.browser
def test_rendering_keeps_text_links_and_classes_and_is_the_same_twice():
    wanted = [("docs/page.md", 3, normal(SOURCE))]
    svg = render(wanted)[identifier(SOURCE)]
    assert render(wanted)[identifier(SOURCE)] == svg
    tree = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert [a.get("href") for a in tree.iter(f"{space}a")] == ["two.html"]
    words = " ".join("".join(t.itertext()) for t in tree.iter(f"{space}text"))
    assert "First" in words and "Second" in words
    classes = {c for g in tree.iter(f"{space}g") for c in (g.get("class") or "").split()}
    assert {"generative", "planned", "discriminative", "here"} <= classes
    assert tree.get("aria-labelledby") in svg and len(svg) < 6000


@pytest.mark.browser
def test_a_syntax_error_names_the_pages_line():
    with pytest.raises(PageError) as caught:
        render([("docs/page.md", 10, "flowchart LR\n    a -->\n    --> b\n")])
    problem = caught.value.problem
    assert problem.file == "docs/page.md" and problem.line == 13
    assert "Mermaid does not understand" in problem.message
