"""Read a page: its blocks, what each prints, draws and measures, and where every line is from."""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path

from snippets.site import ROOT
from snippets.site.problems import PageError, Problem
from snippets.site.quotes import QUOTE, Line, QuoteError, SectionError, expand, split_target

FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})(?P<info>.*)$")
METRICS = re.compile(r"^\s*<!--\s*metrics:\s*(?P<names>.*?)\s*-->\s*$")
TOLERANCE = re.compile(
    r"^\s*<!--\s*tolerance:\s*(?P<percent>\d+(?:\.\d+)?)\s*%\s*because\s+(?P<why>\S.*?)\s*-->\s*$"
)
EXPECTED = "<!--pytest-codeblocks:expected-output-->"
IMAGE_ROLE = re.compile(r'<div\s+role="img"\s+aria-label="(?P<alt>[^"]*)"\s*>')
SECTIONS = (
    "discriminative",
    "generative",
    "language_models",
    "foundation_models",
    "self_supervised",
    "domains",
    "choosing",
    "practice",
)


@dataclass
class Fence:
    """A fenced block as written: `info` follows the backticks, `lines` are its expanded text."""

    info: str
    line: int
    indent: str
    marks: str
    raw: list[Line]
    lines: list[Line]
    closed: bool


@dataclass
class Figure:
    """A recorded figure that the page quotes, and its text alternative."""

    path: str
    line: int
    alternative: str


@dataclass
class Block:
    """One Python block and what follows it: its output, figures, metrics and tolerance."""

    index: int
    line: int
    lines: list[Line]
    output: str | None = None
    output_line: int = 0
    figures: list[Figure] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    tolerance: float = 0.05
    reason: str = ""

    @property
    def code(self) -> str:
        return "\n".join(line.text for line in self.lines) + "\n"


@dataclass
class Page:
    """A page as a program. `key` is "section/page", `file` is relative to `root`."""

    key: str
    file: str
    root: Path
    text: str
    fences: list[Fence] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def outputs(self) -> Path:
        return self.root / "docs" / "outputs" / self.key

    @property
    def module(self) -> Path:
        return self.root / "snippets" / f"{self.key}.py"

    @property
    def test(self) -> Path:
        section, _, stem = self.key.rpartition("/")
        return self.root / "tests" / section / f"test_{stem}.py"

    @property
    def title(self) -> str:
        match = re.search(r"^# (.+)$", self.text, re.M)
        return match[1].strip() if match else self.key


def page_files(root: Path = ROOT) -> list[Path]:
    """Every Markdown page of the site, in a stable order."""
    docs = root / "docs"
    return sorted(p for p in docs.rglob("*.md") if "outputs" not in p.relative_to(docs).parts)


def nav_pages(root: Path = ROOT) -> dict[str, int] | None:
    """Each page listed under `nav` in mkdocs.yml → its line; None when there is no nav."""
    lines = (root / "mkdocs.yml").read_text(encoding="utf-8").splitlines()
    start = next((n for n, line in enumerate(lines, 1) if line.startswith("nav:")), None)
    if start is None:
        return None
    listed = {}
    for number, line in enumerate(lines[start:], start + 1):
        if line and not line.startswith((" ", "#")):
            break
        if match := re.match(r"^\s*-\s+(?:[^#]*:\s+)?([\w/.-]+\.(?:md|py))\s*$", line):
            listed[match[1]] = number
    return listed


def page_key(path: Path, root: Path = ROOT) -> str:
    return path.relative_to(root / "docs").with_suffix("").as_posix()


def find_page(name: str, root: Path = ROOT) -> Page:
    """The page called "section/page" (or by its file's path); a misspelt name gets the nearest."""
    name = name.removeprefix("./").removeprefix("docs/").removesuffix(".md").strip("/")
    keys = [page_key(p, root) for p in page_files(root)]
    if name in keys:
        return read_page(root / "docs" / f"{name}.md", root)
    same_stem = [k for k in keys if k.rpartition("/")[2] == name]
    if len(same_stem) == 1:
        return read_page(root / "docs" / f"{same_stem[0]}.md", root)
    stems = {k.rpartition("/")[2]: k for k in keys}
    near = difflib.get_close_matches(name, keys, 3, 0.5) or [
        stems[s] for s in difflib.get_close_matches(name.rpartition("/")[2], stems, 3, 0.5)
    ]
    mend = f"did you mean {', '.join(near)}?" if near else "`python -m snippets list` shows all"
    raise PageError(Problem(f"docs/{name}.md", 0, "no such page", mend))


def read_page(path: Path, root: Path = ROOT) -> Page:
    """Parse one page. What is wrong with it is collected in `problems`, never raised."""
    text = path.read_text(encoding="utf-8")
    page = Page(page_key(path, root), path.relative_to(root).as_posix(), root, text)
    lines = text.splitlines()
    number, expecting, alternative = 0, 0, ""
    while number < len(lines):
        number += 1
        line = lines[number - 1]
        if fence := FENCE.match(line):
            block, number = _read_fence(page, lines, number, fence)
            page.fences.append(block)
            if block.info == "python" and block.marks.startswith("`"):
                page.blocks.append(Block(len(page.blocks), block.line, block.lines))
                expecting = 0
            elif expecting:
                _attach_output(page, block, expecting)
                expecting = 0
            continue
        if role := IMAGE_ROLE.search(line):
            alternative = role["alt"]
        elif "</div>" in line:
            alternative = ""
        if line.strip() == EXPECTED:
            expecting = number
        elif quote := QUOTE.match(line):
            _attach_figure(page, Line(line, page.file, number), quote["target"], alternative)
        elif line.lstrip().startswith("<!--"):
            _attach_comment(page, line, number)
    if expecting:
        _complain(
            page,
            expecting,
            "an expected output is announced but no fence follows",
            "add a ```text fence that quotes the recorded file",
        )
    return page


def _complain(page: Page, line: int, message: str, mend: str, file: str | None = None) -> None:
    page.problems.append(Problem(file or page.file, line, message, mend))


def _expand(page: Page, line: Line) -> list[Line]:
    try:
        return expand(line, page.root)
    except SectionError as error:
        file, _ = split_target(QUOTE.match(line.text)["target"])
        _complain(
            page, error.line, f"{error} (quoted by {page.file}:{line.number})", error.mend, file
        )
    except QuoteError as error:
        _complain(page, line.number, str(error), error.mend)
    return []


def _read_fence(page: Page, lines: list[str], number: int, match: re.Match) -> tuple[Fence, int]:
    """Read from the opening line to the closing one; returns the fence and its last line."""
    start, indent, marks = number, match["indent"], match["marks"]
    raw: list[Line] = []
    expanded: list[Line] = []
    while number < len(lines):
        number += 1
        text = lines[number - 1]
        stripped = text.strip()
        if stripped.startswith(marks) and not stripped.strip(marks[0]):
            return Fence(match["info"].rstrip(), start, indent, marks, raw, expanded, True), number
        if text.startswith(indent):
            text = text[len(indent) :]
        line = Line(text, page.file, number)
        raw.append(line)
        # A quote of a quote ("; --8<--") is text about quotes, not a quote.
        expanded += _expand(page, line)
    _complain(page, start, "the fence is never closed", f"add a line of {marks} after the block")
    return Fence(match["info"].rstrip(), start, indent, marks, raw, expanded, False), number


def _attach_output(page: Page, fence: Fence, comment_line: int) -> None:
    targets = [m["target"] for line in fence.raw if (m := QUOTE.match(line.text))]
    if not page.blocks:
        _complain(
            page,
            comment_line,
            "an expected output comes before any Python block",
            "move it below the block that prints it",
        )
    elif fence.info != "text" or len(targets) != 1 or len(fence.raw) != 1:
        _complain(
            page,
            fence.line,
            "an expected output is a ```text fence with one quote in it",
            f'quote the recorded file: --8<-- "docs/outputs/{page.key}/NAME.txt"',
        )
    elif not targets[0].startswith(f"docs/outputs/{page.key}/"):
        _complain(
            page,
            fence.line,
            f"the output is quoted from {targets[0]}",
            f"a block's output lives in docs/outputs/{page.key}/",
        )
    elif page.blocks[-1].output:
        _complain(
            page,
            comment_line,
            "the block already has an output",
            "print everything at once, or split the block",
        )
    else:
        page.blocks[-1].output, page.blocks[-1].output_line = targets[0], fence.raw[0].number


def _attach_figure(page: Page, line: Line, target: str, alternative: str) -> None:
    if target.endswith(".svg") and target.startswith(f"docs/outputs/{page.key}/"):
        figure = Figure(target, line.number, alternative)
        if page.blocks:
            page.blocks[-1].figures.append(figure)
        else:
            _complain(
                page,
                line.number,
                f"{target} comes before any Python block",
                "move it below the block that draws it",
            )
    _expand(page, line)


def _attach_comment(page: Page, line: str, number: int) -> None:
    block = page.blocks[-1] if page.blocks else None
    if match := METRICS.match(line):
        names = [n for n in re.split(r"[,\s]+", match["names"]) if n]
        bad = [n for n in names if not n.isidentifier()]
        if block is None or bad or not names:
            _complain(
                page,
                number,
                f"metrics must name variables of a block above, got {bad}",
                "write <!-- metrics: accuracy, log_loss --> below the block that makes them",
            )
        else:
            block.metrics += names
    elif match := TOLERANCE.match(line):
        if block is None:
            _complain(
                page,
                number,
                "a tolerance comes before any Python block",
                "move it below the block whose output varies",
            )
        else:
            block.tolerance, block.reason = float(match["percent"]) / 100, match["why"]
    elif re.match(r"\s*<!--\s*(metrics?|tolerance)\b", line):
        _complain(
            page,
            number,
            "this comment is not understood",
            "write <!-- metrics: name --> or <!-- tolerance: 25 % because REASON -->",
        )
    elif "pytest" in line and line.strip() != EXPECTED:
        _complain(
            page,
            number,
            "no block may be skipped, marked or continued",
            f"remove the comment; the only one allowed is {EXPECTED}",
        )
