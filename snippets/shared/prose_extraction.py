"""Make the collections of `prose` anew from an installation: `write(folder)`.

Nothing is imported to be read: docstrings are taken from the syntax trees. The text differs from
release to release, so what the lessons use is frozen; the test holds that this code still makes
the same kind of text.
"""

import ast
import lzma
import re
import sysconfig
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

from snippets.shared.prose import Paragraph

SECTION = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}\s*$", re.M)
# Sections whose entries are a name and an indented description.
LISTS = ("Parameters", "Attributes", "Returns", "Yields", "Raises")
TALK = ("Summary", "Notes")
SKIPPED = re.compile(
    r"(test|idlelib|lib2to3|site-packages|ensurepip|pydoc_data|turtledemo|distutils)/|(^|/)tests?/"
    r"|(^|/)externals/"
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NOT_PROSE = (">>>", "::=", "====", "----", "+--", " | ", "\\")


def python() -> list[Paragraph]:
    """The language reference, as the interpreter carries it, and the library's docstrings."""
    found = [
        Paragraph(f"reference/{topic}", "Summary", text)
        for topic, said in sorted(topics.items())
        for text in paragraphs(said)
    ]
    library = Path(sysconfig.get_paths()["stdlib"])
    for source, said in docstrings(library):
        found += [Paragraph(source, "Summary", text) for text in paragraphs(said)]
    return unique(found)


def sklearn() -> list[Paragraph]:
    """scikit-learn's docstrings, with the section that each paragraph stood in."""
    found = []
    for source, said in docstrings(Path(find_spec("sklearn").origin).parent):
        first, *rest = SECTION.split(said)
        for section, body in [("Summary", first), *zip(rest[::2], rest[1::2])]:
            if section in LISTS:
                entries = re.split(r"\n(?=\S)", body.strip("\n"))
                body = "\n\n".join(textwrap.dedent(e.partition("\n")[2]) for e in entries)
            elif section not in TALK:
                continue
            found += [Paragraph(source, section, text) for text in paragraphs(body)]
    return unique(found)


def docstrings(folder: Path) -> Iterator[tuple[str, str]]:
    """(module, docstring) of every module, class and function below a folder, tests left out."""
    for path in sorted(folder.rglob("*.py")):
        source = path.relative_to(folder).as_posix()
        if SKIPPED.search(source):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # files that are broken on purpose
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and (said := ast.get_docstring(node)):
                yield source.removesuffix(".py").removesuffix("/__init__"), said


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs that are prose, each on one line."""
    for block in re.split(r"\n\s*\n", text.expandtabs()):
        joined = " ".join(block.split())
        if is_prose(joined):
            yield joined


def is_prose(text: str) -> bool:
    """A sentence or more: no code, grammar, table or list of names."""
    letters = sum(c.isalpha() or c == " " for c in text)
    return (
        len(text) >= 40
        and len(re.findall(r"[A-Za-z]{2,}", text)) >= 7
        and letters >= 0.85 * len(text)
        and bool(re.match(r'[A-Z"*`(]', text))
        and text[-1] in '.:;!?)"'
        and not any(mark in text for mark in NOT_PROSE)
    )


def unique(found: list[Paragraph]) -> list[Paragraph]:
    """The first of each paragraph; case, spaces and punctuation do not make a difference."""
    first = {re.sub(r"\W+", " ", row.text.lower()).strip(): row for row in reversed(found)}
    kept = {id(row) for row in first.values()}
    return [row for row in found if id(row) in kept]


def write(folder: str | Path) -> None:
    """Write both files into a folder, each beside its place first."""
    for name, rows in (("python", python()), ("sklearn", sklearn())):
        text = "".join("\t".join(row) + "\n" for row in rows).encode("utf-8")
        packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
        target = Path(folder, f"{name}.tsv.xz")
        beside = target.with_suffix(".new")
        beside.write_bytes(packed)
        beside.replace(target)
        print(
            f"{target.name}: {len(rows):,} paragraphs, {len(text):,} bytes, {len(packed):,} packed"
        )
