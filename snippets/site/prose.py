"""What of a page is prose: the lines outside fences and front matter, and its headings."""

import re

from snippets.site.numbers import CODE_SPAN
from snippets.site.page import SECTIONS, Page


def prose(page: Page) -> list[tuple[int, str]]:
    """(line number, text) of every line outside fences and front matter."""
    skip: set[int] = set()
    for fence in page.fences:
        skip |= set(range(fence.line, fence.line + len(fence.raw) + 2))
    lines = page.text.splitlines()
    if lines and lines[0].strip() == "---":
        skip |= set(range(1, lines.index("---", 1) + 2 if "---" in lines[1:] else 2))
    return [(n, text) for n, text in enumerate(lines, 1) if n not in skip]


def headings(page: Page) -> list[tuple[int, int, str]]:
    """(line, level, title) of each heading."""
    found = []
    for number, text in prose(page):
        if match := re.match(r"^(#{1,6})\s+(.*?)\s*(?:\{.*\})?\s*#*$", text):
            found.append((number, len(match[1]), match[2]))
    return found


def is_lesson(page: Page) -> bool:
    """A page with the full anatomy: it lives in a section, is no index and has a program."""
    section, _, stem = page.key.partition("/")
    return section in SECTIONS and stem != "index" and bool(page.blocks)


def without_code(text: str) -> str:
    return CODE_SPAN.sub("", text)
