"""The rules on the built site: it builds without a warning, and its HTML keeps its promises."""

import gzip
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from snippets.site.page import Page, page_files, read_page
from snippets.site.problems import Problem
from snippets.site.rules import Problems

BLOCK_HTML = re.compile(r'<div class="language-python highlight">')
ELEMENT_ID = re.compile(r'\s(?:id|name)="([^"]+)"')
ADDRESS = re.compile(
    r'<(?P<tag>[a-z]+)\b[^>]*?\s(?P<kind>href|src|srcset|poster|data)="(?P<url>[^"]*)"'
)
PAGE_BYTES = 250_000
# The build's date when nobody sets one: tests compare builds to the byte.
EPOCH = "1700000000"
FONT_USES = {"math": r"<math\b", "italic": r"<(?:em|i|cite|var|dfn|address)\b"}
WARNING = re.compile(r"^(?:WARNING|ERROR)\s+-?\s*(.*)$", re.M)


def build(root: Path, target: Path, *, notebooks: bool = True) -> list[Problem]:
    """Strict build of `root` into `target`; every warning is a Problem."""
    environment = {
        **os.environ,
        "EXECUTE_NOTEBOOKS": str(notebooks).lower(),
        "NO_COLOR": "1",
        "NO_MKDOCS_2_WARNING": "1",
    }
    environment.setdefault("SOURCE_DATE_EPOCH", EPOCH)
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(root / "mkdocs.yml"),
        "-d",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    said = done.stdout + done.stderr
    warnings = [w for w in WARNING.findall(said) if "Aborted with" not in w]
    problems = [_from_warning(warning, root) for warning in warnings]
    if done.returncode and not problems:
        last = (said.strip().splitlines() or ["mkdocs said nothing"])[-1]
        problems = [
            Problem(
                "mkdocs.yml", 0, f"the build fails: {last}", "`make build` shows the whole message"
            )
        ]
    return problems


def _from_warning(warning: str, root: Path) -> Problem:
    """MkDocs names the page and the link; find the line that holds it."""
    match = re.search(r"(?:Doc )?file '([^']+\.md)' contains (?:a|an) .*?'([^']+)'", warning)
    if match:
        file, link = match[1], match[2]
        lines = (root / "docs" / file).read_text(encoding="utf-8").splitlines()
        line = next((n for n, text in enumerate(lines, 1) if link in text), 0)
        return Problem(
            f"docs/{file}",
            line,
            f"dead link or anchor {link}",
            "link to a page, heading or file that exists",
        )
    return Problem("mkdocs.yml", 0, warning.strip(), "`make build` shows where")


def check_build(root: Path) -> list[Problem]:
    """Build into a temporary folder without running notebooks, and check what came out."""
    with tempfile.TemporaryDirectory(prefix="site-") as folder:
        problems = build(root, Path(folder), notebooks=False)
        return problems or sorted(set(check_site(root, Path(folder))))


def check_site(root: Path, site: Path) -> Problems:
    """All rules on an already built site."""
    for path in page_files(root):
        page = read_page(path, root)
        built = site / path.relative_to(root / "docs").with_suffix(".html")
        if not built.is_file():
            yield Problem(page.file, 0, "the build made no page of it", "is it excluded?")
            continue
        text = built.read_text(encoding="utf-8")
        yield from _blocks_are_run(page, text)
        yield from _nothing_is_left_over(page, text)
        yield from _weighs_little(page, built, text, site)
    for built in sorted(site.rglob("*.html")):
        yield from _addresses_lead_somewhere(root, site, built)


def _blocks_are_run(page: Page, text: str) -> Problems:
    shown = len(BLOCK_HTML.findall(text))
    if shown != len(page.blocks):
        yield Problem(
            page.file,
            0,
            f"the built page shows {shown} Python blocks, CI runs {len(page.blocks)}",
            "write every block as a plain ```python fence",
        )


def _nothing_is_left_over(page: Page, text: str) -> Problems:
    body = re.sub(r"<(pre|code|script|style|svg)\b.*?</\1>", "", text, flags=re.S)
    for mark, what in (
        ("--8&lt;--", "a quote"),
        ("--8<--", "a quote"),
        ("///", "a caption mark"),
        ("```", "a fence"),
        ("{{", "a quoted number"),
        ("!!! ", "an admonition"),
        ("=== &quot;", "a tab"),
        ("[^", "a footnote"),
    ):
        if mark in re.sub(r"https?://\S+|//[\w.]+", "", body):
            yield Problem(
                page.file,
                _line_of(page, mark),
                f"{what} shows as plain text ({mark})",
                "check its spelling, indentation and the blank lines around it",
            )


def _line_of(page: Page, mark: str) -> int:
    mark = mark.replace("&lt;", "<").replace("&quot;", '"')
    lines = page.text.splitlines()
    return next((n for n, line in enumerate(lines, 1) if mark in line), 0)


def _addresses_lead_somewhere(root: Path, site: Path, built: Path) -> Problems:
    text = built.read_text(encoding="utf-8")
    source = built.relative_to(site).with_suffix(".md")
    file = (
        f"docs/{source.as_posix()}"
        if (root / "docs" / source).is_file()
        else str(built.relative_to(site))
    )
    for match in ADDRESS.finditer(re.sub(r"<!--.*?-->", "", text, flags=re.S)):
        url, tag, kind = match["url"], match["tag"], match["kind"]
        parts = urlsplit(url.replace("&amp;", "&"))
        if parts.scheme in ("http", "https") or url.startswith("//"):
            # Links out are for the reader to follow; what the page loads by itself must be here.
            if tag not in ("a", "link") or (tag == "link" and "stylesheet" in match[0]):
                yield Problem(file, 0, f"the page loads {url}", "keep a copy in docs/assets")
            continue
        if parts.scheme or (kind == "data" and tag != "object"):
            continue
        yield from _local(root, site, built, file, parts)


def _local(root: Path, site: Path, built: Path, file: str, parts) -> Problems:
    path = unquote(parts.path)
    target = (
        built
        if not path
        else (site / path.lstrip("/") if path.startswith("/") else (built.parent / path)).resolve()
    )
    if target.is_dir():
        target = target / "index.html"
    shown = path or f"#{parts.fragment}"
    if not target.is_file():
        yield Problem(
            file, _line_with(root, file, path), f"dead link {shown}", "link to a file that exists"
        )
    elif parts.fragment and target.suffix == ".html":
        name = unquote(parts.fragment)
        if not name.startswith("__") and name not in _ids(str(target), target.stat().st_mtime_ns):
            yield Problem(
                file,
                _line_with(root, file, name),
                f"dead anchor {path}#{name}",
                "link to a heading or id that exists",
            )


def _line_with(root: Path, file: str, needle: str) -> int:
    path = root / file
    if not path.is_file() or not needle:
        return 0
    needle = needle.replace(".html", "")
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((n for n, line in enumerate(lines, 1) if needle in line), 0)


@cache
def _ids(path: str, changed: int) -> frozenset[str]:
    return frozenset(ELEMENT_ID.findall(Path(path).read_text(encoding="utf-8")))


def _weighs_little(page: Page, built: Path, text: str, site: Path) -> Problems:
    size = transfer(built, site)
    if size > PAGE_BYTES:
        yield Problem(
            page.file,
            0,
            f"the page weighs {size:,} bytes gzipped, all in; the budget is {PAGE_BYTES:,}",
            "shrink its figures",
        )


def transfer(built: Path, site: Path) -> int:
    """Gzipped bytes that opening a page fetches: itself, its styles, scripts, images and fonts."""
    text = built.read_text(encoding="utf-8")
    files = {built}
    for match in ADDRESS.finditer(text):
        url = urlsplit(match["url"]).path
        loads = match["tag"] in ("script", "img", "source") or (
            match["tag"] == "link" and re.search(r'rel="(stylesheet|icon|preload)"', match[0])
        )
        if url and loads and "//" not in match["url"]:
            files.add((built.parent / unquote(url)).resolve())
    for style in [f for f in files if f.suffix == ".css"]:
        css = style.read_text(encoding="utf-8")
        # A browser fetches a font when a letter asks for it.
        idle = [name for name, use in FONT_USES.items() if not re.search(use, text)]
        for url in re.findall(r"url\(\"?([^)\"]+\.woff2)\"?\)", css):
            if not any(name in url.lower() for name in idle):
                files.add((style.parent / url).resolve())
    return sum(_gzipped(str(f), f.stat().st_mtime_ns) for f in files if f.is_file())


@cache
def _gzipped(path: str, changed: int) -> int:
    data = Path(path).read_bytes()
    return len(data) if path.endswith((".woff2", ".png", ".webp")) else len(gzip.compress(data, 9))
