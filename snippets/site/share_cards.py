"""The picture that a shared link shows: one per section, drawn here, kept under docs/assets/cards.

A card follows from its section's title and description. Both are hashed into the file, so that
a rule can tell, without drawing, whether the card is what its page says.
"""

import hashlib
import io
import re
import textwrap
from pathlib import Path

import yaml

from snippets.site.page import SECTIONS

FOLDER = "docs/assets/cards"
SIZE = (1200, 630)
# Part of each card's hash: raise it when the drawing changes, and `record` draws all anew.
EDITION = 1
INK, MUTED, PAPER, BLUE, ORANGE = "#1c2430", "#566070", "#ffffff", "#2257a8", "#b4540a"


def words(root: Path) -> dict[str, tuple[str, str]]:
    """Card name → (title, description): one for each section's index page, `site` for the rest."""
    found = {}
    for name in ("site", *SECTIONS):
        page = root / "docs" / ("index.md" if name == "site" else f"{name}/index.md")
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            front = re.match(r"^---\n(.*?)\n---\n", text, re.S)
            title = re.search(r"^# (.+)$", text, re.M)
            what = yaml.safe_load(front[1]).get("description", "") if front else ""
            found[name] = (title[1] if title else name, what)
    return found


def mark(title: str, what: str) -> str:
    """The hash that stands in a card's file."""
    return hashlib.sha256(f"{EDITION}\n{title}\n{what}".encode()).hexdigest()[:16]


def stale(root: Path) -> list[str]:
    """Paths of the cards that are missing or not what their pages say."""
    said = words(root)
    return [_path(name) for name in said if _mark_of(root / _path(name)) != mark(*said[name])]


def left_over(root: Path) -> list[str]:
    """Paths of the cards of sections that are no more."""
    said, there = words(root), sorted((root / FOLDER).glob("*"))
    return [path.relative_to(root).as_posix() for path in there if path.stem not in said]


def write_cards(root: Path) -> list[str]:
    """Draw the cards that are stale, remove those left over; returns what it did."""
    said, written = words(root), []
    for path in stale(root):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_suffix(".new")
        draw(beside, *said[target.stem])
        beside.replace(target)
        written.append(path)
    for path in left_over(root):
        (root / path).unlink()
        written.append(f"{path} (removed, its section is gone)")
    return written


def draw(path: Path, title: str, what: str) -> None:
    """One card as PNG: the site's name, the title, the description, a boundary and a density."""
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    # Drawn with fonts that Matplotlib brings along, whatever the machine has.
    look = {"font.family": "STIXGeneral", "figure.constrained_layout.use": False}
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor=PAPER)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
        axes.axis("off")
        x = np.linspace(700, 1200, 300)
        for centre, height in ((840, 150), (1060, 190)):
            density = height * np.exp(-(((x - centre) / 65) ** 2))
            axes.fill_between(x, density, color=ORANGE, alpha=0.3)
            axes.plot(x, density, color=ORANGE, lw=3)
        axes.plot([925, 975], [0, 250], color=BLUE, lw=5)
        axes.text(72, 528, "Boundary & Density", size=24, color=MUTED)
        large = title if title != "Boundary & Density" else "What you read is what ran"
        axes.text(72, 430, large, size=50, weight="bold", color=INK)
        # A formula such as p(x, y) stays whole: textwrap does not break at these spaces.
        whole = re.sub(r"\([^)]*\)", lambda match: match[0].replace(" ", "\u00a0"), what)
        lines = textwrap.wrap(whole, 74)
        axes.text(72, 385, "\n".join(lines), size=24, color=INK, va="top", linespacing=1.35)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
    said = PngInfo()
    said.add_text("Description", mark(title, what))
    Image.open(drawn).convert("RGB").quantize(48).save(path, "PNG", optimize=True, pnginfo=said)


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.png"


def _mark_of(path: Path) -> str:
    from PIL import Image

    if not path.is_file():
        return ""
    with Image.open(path) as image:
        return image.info.get("Description", "") if image.size == SIZE else "another size"
