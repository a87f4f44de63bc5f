"""Mermaid flowcharts become SVG when a page is recorded; the build only puts the SVG in its place.

A reader never downloads Mermaid, which computes the layout and nothing else: from it this module
writes a small SVG of its own, with real text, real links and the classes of the site's style sheet
(`discriminative`, `generative`, `both`, `planned`, `here`, `section`).
"""

import hashlib
import json
import logging
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import NamedTuple

from snippets.site import columns
from snippets.site.columns import MEASURED, SHOWN, SMALL, STEP
from snippets.site.page import Page, page_files, read_page
from snippets.site.problems import PageError, Problem

# Not resolved: a small site that links to this folder has diagrams of its own.
ROOT = Path(__file__).absolute().parents[2]
VENDOR = Path(__file__).parent / "vendor"
FOLDER = "docs/outputs/diagrams"
# Part of each diagram's name: raise it when the drawing changes, and `record` draws all anew.
EDITION = 2
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Without these Chromium asks its makers' hosts for updates on each start.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FONTS = "Liberation Sans, Arial, Helvetica, sans-serif"
SETTINGS = {
    "startOnLoad": False,
    "securityLevel": "strict",
    "theme": "base",
    "htmlLabels": False,
    "themeVariables": {"fontFamily": FONTS, "fontSize": f"{MEASURED}px"},
    "flowchart": {
        "htmlLabels": False,
        "useMaxWidth": False,
        "nodeSpacing": 12,
        "rankSpacing": 36,
        "padding": 9,
        "diagramPadding": 2,
        "subGraphTitleMargin": {"top": 2, "bottom": 8},
    },
}
FENCE = re.compile(
    r"^(?P<indent>[ \t]*)```mermaid[ \t]*\n(?P<source>.*?)^(?P=indent)```", re.S | re.M
)
CLICK = re.compile(r'^\s*click\s+(?P<node>\S+)\s+(?:href\s+)?"(?P<url>[^"]+)"', re.M)
COLUMNS = re.compile(r"^\s*%%\s*columns:\s*(?P<keys>.*)$", re.M)
# MkDocs counts warnings of its own loggers, so a strict build stops on a missing diagram.
log = logging.getLogger("mkdocs.diagrams")


class Fence(NamedTuple):
    """A Mermaid fence: its source, and the file and line of each line of it."""

    source: str
    places: tuple[tuple[str, int], ...]

    def place(self, line: int = 1) -> tuple[str, int]:
        """File and line of the source's line, counted from 1."""
        return self.places[min(max(line, 1), len(self.places)) - 1]


def normalised(source: str) -> str:
    """The source without blank ends, common indentation and trailing spaces."""
    return "\n".join(line.rstrip() for line in textwrap.dedent(source).strip().splitlines()) + "\n"


def identifier(source: str) -> str:
    """The name of a diagram's SVG: it changes with the source and with the edition."""
    return "d" + hashlib.sha256(f"{EDITION}\n{normalised(source)}".encode()).hexdigest()[:12]


# ---------------------------------------------------------------- which diagrams there are


def find_fences(text: str) -> list[tuple[int, str]]:
    """(line of the first line of the source, source) of each Mermaid fence of a Markdown text."""
    return [
        (text[: match.start("source")].count("\n") + 1, textwrap.dedent(match["source"]))
        for match in FENCE.finditer(text)
    ]


def fences(root: Path = ROOT) -> list[Fence]:
    """Every Mermaid fence of the site, quotes expanded; a card's own fence too."""
    return fences_of(root, [read_page(path, root) for path in page_files(root)])


def fences_of(root: Path, pages: list[Page]) -> list[Fence]:
    """Those of pages that have been read already, and of the texts that pages quote."""
    found = []
    for page in pages:
        for fence in page.fences:
            if fence.info == "mermaid" and fence.lines:
                places = tuple((line.file, line.number) for line in fence.lines)
                found.append(Fence("\n".join(line.text for line in fence.lines), places))
    for path in sorted((root / "docs" / "outputs").glob("*/*/*.txt")):
        file = path.relative_to(root).as_posix()
        for line, source in find_fences(path.read_text(encoding="utf-8")):
            places = tuple((file, line + n) for n in range(len(source.splitlines())))
            found.append(Fence(source, places))
    return found


def missing(root: Path = ROOT) -> list[Fence]:
    """The fences that have no SVG yet, each source once."""
    wanted = {identifier(fence.source): fence for fence in reversed(fences(root))}
    folder = root / FOLDER
    return [f for name, f in sorted(wanted.items()) if not (folder / f"{name}.svg").is_file()]


def stale(root: Path = ROOT) -> list[Path]:
    """The SVGs that no fence uses any more."""
    used = {identifier(fence.source) for fence in fences(root)}
    return [path for path in sorted((root / FOLDER).glob("*.svg")) if path.stem not in used]


# ---------------------------------------------------------------- drawing them


def chromium() -> str | None:
    """Path of the system's Chromium (or of $CHROMIUM), None when there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)


def render(sources: Iterable[Fence | str]) -> dict[str, str]:
    """Draw diagrams: identifier → SVG. Offline, and the same source gives the same bytes.

    PageError names the file and line of a fence that cannot be drawn.
    """
    wanted = [s if isinstance(s, Fence) else _unplaced(s) for s in sources]
    for fence in wanted:
        _check(fence)
    if not wanted:
        return {}
    browser_path = chromium()
    if browser_path is None:
        _fail(
            wanted[0],
            1,
            "a new diagram needs Chromium to be drawn",
            "install Chromium, or set CHROMIUM to its path",
        )
    drawn = _in_browser(browser_path, _draw, wanted)
    return {identifier(fence.source): svg for fence, svg in zip(wanted, drawn)}


def why_undrawn(undrawn: list[Fence]) -> list[Problem]:
    """One Problem for each: its syntax error and the line of it, or that it was never drawn.

    Without Chromium nobody knows whether Mermaid would understand it.
    """
    browser_path = chromium()
    if not undrawn or browser_path is None:
        return [_never_drawn(fence) for fence in undrawn]
    return _in_browser(browser_path, _parse, undrawn)


def _in_browser(browser_path: str, work: Callable, wanted: list[Fence]) -> list:
    """`work(tab, fence)` of each fence, in an offline browser that knows Mermaid."""
    # In a thread of its own: the browser's event loop must not meet another one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_open, browser_path, work, wanted).result()


def _open(browser_path: str, work: Callable, wanted: list[Fence]) -> list:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(ARGUMENTS))
        try:
            tab = browser.new_context(offline=True).new_page()
            tab.set_content("<!doctype html><body></body>")
            tab.add_script_tag(path=str(VENDOR / "mermaid.min.js"))
            return [work(tab, fence) for fence in wanted]
        finally:
            browser.close()


PARSE = "s => mermaid.parse(s).then(() => '', error => error.message || String(error))"


def _parse(tab, fence: Fence) -> Problem:
    said = tab.evaluate(PARSE, normalised(fence.source))
    return _not_understood(fence, said) if said else _never_drawn(fence)


def _never_drawn(fence: Fence) -> Problem:
    mend = "python -m snippets record (needs Chromium)"
    return Problem(*fence.place(), "the diagram was never drawn", mend)


def _unplaced(source: str) -> Fence:
    return Fence(source, tuple(("diagram", n + 1) for n in range(len(source.splitlines()) or 1)))


def _fail(fence: Fence, line: int, message: str, mend: str):
    raise PageError(Problem(*fence.place(line), message, mend))


def words(source: str, key: str) -> str:
    """What `accTitle` or `accDescr` says; "" when it is not there."""
    match = re.search(rf"^\s*{key}\s*(?::\s*(?P<line>.*)|\{{(?P<block>[^}}]*)\}})", source, re.M)
    return " ".join((match["line"] or match["block"] or "").split()) if match else ""


def missing_parts(fence: Fence) -> list[Problem]:
    """What can be said of a diagram without drawing it: its kind, its title, its description."""
    kind = (fence.source.split() or ["nothing"])[0]
    if kind not in ("flowchart", "graph"):
        message = f"a diagram begins with {kind!r}"
        return [Problem(*fence.place(), message, "begin it with `flowchart TD` or `LR`")]
    return [
        Problem(*fence.place(), f"the diagram has no {key}", f"add a line `{key}: …`: its {what}")
        for key, what in (("accTitle", "title"), ("accDescr", "description"))
        if not words(fence.source, key)
    ]


def _check(fence: Fence) -> None:
    if problems := missing_parts(fence):
        raise PageError(problems[0])


def _draw(tab, fence: Fence) -> str:
    answer = tab.evaluate(LAY_OUT, [SETTINGS, normalised(fence.source)])
    if "error" in answer:
        raise PageError(_not_understood(fence, str(answer["error"])))
    if asked := COLUMNS.search(fence.source):
        try:
            columns.arrange(answer, fence.source, asked["keys"])
        except ValueError as error:
            _fail(fence, 1, str(error), "name each group once in `%% columns: a b | c`")
    return _svg(answer, fence.source)


def _not_understood(fence: Fence, said: str) -> Problem:
    """What Mermaid says of a source, in one line and on the line that it means."""
    said = " ".join(said.split())
    at = re.search(r"on line (\d+)", said)
    skipped = len(fence.source) - len(fence.source.lstrip())
    line = int(at[1]) + fence.source[:skipped].count("\n") if at else 1
    expecting = said.find("Expecting")
    short = said if expecting < 0 else said[:expecting].strip(" -^")
    return Problem(
        *fence.place(line),
        f"Mermaid does not understand the diagram: {short[:160]}",
        "mend this line, or the one above it",
    )


# Mermaid lays the flowchart out; then its picture is read, shape by shape, as plain numbers.
LAY_OUT = r"""async ([settings, source]) => {
  const round = n => Math.round(n * 10) / 10
  const rows = e => e ? [...e.querySelectorAll(".text-outer-tspan")]
    .map(row => row.textContent.replace(/\s+/g, " ").trim()).filter(Boolean) : []
  const at = e => {
    const moved = /translate\(\s*([-\d.e]+)[ ,]+([-\d.e]+)/.exec(e.getAttribute("transform") || "")
    return moved ? [Number(moved[1]), Number(moved[2])] : [0, 0]
  }
  const numbers = (e, ...names) => names.map(n => round(Number(e.getAttribute(n) || 0)))
  const path = d => d.replace(/-?\d+(\.\d+)?(e-?\d+)?/g, n => String(round(Number(n))))
  const shape = node => {
    const e = node.querySelector(".label-container")
    if (e.tagName === "polygon") {
      const [dx, dy] = at(e)
      const points = e.getAttribute("points").trim().split(/\s+/).map(p => p.split(",").map(Number))
      return { tag: "polygon", points: points.map(([x, y]) => [round(x + dx), round(y + dy)]) }
    }
    if (e.tagName === "circle") return { tag: "circle", r: numbers(e, "r")[0] }
    const box = e.getBBox()
    const rx = e.tagName === "g" ? box.height / 2 : Number(e.getAttribute("rx") || 0)
    return { tag: "rect", box: [box.x, box.y, box.width, box.height].map(round), rx: round(rx) }
  }
  mermaid.initialize(settings)
  const holder = document.body
  try {
    holder.innerHTML = (await mermaid.render("drawn", source)).svg
  } catch (error) {
    document.querySelectorAll("#ddrawn").forEach(e => e.remove())
    return { error: error.message || String(error) }
  }
  const svg = holder.querySelector("svg")
  const name = e => e.id.replace(/^drawn-(flowchart-)?/, "")
  const classes = e => [...e.classList]
  const answer = {
    view: svg.getAttribute("viewBox").split(/\s+/).map(n => round(Number(n))),
    clusters: [...svg.querySelectorAll(".cluster")].map(e => ({
      name: name(e), classes: classes(e), rows: rows(e),
      box: numbers(e.querySelector("rect"), "x", "y", "width", "height"),
      title: round(e.querySelector(".cluster-label").getBBox().width),
    })),
    edges: [...svg.querySelectorAll(".edgePaths path")].map(e => ({
      id: e.dataset.id, d: path(e.getAttribute("d")), classes: classes(e),
      start: e.hasAttribute("marker-start"), end: e.hasAttribute("marker-end"),
    })),
    labels: [...svg.querySelectorAll("g.edgeLabel")].map(e => ({
      edge: e.querySelector(".label").dataset.id, at: at(e).map(round), rows: rows(e),
      width: Math.max(0, ...[...e.querySelectorAll("rect")].map(r => numbers(r, "width")[0])),
    })).filter(label => label.rows.length),
    nodes: [...svg.querySelectorAll("g.node")].map(e => ({
      name: name(e).replace(/-\d+$/, ""), classes: classes(e), shape: shape(e),
      rows: rows(e.querySelector(".label")),
      at: at(e.parentNode.tagName === "a" ? e.parentNode : e).map(round),
    })),
  }
  holder.innerHTML = ""
  return answer
}"""


KNOWN = ("discriminative", "generative", "both", "planned", "here", "section", "quiet")


def _svg(drawn: dict, source: str) -> str:
    """A small SVG: links are links, colours are left to the style sheet's classes."""
    name = identifier(source)
    links = {match["node"]: match["url"] for match in CLICK.finditer(source)}
    width, height = drawn["view"][2:]
    # With links inside it is a group; without, one picture that its description replaces.
    role = "group" if links else "img"
    marker = (
        f'<marker id="{name}-to" viewBox="0 0 10 10" refX="5" refY="5" markerWidth="8" '
        'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
        '<path d="M0 0L10 5L0 10z"/></marker>'
    )
    arrows = any(edge["start"] or edge["end"] for edge in drawn["edges"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="flowchart" width="{_n(width)}" '
        # On a phone it shrinks a little before its box scrolls.
        f'height="{_n(height)}" style="min-width:{0.85 * width:.0f}px" '
        f'viewBox="{" ".join(map(_n, drawn["view"]))}" role="{role}" '
        f'aria-label="{escape(words(source, "accTitle"))}" aria-describedby="{name}-is" '
        f'fill="none" stroke="currentColor" font-size="{SHOWN}" text-anchor="middle">',
        f'<desc id="{name}-is">{escape(words(source, "accDescr"))}</desc>',
        marker if arrows else "",
        *(_cluster(cluster, links) for cluster in drawn["clusters"]),
        '<g class="edges">',
        *(_edge(edge, name) for edge in drawn["edges"]),
        "</g>",
        *(_label(label) for label in drawn["labels"]),
        *(_node(node, links) for node in drawn["nodes"]),
        "</svg>",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def _n(value: float) -> str:
    """A coordinate: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def _classes(kind: str, classes: list[str]) -> str:
    return " ".join([kind, *(c for c in KNOWN if c in classes)])


def _link(body: str, url: str | None) -> str:
    if not url:
        return body
    return f'<a href="{escape(url)}">{body}</a>'


def _text(rows: list[str], x: float = 0, y: float = 0, size: float = SHOWN) -> str:
    """Rows of text, centred on (x, y)."""
    first = y + size * 0.36 - (len(rows) - 1) * STEP / 2
    return "".join(
        # The space is not seen; with it the rows are heard, and checked, as one name.
        f"<text{_xy(x, first + n * STEP)}>{escape(row, False)}{' ' * (n < len(rows) - 1)}</text>"
        for n, row in enumerate(rows)
    )


def _xy(x: float, y: float) -> str:
    return "".join(f' {name}="{_n(value)}"' for name, value in (("x", x), ("y", y)) if value)


def _cluster(cluster: dict, links: dict[str, str]) -> str:
    x, y, width, height = cluster["box"]
    middle = round(x + width / 2, 1), y + 7 + STEP * len(cluster["rows"]) / 2
    title = _link(_text(cluster["rows"], *middle), links.get(cluster["name"]))
    return (
        f'<g class="{_classes("cluster", cluster["classes"])}"><rect x="{_n(x)}" y="{_n(y)}" '
        f'width="{_n(width)}" height="{_n(height)}"/>{title}</g>'
    )


def _edge(edge: dict, name: str) -> str:
    if "edge-thickness-invisible" in edge["classes"]:
        return ""
    ends = "".join(f' marker-{end}="url(#{name}-to)"' for end in ("start", "end") if edge[end])
    dotted = ' class="dotted" stroke-dasharray="2 4"' * ("edge-pattern-dotted" in edge["classes"])
    thick = ' class="thick"' * ("edge-thickness-thick" in edge["classes"])
    return f'<path{dotted}{thick} d="{edge["d"].replace(".0", "")}"{ends}/>'


def _label(label: dict) -> str:
    """Words on an edge, on a ground of paper that interrupts the line."""
    (x, y), width = label["at"], round(label["width"] * SMALL / MEASURED + 6, 1)
    height = STEP * len(label["rows"]) + 2
    return (
        f'<g class="label"><rect x="{_n(x - width / 2)}" y="{_n(y - height / 2)}" '
        f'width="{_n(width)}" height="{_n(height)}"/>{_text(label["rows"], x, y, SMALL)}</g>'
    )


def _node(node: dict, links: dict[str, str]) -> str:
    shape = node["shape"]
    if shape["tag"] == "polygon":
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in shape["points"])
        drawn = f'<polygon points="{points}"/>'
    elif shape["tag"] == "circle":
        drawn = f'<circle r="{_n(shape["r"])}"/>'
    else:
        x, y, width, height = shape["box"]
        drawn = (
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" '
            f'rx="{_n(shape["rx"] or 3)}"/>'
        )
    x, y = node["at"]
    body = (
        f'<g class="{_classes("node", node["classes"])}" transform="translate({_n(x)} {_n(y)})">'
        f"{drawn}{_text(node['rows'])}</g>"
    )
    return _link(body, links.get(node["name"]))


# ---------------------------------------------------------------- putting them in their place


def formatter(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A custom fence of pymdownx.superfences: the recorded SVG, inline, in a box of its own."""
    path = ROOT / FOLDER / f"{identifier(source)}.svg"
    first = (source.strip().splitlines() or ["an empty fence"])[0]
    for key in ("accTitle", "accDescr"):
        if not words(source, key):
            log.warning("%s: the diagram has no %s: add a line `%s: …`", _where(source), key, key)
    if not path.is_file():
        log.warning(
            "%s: the diagram was never drawn: run `python -m snippets record`", _where(source)
        )
        return f'<div class="{css_class}"><p>{escape(first)} …</p></div>'
    return f'<div class="{css_class}">\n{path.read_text(encoding="utf-8")}</div>'


def _where(source: str) -> str:
    """File and line of a fence that the build could not draw: it only hears the source."""
    name = identifier(source)
    for fence in fences():
        if identifier(fence.source) == name:
            return "{}:{}".format(*fence.place())
    return json.dumps(source.strip().partition("\n")[0])
