"""The rules on Markdown that builds without a warning and yet shows something else."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from snippets.site.code_rules import left_behind
from snippets.site.exported import address
from snippets.site.page import Page
from snippets.site.problems import Problem
from snippets.site.prose import prose, without_code

Problems = Iterator[Problem]
ITEM = re.compile(r"^\s*([-*+]|\d{1,2}[.)])\s+\S")
ADDRESS = re.compile(
    r"""\]\(\s*<?(?P<markdown>[^\s)>]+)|^\s*\[[^\]^]+\]:\s+(?P<defined>\S+)|\s(?:href|src)="(?P<html>[^"]+)\""""
)
# What a target may be, so that its file must lie in docs/; the build makes the others.
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".gif")
FILES = (".md", ".html", ".ipynb", ".onnx", ".json", *IMAGES)
# Words that say nothing where a screen reader lists a page's links.
EMPTY_WORDS = ("here", "click here", "this", "link", "this link", "this page", "read more", "more")


def nothing_is_left_on_a_page(page: Page) -> Problems:
    """No note to oneself, merge conflict or tab character, in a fence or outside."""
    for number, text in enumerate(page.text.splitlines(), 1):
        yield from left_behind(page.file, number, text)


def links_lead_to_files(page: Page) -> Problems:
    """A link or image names a file of docs/; anchors are looked up in the built pages."""
    for number, line in prose(page):
        text = without_code(line)
        for match in ADDRESS.finditer(text):
            url = match["markdown"] or match["defined"] or match["html"]
            if "{{" not in url and not _exists(page, url, built=bool(match["html"])):
                yield Problem(
                    page.file,
                    number,
                    f"dead link {url}",
                    "link to a page or file that exists",
                )
        for url in re.findall(r"!\[[^\]]*\]\(\s*((?:https?:)?//[^\s)]+)", text):
            yield Problem(
                page.file,
                number,
                f"the image {url} is loaded from another host",
                "keep a copy in docs/",
            )
        for words in re.findall(r"(?<!!)\[([^\]\[]+)\](?=\(|\[)", text):
            if words.strip().lower() in EMPTY_WORDS:
                yield Problem(
                    page.file,
                    number,
                    f"the link is called {words!r}",
                    "name what it leads to: many readers hear the links alone",
                )


def _exists(page: Page, url: str, *, built: bool) -> bool:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.scheme or parts.netloc or not parts.path or path.suffix not in FILES:
        return True
    if url in (address(page, path.stem), address(page, path.name)):
        return True  # `exports_are_linked` knows what this page has exported
    target = (page.root / page.file).parent / path
    if built and path.suffix == ".html":
        return any(target.with_suffix(suffix).is_file() for suffix in (".html", ".md", ".py"))
    # A notebook of docs/notebooks is a Python file; the build makes its page.
    return target.is_file() or (path.suffix == ".ipynb" and target.with_suffix(".py").is_file())


def lists_have_a_line_above(page: Page) -> Problems:
    """Python-Markdown wants an empty line before a list; without it, it is one paragraph."""
    previous, inside = (0, ""), False
    for number, text in prose(page):
        begins = number != previous[0] + 1 or not previous[1].strip()
        if begins:
            inside = False
        if ITEM.match(text):
            plain = not re.match(r"^\s*(#|<|///|!!!|\?\?\?|===|\||>|\*\[|\[\^?)", previous[1])
            if not begins and not inside and plain:
                yield Problem(
                    page.file,
                    number,
                    "the list would be part of the paragraph above",
                    "put an empty line before it",
                )
            inside = True
        previous = number, text


def tables_are_even(page: Page) -> Problems:
    """A cell too many is dropped in silence; a bar in a formula makes one."""
    rows: list[tuple[int, int]] = []
    for number, text in [*prose(page), (0, "")]:
        if text.lstrip().startswith("|"):
            bare = re.sub(r"\\\||`[^`]*`", "", text.strip()).removeprefix("|")
            rows.append((number, bare.rstrip().removesuffix("|").count("|") + 1))
            continue
        for _, (line, cells) in pairwise(rows):
            if cells != rows[0][1]:
                yield Problem(
                    page.file,
                    line,
                    f"the row has {cells} cells, its table's head {rows[0][1]}",
                    "add or remove a cell; write \\mid for a bar in a formula",
                )
        rows = []


def elements_are_closed(page: Page) -> Problems:
    """Each <div> has its </div>: an open one swallows the rest of the page."""
    opened: list[int] = []
    for number, line in prose(page):
        for tag in re.findall(r"<div\b|</div>", without_code(line)):
            if tag == "<div":
                opened.append(number)
            elif opened:
                opened.pop()
            else:
                yield Problem(page.file, number, "</div> closes nothing", "remove it")
    for number in opened:
        yield Problem(page.file, number, "this <div> is never closed", "add </div> below")


def footnotes_are_used(page: Page) -> Problems:
    """A footnote that nothing refers to is not shown, or not missed."""
    lines = [(number, without_code(line)) for number, line in prose(page)]
    used = {name for _, line in lines for name in re.findall(r"\[\^([^\]]+)\](?!:)", line)}
    for number, line in lines:
        if (match := re.match(r"\s*\[\^([^\]]+)\]:", line)) and match[1] not in used:
            yield Problem(
                page.file,
                number,
                f"nothing refers to the footnote [^{match[1]}]",
                "refer to it, or remove it",
            )


MARKDOWN_RULES = (
    nothing_is_left_on_a_page,
    links_lead_to_files,
    lists_have_a_line_above,
    tables_are_even,
    elements_are_closed,
    footnotes_are_used,
)
