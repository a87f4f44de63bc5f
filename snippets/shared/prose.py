"""Real English prose about Python and scikit-learn, frozen here, split by document.

Two collections: "python", the language reference and the docstrings of the standard library, and
"sklearn", scikit-learn's docstrings. `prose_extraction` made the files from an installation.
"""

import lzma
import math
import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "data" / "prose"
COLLECTIONS = ("python", "sklearn")
SHINGLE = 6
ALIKE = 0.4


# --8<-- [start:load]
class Paragraph(NamedTuple):
    """One paragraph on one line; the document and the part it stood in."""

    source: str
    section: str
    text: str


class Prose(NamedTuple):
    """Paragraphs in the order of their documents, none in two parts."""

    train: list[Paragraph]
    valid: list[Paragraph]
    test: list[Paragraph]


@cache
def load(name: str = "python") -> Prose:
    """A collection, split by document: 80 % to train on, 10 % each to choose and to test with.

    A held-out paragraph is dropped when more than 40 % of its six-word sequences stand in the
    training text: it would be remembered, not predicted.
    """
    if name not in COLLECTIONS:
        raise ValueError(f"expected one of {', '.join(COLLECTIONS)}, got {name!r}")
    text = lzma.decompress((FOLDER / f"{name}.tsv.xz").read_bytes()).decode("utf-8")
    rows = [Paragraph(*line.split("\t")) for line in text.splitlines()]
    parts = [[row for row in rows if part_of(row.source) == part] for part in range(3)]
    known = set().union(*(shingles(row.text) for row in parts[0]))
    held = [[row for row in rows if not is_known(row.text, known)] for rows in parts[1:]]
    return Prose(parts[0], *held)


def text_of(paragraphs: list[Paragraph]) -> str:
    """The paragraphs as one text, one on a line."""
    return "".join(f"{paragraph.text}\n" for paragraph in paragraphs)


# --8<-- [end:load]
# --8<-- [start:bits]
def bits_per_byte(log_p: float, text: str) -> float:
    """The cost of a byte of UTF-8, from the log probability of the whole text in nats.

    Bytes, not tokens: so models that cut the text otherwise can be compared, and compressors.
    """
    if not text:
        raise ValueError("expected some text")
    return -log_p / math.log(2) / len(text.encode("utf-8"))


# --8<-- [end:bits]


def part_of(source: str) -> int:
    """0 to train, 1 to choose, 2 to test: decided by the document's name alone, for good."""
    tenth = int(sha256(source.encode()).hexdigest(), 16) % 10
    return {0: 2, 1: 1}.get(tenth, 0)


def shingles(text: str) -> set[tuple[str, ...]]:
    """All sequences of six words."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def is_known(text: str, known: set) -> bool:
    """Are more than 40 % of its six-word sequences among the known ones?"""
    own = shingles(text)
    return bool(own) and len(own & known) > ALIKE * len(own)
