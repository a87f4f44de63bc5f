"""Expand `--8<--` quotes with the site's own preprocessor, and remember where each line is from.

The text of a quote comes from `pymdownx.snippets`, exactly as in the build. This module only adds
the origin of each line, so that a failure is reported where its author can mend it.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import markdown
from pymdownx.snippets import SnippetExtension, SnippetMissingError, SnippetPreprocessor

QUOTE = re.compile(
    r'^(?P<indent>[ \t]*)-{1,}8<-{1,}[ \t]+(?P<mark>["\'])(?P<target>.+?)(?P=mark)\s*$'
)
MARKER = re.compile(r"--8<--\s*\[\s*(?P<kind>start|end)\s*:\s*(?P<name>[\w-]+)\s*\]", re.I)


@dataclass(frozen=True)
class Line:
    """One line of text and the file (relative to the root) and line that it came from."""

    text: str
    file: str
    number: int


class QuoteError(Exception):
    """A quote that cannot be expanded; `mend` says what to do about it."""

    def __init__(self, message: str, mend: str):
        super().__init__(message)
        self.mend = mend


@lru_cache
def _preprocessor(root: str) -> SnippetPreprocessor:
    extension = SnippetExtension(base_path=[root], check_paths=True)
    md = markdown.Markdown(extensions=[extension])
    return next(p for p in md.preprocessors if isinstance(p, SnippetPreprocessor))


def split_target(target: str) -> tuple[str, str | None]:
    """`"a/b.py:model"` → `("a/b.py", "model")`; a target without a section gives None."""
    path, _, section = target.partition(":")
    return path, section or None


def sections(path: Path) -> dict[str, tuple[int, int]]:
    """The named sections of a file: name → (line of its start marker, line of its end marker).

    An unclosed, reopened or duplicate section raises QuoteError that names the line.
    """
    found: dict[str, tuple[int, int]] = {}
    opened: dict[str, int] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        marker = MARKER.search(text)
        if not marker:
            continue
        name = marker["name"]
        if marker["kind"] == "start":
            if name in opened or name in found:
                first = opened.get(name) or found[name][0]
                raise SectionError(
                    f"section '{name}' begins twice (first on line {first})",
                    "give the second one another name",
                    number,
                )
            opened[name] = number
        elif name not in opened:
            raise SectionError(
                f"section '{name}' ends without a beginning",
                f"add `# --8<-- [start:{name}]` above it",
                number,
            )
        else:
            found[name] = (opened.pop(name), number)
    if opened:
        name, number = next(iter(opened.items()))
        raise SectionError(
            f"section '{name}' is never closed", f"add `# --8<-- [end:{name}]` after it", number
        )
    return found


class SectionError(QuoteError):
    """A broken section marker, on `line` of the quoted file."""

    def __init__(self, message: str, mend: str, line: int):
        super().__init__(message, mend)
        self.line = line


def expand(line: Line, root: Path) -> list[Line]:
    """The lines that stand in the page in place of a quote; any other line gives itself.

    Raises QuoteError when the file or the section is missing or a section marker is broken.
    """
    match = QUOTE.match(line.text)
    if not match:
        return [line]
    path, section = split_target(match["target"])
    file = root / path
    if not file.is_file():
        raise QuoteError(f"quotes a missing file, {path}", _mend_missing(path, root))
    if section and re.fullmatch(r"[-\d:,]+", section):
        raise QuoteError(
            f"quotes {path} by line number, which rots",
            "name a section: `# --8<-- [start:name]` … `# --8<-- [end:name]`",
        )
    try:
        text = _preprocessor(str(root)).run([line.text.strip()])
    except SnippetMissingError:
        names = ", ".join(sections(file)) or "none"
        raise QuoteError(
            f"quotes a missing section, {path}:{section}", f"sections there: {names}"
        ) from None
    numbers = _numbers(file, section, len(text))
    indent = match["indent"]
    return [Line(indent + t if t else t, path, n) for t, n in zip(text, numbers)]


def _numbers(file: Path, section: str | None, count: int) -> list[int]:
    """Line numbers of a quoted file or section; lines that hold markers are not quoted."""
    lines = file.read_text(encoding="utf-8").splitlines()
    first, last = (0, len(lines) + 1) if section is None else sections(file)[section]
    numbers = [
        n for n in range(first + 1, last) if n <= len(lines) and not MARKER.search(lines[n - 1])
    ]
    # The preprocessor keeps the empty line after a file's last newline.
    numbers += [numbers[-1] if numbers else 1] * (count - len(numbers))
    return numbers[:count]


def _mend_missing(path: str, root: Path) -> str:
    if path.startswith("docs/outputs/"):
        parts = path.split("/")
        page = "/".join(parts[2:-1])
        return f"run `python -m snippets record {page}`, or correct the path"
    near = sorted(p.relative_to(root).as_posix() for p in (root / path).parent.glob("*.*"))[:6]
    return "files there: " + (", ".join(near) or "none")
