"""Mermaid fences become SVG when a page is recorded; the build only puts that SVG in its place.

A reader never downloads Mermaid: an SVG is a few kilobytes, its colours follow the page's scheme,
and its links work without JavaScript.
"""

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

from snippets.site import ROOT
from snippets.site.page import page_files, read_page
from snippets.site.problems import PageError, Problem

VENDOR = Path(__file__).parent / "vendor" / "mermaid.min.js"
FOLDER = "docs/outputs/diagrams"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    "startOnLoad": False,
    "securityLevel": "loose",
    "theme": "base",
    "deterministicIds": True,
    "htmlLabels": False,
    "fontFamily": "diagram, sans-serif",
    "fontSize": 15,
    "flowchart": {
        "htmlLabels": False,
        "useMaxWidth": False,
        "nodeSpacing": 26,
        "rankSpacing": 34,
        "padding": 9,
        "curve": "basis",
    },
}
# MkDocs counts warnings of its own loggers, so a strict build stops on a missing diagram.
log = logging.getLogger("mkdocs.diagrams")


def normal(source: str) -> str:
    """The source without trailing blanks and empty ends, so that indentation is no difference."""
    return "\n".join(line.rstrip() for line in source.strip("\n").splitlines()).strip() + "\n"


def identifier(source: str) -> str:
    """The name of a diagram's SVG: it changes with the source."""
    return "d" + hashlib.sha256(normal(source).encode()).hexdigest()[:15]


def fences(root: Path = ROOT) -> list[tuple[str, int, str]]:
    """(page file, line, source) of every Mermaid fence, its quotes expanded."""
    found = []
    for path in page_files(root):
        page = read_page(path, root)
        for fence in page.fences:
            if fence.info == "mermaid" and fence.lines:
                found.append(
                    (page.file, fence.line, normal("\n".join(n.text for n in fence.lines)))
                )
    for path in sorted((root / "docs" / "outputs").rglob("card.txt")):
        # A card carries its own small diagram; the page that quotes it is beside it.
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"```mermaid\n(.*?)```", text, re.S):
            line = text[: match.start()].count("\n") + 1
            found.append((path.relative_to(root).as_posix(), line, normal(match[1])))
    return found


def missing(root: Path = ROOT) -> list[tuple[str, int, str]]:
    """The fences that have no SVG yet."""
    return [f for f in fences(root) if not (root / FOLDER / f"{identifier(f[2])}.svg").is_file()]


def stale(root: Path = ROOT) -> list[Path]:
    """The SVGs that no fence uses any more."""
    used = {identifier(source) for _, _, source in fences(root)}
    return [p for p in sorted((root / FOLDER).glob("*.svg")) if p.stem not in used]


def chromium() -> str | None:
    """Path of the system's Chromium, or of $CHROMIUM."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def render(wanted: list[tuple[str, int, str]]) -> dict[str, str]:
    """Identifier → SVG. PageError names the page and line of a fence that does not parse."""
    from playwright.sync_api import sync_playwright

    if chromium() is None:
        file, line, _ = wanted[0]
        raise PageError(
            Problem(
                file,
                line,
                "a new diagram needs Chromium to be drawn",
                "install Chromium, or set CHROMIUM to its path",
            )
        )
    drawn = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        tab = browser.new_page()
        tab.set_content(_sheet())
        tab.add_script_tag(path=str(VENDOR))
        tab.evaluate("document.fonts.load('15px diagram')")
        for file, line, source in wanted:
            name = identifier(source)
            answer = tab.evaluate(DRAW, [SETTINGS, name, source])
            if "error" in answer:
                said = " ".join(answer["error"].split())
                at = re.search(r"on line (\d+)", said)
                raise PageError(
                    Problem(
                        file,
                        line + int(at[1]) if at else line,
                        f"Mermaid does not understand the diagram: {said[:200]}",
                        "correct the line before the mark",
                    )
                )
            drawn[name] = tidy(answer["svg"])
        browser.close()
    return drawn


DRAW = """async ([settings, name, source]) => {
  mermaid.initialize(settings);
  try { return { svg: (await mermaid.render(name, source)).svg }; }
  catch (error) { return { error: String(error.message || error) }; }
}"""


def _sheet() -> str:
    """A blank page with the site's own font, so that boxes fit the text they will hold."""
    import base64

    font = ROOT / "docs" / "assets" / "fonts" / "stix-two-text.woff2"
    face = ""
    if font.is_file():
        data = base64.b64encode(font.read_bytes()).decode()
        face = f"@font-face{{font-family:diagram;src:url(data:font/woff2;base64,{data})}}"
    return f"<style>{face}</style><body></body>"


def tidy(svg: str) -> str:
    """Mermaid's SVG with the site's classes in place of its style sheet, and nothing unused."""
    svg = re.sub(r"<style>.*?</style>", "", svg, flags=re.S)
    svg = re.sub(
        r"<defs><filter.*?</defs>|<linearGradient.*?</linearGradient>", "", svg, flags=re.S
    )
    svg = re.sub(r'<path[^>]*class="[^"]*edge-thickness-invisible[^"]*"[^>]*></path>', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(
        r'<rect class="background"[^>]*style="stroke: none"[^>]*></rect>|<rect></rect>', "", svg
    )
    svg = re.sub(
        r'\s(?:data-[\w-]+|aria-roledescription|font-style|font-weight|title)="[^"]*"', "", svg
    )
    svg = re.sub(r'\s(?:style|fill|stroke|stroke-width|stroke-dasharray)="[^"]*"', "", svg)
    svg = re.sub(r'(<tspan class="text-inner-tspan">)([^<]*)</tspan>', r"\2", svg)
    svg = re.sub(r' class="text-outer-tspan row"', "", svg)
    used = set(re.findall(r"url\(#([^)]+)\)|(?:labelledby|describedby)=\"([^\"]+)\"", svg))
    names = {name for pair in used for name in pair if name}
    svg = re.sub(
        r'<marker id="([^"]+)".*?</marker>',
        lambda m: m[0] if m[1] in names else "",
        svg,
        flags=re.S,
    )
    svg = re.sub(r'\sid="([^"]+)"', lambda m: m[0] if m[1] in names else "", svg)
    svg = re.sub(r"-?\d+\.\d{2,}", lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), svg)
    # Mermaid takes one class a node; the taxonomy joins two, as in generative_planned.
    svg = re.sub(r"\b(discriminative|generative|both)_(planned|here)\b", r"\1 \2", svg)
    svg = re.sub(
        r'class="([^"]*)"', lambda m: f'class="{" ".join(dict.fromkeys(m[1].split()))}"', svg
    )
    svg = re.sub(r'role="graphics-document document"', 'role="group"', svg)
    # It may shrink a little to fit; beyond that its box scrolls, so that the text stays legible.
    svg = re.sub(
        r'<svg width="([\d.]+)"([^>]*?) height="[\d.]+"',
        lambda m: (
            f'<svg width="{float(m[1]):.0f}"{m[2]} style="min-width:'
            f'{min(float(m[1]), max(300, 0.72 * float(m[1]))):.0f}px"'
        ),
        svg,
        count=1,
    )
    while svg != (svg := re.sub(r"<g></g>", "", svg)):
        pass
    return re.sub(r"></(path|rect|circle|polygon|line)>", "/>", svg).strip() + "\n"


def formatter(source, language, css_class, options, md, **kwargs) -> str:
    """A custom fence of pymdownx.superfences: the recorded SVG, inline, in a `div`."""
    name = identifier(source)
    path = ROOT / FOLDER / f"{name}.svg"
    for key in ("accTitle", "accDescr"):
        if not re.search(rf"^\s*{key}\s*[:{{]", source, re.M):
            log.warning("a Mermaid diagram has no %s: add the line `%s: …`", key, key)
    if not path.is_file():
        first = source.strip().splitlines()[0] if source.strip() else "nothing"
        log.warning("the diagram %r was never drawn: run `python -m snippets record`", first)
        return '<div class="diagram"></div>'
    return f'<div class="{css_class}">{path.read_text(encoding="utf-8").strip()}</div>'
