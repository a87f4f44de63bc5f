"""A page as plain Markdown, for readers that are programs: quotes and numbers filled in."""

import html
import re

from snippets.site.numbers import fill
from snippets.site.page import IMAGE_ROLE, Page
from snippets.site.quotes import QUOTE, Line, QuoteError, expand

ROW = re.compile(r"<div><dt>(?P<name>.*?)</dt><dd>(?P<value>.*?)</dd></div>")
CAPTION = re.compile(r"^///.*$")
ATTRIBUTES = re.compile(r"\{ ?[#.:][^}\n]*\}")


def to_markdown(page: Page) -> str:
    """The page without front matter, comments and markup; a figure is its text alternative."""
    lines = page.text.splitlines()
    if lines and lines[0].strip() == "---" and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    written: list[str] = []
    for text, code in _plain(lines, page):
        # One empty line between parts of prose; code keeps its own.
        if code or text or (written and written[-1]):
            written.append(text)
    return "\n".join(written).strip("\n") + "\n"


def _plain(lines: list[str], page: Page):
    """(line, is it code) for each line that stays."""
    fence = ""
    for text in lines:
        bare = text.strip()
        if fence:
            # Inside a fence only quotes change, and each keeps its indentation.
            yield from ((line, True) for line in _quoted(text, page))
            fence = "" if bare == fence else fence
        elif marks := re.match(r"^(`{3,})", bare):
            fence = marks[1]
            yield text, True
        elif match := IMAGE_ROLE.search(text):
            said = fill(html.unescape(match["alt"]), page.root, failed=lambda match, why: None)
            yield f"[Figure: {said}]", False
        elif QUOTE.match(text):
            if not bare.endswith((".svg'", '.svg"')):
                yield from _plain(_quoted(text, page), page)
        else:
            yield from ((line, False) for line in _prose(text, page))


def _quoted(text: str, page: Page) -> list[str]:
    try:
        return [line.text for line in expand(Line(text, page.file, 0), page.root)]
    except QuoteError:
        return [text]


def _prose(text: str, page: Page):
    if row := ROW.search(text):
        yield f"- {row['name']}: {html.unescape(re.sub('<[^>]*>', '', row['value']))}"
        return
    if CAPTION.match(text.strip()) or text.strip().startswith("<!--"):
        return
    text = fill(text, page.root, failed=lambda match, why: None)
    # Tags begin with a letter: `p(x_t | x_<t)` in a formula does not.
    left = ATTRIBUTES.sub("", re.sub(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>", "", text))
    if left.strip() or not text.strip():
        yield left.rstrip()
