"""A tiny but complete site in a temporary folder, on the real machinery: one lesson, its twins."""

import shutil
import textwrap
from pathlib import Path

import pytest

from snippets.site import ROOT, diagrams, share_cards
from snippets.site.generate import texts
from snippets.site.notebook import to_notebook
from snippets.site.page import read_page
from snippets.site.record import record, write

SMALL = Path(__file__).parent / "small_site"


class Site:
    """A small repository on disk; `write` and `replace` make one mistake at a time."""

    def __init__(self, root: Path):
        self.root = root

    @classmethod
    def create(cls, root: Path) -> "Site":
        """Copy the small site and record its one lesson."""
        for path in sorted(SMALL.rglob("*.*")):
            # Stored with a suffix of its own, so that nothing takes these for the real thing.
            target = root / path.relative_to(SMALL).with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        for name in ("site", "shared"):
            (root / "snippets" / name).symlink_to(
                ROOT / "snippets" / name, target_is_directory=True
            )
        site = cls(root)
        record(site.page())
        site.generate()
        share_cards.write_cards(root)
        for fence in diagrams.missing(root):
            # Drawing is tested elsewhere; here nobody looks at them.
            path = root / diagrams.FOLDER / f"{diagrams.identifier(fence.source)}.svg"
            write(path, '<svg xmlns="http://www.w3.org/2000/svg"></svg>\n')
        return site

    def generate(self) -> None:
        """What follows from the page and its outputs: cards, tables, the notebook."""
        for path, text in texts(self.root).items():
            write(self.root / path, text)
        write(self.page().outputs / "notebook.ipynb", to_notebook(self.page()))

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        (self.root / path).write_text(text.replace(old, new), encoding="utf-8")

    def line_of(self, path: str, needle: str) -> int:
        lines = self.read(path).splitlines()
        found = [n for n, line in enumerate(lines, 1) if needle in line]
        assert len(found) == 1, f"{needle!r} stands on lines {found} of {path}"
        return found[0]

    def page(self, name: str = "discriminative/line"):
        return read_page(self.root / "docs" / f"{name}.md", self.root)


@pytest.fixture(scope="session")
def recorded_site(tmp_path_factory) -> Path:
    """The small site, recorded once; tests work on copies."""
    return Site.create(tmp_path_factory.mktemp("small") / "repo").root


EXPORT = """\
import torch
from snippets.shared import exports
torch.manual_seed(0)
exports.save("sampler", torch.nn.Linear(2, 3), {"z": torch.ones(2, 2)})
"""


@pytest.fixture(scope="session")
def exporting_site(recorded_site, tmp_path_factory) -> Path:
    """The small site with a page that exports a network, recorded once."""
    root = tmp_path_factory.mktemp("exporting") / "repo"
    shutil.copytree(recorded_site, root, symlinks=True)
    site, page = Site(root), "docs/discriminative/line.md"
    site.replace(page, 'print(f"slope', EXPORT + 'print(f"slope')
    site.replace(page, "Turn it.", "[Run it](../outputs/discriminative/line/sampler.onnx).")
    record(site.page())
    site.generate()
    return root


@pytest.fixture
def exporting(exporting_site, tmp_path) -> Site:
    """A fresh copy of the small site that exports, free to be broken."""
    root = tmp_path / "repo"
    shutil.copytree(exporting_site, root, symlinks=True)
    return Site(root)


@pytest.fixture
def site(recorded_site, tmp_path) -> Site:
    """A fresh copy of the recorded small site, free to be broken."""
    root = tmp_path / "repo"
    shutil.copytree(recorded_site, root, symlinks=True)
    return Site(root)
