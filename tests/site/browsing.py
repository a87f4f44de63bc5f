"""What the browser tests share: the site's pages, fresh readers, and the checks of one visit."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page

from snippets.site import ROOT
from snippets.site.gates import SCHEMES, WIDTHS

__all__ = ["SCHEMES", "WIDTHS"]
HERE = Path(__file__).parent
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# Of axe's best practices, those that a reader with a screen reader notices on a page like ours.
PRACTICE = [
    "empty-heading",
    "heading-order",
    "image-redundant-alt",
    "landmark-main-is-top-level",
    "landmark-no-duplicate-banner",
    "landmark-no-duplicate-contentinfo",
    "landmark-no-duplicate-main",
    "landmark-one-main",
    "landmark-unique",
    "page-has-heading-one",
    "scope-attr-valid",
    "skip-link",
    "tabindex",
]
# What axe cannot decide, and why that is no violation: (rule, its message key, place) -> reason.
UNDECIDED = {
    (
        "color-contrast",
        "bgOverlap",
        "diagram",
    ): "boxes lie under the words; `diagrams()` looks there",
    ("color-contrast", "bgOverlap", "behind what is open"): "tested with the same page closed",
    ("color-contrast", "elmPartiallyObscured", "formula"): "cut by its scrolling box; `formulas()`",
    ("color-contrast", "shortTextContent", "formula"): "one letter; `formulas()` compares colours",
    ("color-contrast", "nonBmp", "formula"): "signs without letters; `formulas()` compares colours",
}
SHIFT = 0.01


@dataclass(frozen=True)
class Entry:
    """One page of nav: its title there, its source below docs/, its address below the root."""

    title: str
    source: str

    @property
    def address(self) -> str:
        return re.sub(r"\.\w+$", ".html", self.source)

    @property
    def key(self) -> str:
        return self.source.rpartition(".")[0]

    @property
    def is_lesson(self) -> bool:
        return all(
            (ROOT / part).is_file() for part in (f"snippets/{self.key}.py", f"docs/{self.source}")
        )


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml; its !ENV and !!python tags are of no interest here."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


@lru_cache
def entries() -> tuple[Entry, ...]:
    """The pages of nav, in its order."""
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Loader)

    def walk(items, title) -> Iterator[Entry]:
        for item in items:
            for name, value in item.items() if isinstance(item, dict) else [(title, item)]:
                yield from walk(value, name) if isinstance(value, list) else [Entry(name, value)]

    return tuple(walk(config["nav"], ""))


def lessons() -> list[Entry]:
    return [entry for entry in entries() if entry.is_lesson]


@dataclass
class Log:
    """What goes wrong while a page is open, in plain lines."""

    home: str
    lines: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> "Log":
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.lines.append(f"page error: {error}"))
        page.on("request", self._request)
        page.on("requestfailed", self._failed)
        page.on("response", lambda r: r.status >= 400 and self.lines.append(f"{r.status}: {r.url}"))
        return self

    def _console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.lines.append(f"console {message.type}: {message.text}")

    def _request(self, request) -> None:
        if not request.url.startswith((self.home, "data:", "blob:")):
            self.lines.append(f"request to another host: {request.url}")

    def _failed(self, request) -> None:
        # What a reload breaks off is asked for again; what is not there answers 404.
        if request.failure != "net::ERR_ABORTED":
            self.lines.append(f"request fails: {request.url} {request.failure}")

    def take(self) -> list[str]:
        """The lines since the last call."""
        taken, self.lines[:] = list(self.lines), []
        return taken


@contextlib.contextmanager
def reader(
    browser: Browser, home: str, *, scheme: str = "light", width: int = 1440, **options
) -> Iterator[tuple[Page, Log]]:
    """A reader who has never been here: fresh storage, no way to any other host."""
    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
        reduced_motion="reduce",
        # Nobody listens there. Blocking by interception would also switch off the cache.
        proxy={"server": "http://127.0.0.1:9", "bypass": "127.0.0.1"},
        **options,
    )
    context.set_default_timeout(10_000)
    try:
        page = context.new_page()
        yield page, Log(home).listen(page)
    finally:
        context.close()


def settle(page: Page) -> None:
    """Wait for fonts and two frames: what is measured next will not move any more."""
    page.evaluate(
        "document.fonts.ready.then(() => new Promise(done =>"
        " requestAnimationFrame(() => requestAnimationFrame(() => done()))))"
    )


@lru_cache
def _script(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def checks(page: Page):
    """The checks of browsing.js, alive in the page."""
    return page.evaluate_handle(_script("browsing.js"))


def check_looks(page: Page) -> list[str]:
    """Everything but axe: overflow, shifts, fonts, and contrast of plots, formulas and code."""
    looks = """async (c, limit) => [c.overflow(), await c.shifts(limit), c.fonts(), c.plots(),
        await c.pictures(), c.diagrams(), c.formulas(), c.code(), c.scrollers()].flat()"""
    lines = checks(page).evaluate(looks, SHIFT)
    if any(line.startswith("layout shift") for line in lines):
        # On a busy machine the first visit may lose the race for a font; the second has it at hand.
        page.reload()
        settle(page)
        lines = checks(page).evaluate(looks, SHIFT)
    return lines


def check_axe(page: Page) -> tuple[list[str], Counter]:
    """(lines, violations by rule) of axe on the page as it stands; the last check of a visit."""
    page.evaluate(_script("vendor/axe.min.js") + ";0")
    results = checks(page).evaluate("(c, given) => c.axe(...given)", [WCAG, PRACTICE])
    lines = [f"axe {rule}: {target}: {why}" for rule, target, why, *_ in results[0]]
    lines += [
        f"axe cannot decide {rule} ({key}, {where}): {target}: {why}"
        for rule, target, why, key, where in results[1]
        if (rule, key, where) not in UNDECIDED
    ]
    return lines, Counter(rule for rule, *_ in results[0])


def told(what: str, problems: dict[str, list[str]]) -> None:
    """Fail, if anything is wrong, with readable lines; what several visits share is said once."""
    where: dict[str, list[str]] = {}
    for visit, lines in problems.items():
        for line in dict.fromkeys(lines):
            where.setdefault(line, []).append(visit)
    if where:
        lines = [f"[{', '.join(visits)}] {line}" for line, visits in where.items()]
        if len(lines) > 40:
            lines[40:] = [f"… and {len(lines) - 40} more"]
        pytest.fail("\n  ".join([what, *lines]), pytrace=False)
