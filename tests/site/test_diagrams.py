"""Diagrams: drawn when a page is recorded, put in place by the build, small, linked, described."""

import itertools
import logging
import re
import textwrap
import xml.etree.ElementTree as ET

import pytest

from snippets.site import ROOT, columns, diagrams
from snippets.site.diagrams import (
    FOLDER,
    Fence,
    fences,
    find_fences,
    formatter,
    identifier,
    missing,
    render,
    stale,
    words,
)
from snippets.site.problems import PageError

SVG = "{http://www.w3.org/2000/svg}"
SOURCE = """flowchart LR
    accTitle: Two boxes
    accDescr: The first box leads to the second & last.
    one["First<br>box"] -->|"then, or<br>never"| two["Second"]
    three(["round"]) -.-> four{"which?"}
    one ==> three
    class one,two generative
    class two here
    class one planned
    click one href "one.html"
    click two href "two.html#part"
"""
COLUMNS = """flowchart LR
    accTitle: Groups
    accDescr: Two groups side by side.
    %% columns: left under | right
    subgraph left["Left"]
        a["Alpha"]
        b["Beta"]
        c["Gamma, rather long"]
    end
    a --- c
    subgraph under["Under"]
        e["Epsilon"]
    end
    subgraph right["Right ›<br>side"]
        d["Delta"]
    end
    a -. "zero" .- b
    a -. "one" .- d
    b -. "two" .- d
    e -. "three,<br>four" .- d
    click right href "right.html"
"""


# ---------------------------------------------------------------- which there are


def test_every_diagram_of_the_site_is_drawn_and_none_is_left_over():
    assert [fence.place() for fence in missing(ROOT)] == []
    assert stale(ROOT) == []
    assert len(fences(ROOT)) > 10


def test_the_name_follows_the_source_and_not_its_place_on_a_page():
    indented = "".join(f"    {line}\n" for line in SOURCE.splitlines())
    assert identifier(SOURCE) == identifier(indented) == identifier(f"\n{SOURCE}  \n\n")
    assert identifier(SOURCE) != identifier(SOURCE.replace("Second", "2nd"))
    assert re.fullmatch(r"d[0-9a-f]{12}", identifier(SOURCE))


def test_the_name_follows_the_edition_of_the_drawing(monkeypatch):
    before = identifier(SOURCE)
    monkeypatch.setattr(diagrams, "EDITION", diagrams.EDITION + 1)
    assert identifier(SOURCE) != before


def test_fences_are_found_with_their_line_and_without_their_indentation():
    text = f"A\n\n!!! note\n\n{textwrap.indent(f'```mermaid{chr(10)}{SOURCE}```', '    ')}\n"
    [(line, source)] = find_fences(f"{text}\n```text\nflowchart LR\n```\n")
    assert line == 6
    assert identifier(source) == identifier(SOURCE)


def test_quoted_and_generated_fences_are_found_at_their_own_place(site):
    page = "docs/discriminative/line.md"
    site.write("docs/outputs/taxonomy/small.mmd", SOURCE)
    site.write(
        "docs/outputs/discriminative/line/card.txt",
        f"<dl></dl>\n\n```mermaid\n{SOURCE.replace('Second', '2nd')}```\n",
    )
    quote = '```mermaid\n--8<-- "docs/outputs/taxonomy/small.mmd"\n```'
    site.replace(page, "It cannot bend.", f"{quote}\n\n{quote}\n\nIt cannot bend.")
    places = sorted(fence.place(4) for fence in missing(site.root))
    assert places == [
        ("docs/outputs/discriminative/line/card.txt", 7),
        ("docs/outputs/taxonomy/small.mmd", 4),
    ]
    for fence in missing(site.root):
        site.write(f"{FOLDER}/{identifier(fence.source)}.svg", "<svg/>")
    for path in stale(site.root):  # that of the card as it was
        path.unlink()
    left_over = site.write(f"{FOLDER}/d0123456789ab.svg", "<svg/>")
    assert missing(site.root) == [] and stale(site.root) == [left_over]


def test_without_chromium_an_undrawn_diagram_is_only_undrawn(monkeypatch):
    monkeypatch.setattr(diagrams, "chromium", lambda: None)
    fence = Fence("flowchart LR\n    a -> > b", (("a.md", 7), ("a.md", 8)))
    [problem] = diagrams.why_undrawn([fence])
    assert (problem.file, problem.line, problem.message) == (
        "a.md",
        7,
        "the diagram was never drawn",
    )


@pytest.mark.browser
def test_an_undrawn_diagram_is_parsed_and_the_wrong_line_named():
    good = Fence(SOURCE, tuple(("a.md", n) for n in range(1, 20)))
    bad = Fence("flowchart LR\n    a --> b\n    b -> > c", tuple(("b.md", n) for n in (5, 6, 7)))
    undrawn, wrong = diagrams.why_undrawn([good, bad])
    assert (undrawn.line, undrawn.message) == (1, "the diagram was never drawn")
    assert (wrong.file, wrong.line) == ("b.md", 7)
    assert "does not understand" in wrong.message


def test_titles_and_descriptions_are_read():
    assert words(SOURCE, "accTitle") == "Two boxes"
    assert words("flowchart\n accDescr {\n  Two\n  lines.\n }\n", "accDescr") == "Two lines."
    assert words("flowchart\n accTitle:\n", "accTitle") == ""


# ---------------------------------------------------------------- what the build does


def test_the_build_puts_a_recorded_diagram_inline(tmp_path, monkeypatch):
    monkeypatch.setattr(diagrams, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    path = tmp_path / FOLDER / f"{identifier(SOURCE)}.svg"
    path.parent.mkdir(parents=True)
    path.write_text("<svg>drawn</svg>\n")
    html = formatter(SOURCE, "mermaid", "diagram", {}, None)
    assert html == '<div class="diagram">\n<svg>drawn</svg>\n</div>'


def test_a_missing_diagram_is_a_warning_with_the_mend(caplog):
    with caplog.at_level(logging.WARNING, "mkdocs"):
        html = formatter("flowchart LR\n  <a> --> b", "mermaid", "diagram", {}, None)
    said = [record.message for record in caplog.records]
    assert all(record.name == "mkdocs.diagrams" for record in caplog.records)
    assert any("no accTitle" in line for line in said) and any(
        "no accDescr" in line for line in said
    )
    assert any("python -m snippets record" in line for line in said)
    assert "flowchart LR" in html


def test_a_missing_diagram_of_a_page_is_named_with_its_line(site, monkeypatch, caplog):
    site.replace("docs/discriminative/line.md", "It cannot bend.", f"```mermaid\n{SOURCE}```\n")
    line = site.line_of("docs/discriminative/line.md", "flowchart LR")
    monkeypatch.setattr(diagrams, "ROOT", site.root)
    monkeypatch.setattr(diagrams.fences, "__defaults__", (site.root,))
    formatter(SOURCE, "mermaid", "diagram", {}, None)
    assert f"docs/discriminative/line.md:{line}: the diagram was never drawn" in caplog.text


# ---------------------------------------------------------------- what was recorded


@pytest.mark.parametrize("path", sorted((ROOT / FOLDER).glob("*.svg")), ids=lambda p: p.stem)
def test_recorded_diagrams_are_small_and_take_their_colours_from_the_page(path):
    text = path.read_text(encoding="utf-8")
    tree = ET.fromstring(text)
    assert len(text) <= 16_000  # the largest is the map, which grows with the models
    tags = {element.tag.removeprefix(SVG) for element in tree.iter()}
    assert tags <= set(
        ["svg", "desc", "marker", "path", "g", "rect", "polygon", "circle", "text", "a"]
    )
    for element in tree.iter():
        for name, value in element.attrib.items():
            assert name in ("fill", "stroke") or not re.search(r"#[0-9a-f]{3,6}\b|rgb|hsl", value)
            assert name not in ("fill", "stroke") or value in ("none", "currentColor")
            assert not name.startswith("on")
    described(tree)
    names = [element.get("id") for element in tree.iter() if element.get("id")]
    assert all(name.startswith(path.stem) for name in names), "ids must differ between diagrams"
    assert not re.search(r"\d\.\d{3,}", text), "needless digits"


def described(tree: ET.Element) -> None:
    """A name, a description, and the role that fits what is inside."""
    has_links = tree.find(f".//{SVG}a") is not None
    assert tree.get("role") == ("group" if has_links else "img")
    assert len(tree.get("aria-label")) > 5
    description = tree.find(f"{SVG}desc")
    assert description.get("id") == tree.get("aria-describedby")
    assert len(description.text) > 20


# ---------------------------------------------------------------- drawing


@pytest.fixture(scope="module")
def drawn():
    """Both sources, drawn by a real browser."""
    pictures = render([SOURCE, COLUMNS])
    return [pictures[identifier(source)] for source in (SOURCE, COLUMNS)]


@pytest.mark.browser
def test_drawing_is_the_same_twice(drawn):
    assert render([COLUMNS, SOURCE])[identifier(SOURCE)] == drawn[0]


@pytest.mark.browser
def test_words_links_and_classes_survive(drawn):
    tree = ET.fromstring(drawn[0])
    described(tree)
    assert tree.find(f"{SVG}desc").text == "The first box leads to the second & last."
    links = {a.get("href"): a for a in tree.iter(f"{SVG}a")}
    assert set(links) == {"one.html", "two.html#part"}
    # Rows are texts of their own; the link has one name all the same.
    assert "".join(links["one.html"].itertext()) == "First box"
    assert [t.text for t in links["two.html#part"].iter(f"{SVG}text")] == ["Second"]
    classes = {g.get("class") for g in tree.iter(f"{SVG}g")}
    assert {"node generative planned", "node generative here", "node", "label"} <= classes
    texts = [t.text.strip() for t in tree.iter(f"{SVG}text")]
    assert texts.count("First") == 1 and {"then, or", "never", "round", "which?"} <= set(texts)


@pytest.mark.browser
def test_shapes_arrows_and_line_styles_survive(drawn):
    tree = ET.fromstring(drawn[0])
    edges = tree.findall(f".//{SVG}g[@class='edges']/{SVG}path")
    assert len(edges) == 3
    assert all(edge.get("marker-end") == f"url(#{identifier(SOURCE)}-to)" for edge in edges)
    assert sorted(str(edge.get("class")) for edge in edges) == ["None", "dotted", "thick"]
    assert tree.find(f".//{SVG}polygon") is not None
    assert any(float(r.get("rx", 0)) > 10 for r in tree.iter(f"{SVG}rect")), "the round box"


@pytest.mark.browser
def test_columns_are_lists_in_the_order_of_the_source(drawn):
    tree = ET.fromstring(drawn[1])
    box = {}
    for group in tree.iter(f"{SVG}g"):
        if "node" in group.get("class", ""):
            x, y = map(float, re.findall(r"[\d.]+", group.get("transform")))
            rect = group.find(f"{SVG}rect")
            wide, high = float(rect.get("width")), float(rect.get("height"))
            box[group.find(f"{SVG}text").text] = (
                x - wide / 2,
                x + wide / 2,
                y - high / 2,
                y + high / 2,
            )
    left = ["Alpha", "Beta", "Gamma, rather long", "Epsilon"]
    assert all(box[one][3] < box[two][2] for one, two in itertools.pairwise(left)), (
        "below each other"
    )
    assert box["Gamma, rather long"][0] > box["Alpha"][0], "a branch is indented"
    assert box["Beta"][0] == box["Alpha"][0], "what a dotted line joins is not"
    assert len({box[name][1] for name in left}) == 1, "and ends where the others end"
    assert box["Delta"][0] > box["Alpha"][1]
    width, height = float(tree.get("width")), float(tree.get("height"))
    assert all(b[0] >= 0 and b[1] <= width and b[2] >= 0 and b[3] <= height for b in box.values())
    assert "".join(tree.find(f".//{SVG}a").itertext()) == "Right › side"
    assert not tree.findall(f".//{SVG}marker"), "lines without arrows need no head"


@pytest.mark.browser
def test_words_on_lines_do_not_overlap(drawn):
    tree = ET.fromstring(drawn[1])
    rects = [g.find(f"{SVG}rect") for g in tree.iter(f"{SVG}g") if g.get("class") == "label"]
    spans = sorted((float(r.get("y")), float(r.get("y")) + float(r.get("height"))) for r in rects)
    assert len(spans) == 4
    assert all(above[1] <= below[0] for above, below in itertools.pairwise(spans))


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_fits_its_box_in_the_sites_own_style(drawn, page, scheme):
    style = "".join(
        (ROOT / f"docs/assets/css/{name}.css").read_text() for name in ("site", "diagrams")
    )
    boxes = "".join(f'<div class="diagram">{svg}</div>' for svg in drawn)
    style += f"</style><body data-md-color-scheme={'slate' if scheme == 'dark' else 'default'}>"
    page.set_content(f'<style>{style}<div class="md-typeset">{boxes}')
    outside = page.evaluate(
        """() => [...document.querySelectorAll(".node, .cluster")].flatMap(node => {
          const box = node.querySelector("rect, polygon, circle").getBoundingClientRect()
          return [...node.querySelectorAll("text")].filter(text => {
            const words = text.getBoundingClientRect()
            return words.left < box.left + 2 || words.right > box.right - 2
          }).map(text => text.textContent)
        })"""
    )
    assert outside == []


@pytest.mark.browser
@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('one["First', 'one[["First', 13, "Mermaid does not understand"),
        ("    accTitle: Two boxes\n", "", 10, "no accTitle"),
        ("flowchart LR", "sequenceDiagram", 10, "begins with 'sequenceDiagram'"),
        (
            "    accTitle: Two boxes\n",
            "    accTitle: T\n    %% columns: up\n",
            10,
            "columns name up",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named_with_the_pages_line(old, new, line, message):
    source = SOURCE.replace(old, new)
    places = tuple(("docs/page.md", 10 + n) for n in range(len(source.splitlines())))
    with pytest.raises(PageError) as caught:
        render([Fence(source, places)])
    problem = caught.value.problem
    assert message in problem.message and "\n" not in str(problem)
    assert (problem.file, problem.line) == ("docs/page.md", line)


def test_without_chromium_the_mend_is_said(monkeypatch):
    monkeypatch.setattr(diagrams, "chromium", lambda: None)
    with pytest.raises(PageError, match="needs Chromium"):
        render([SOURCE])


def test_nothing_to_draw_starts_no_browser(monkeypatch):
    monkeypatch.setattr(diagrams, "chromium", lambda: pytest.fail("asked for a browser"))
    assert render([]) == {}


def test_heaps_of_words_are_spread_around_their_middle():
    labels = [{"at": [0, y], "rows": ["x"]} for y in (10, 12, 11, 500)]
    columns._spread(labels)
    spots = [label["at"][1] for label in labels]
    assert spots == [-10, 32, 11, 500]
