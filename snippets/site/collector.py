"""pytest plugin: every page is a test file, every Python block of it a test.

`pytest docs/generative/vae.md` runs that page as a reader would: one fresh interpreter, all blocks
in order. What a block prints is compared with what was recorded, numbers with a tolerance.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_codeblocks.main import extract_from_buffer
from pytest_codeblocks.plugin import MarkdownFile, TestBlock

from snippets.site import ROOT, exported
from snippets.site.compare import difference, figure_difference
from snippets.site.execute import BlockResult, PageRun, run_page
from snippets.site.numbers import NUMBER, look_up
from snippets.site.page import Block, Page, page_files, read_page
from snippets.site.problems import PageError, Problem
from snippets.site.prose import prose, without_code
from snippets.site.record import read_json

# Before any test imports NumPy or torch: two threads a worker fight for the cores, and lose.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collect_file(file_path: Path, parent):
    """Collect the Markdown pages under docs/."""
    if file_path.suffix == ".md" and (ROOT / "docs") in file_path.parents:
        return PageFile.from_parent(parent, path=file_path)
    return None


def expanded(page: Page) -> str:
    """The page's fences as pytest-codeblocks reads them: quotes expanded, no indentation."""
    parts = []
    for fence in page.fences:
        marks = "`" * max(4, len(fence.marks))
        # Lines stay on their numbers' order; the map to the page is ours, not pytest-codeblocks'.
        parts.append(f"{marks}{fence.info}\n" + "".join(f"{n.text}\n" for n in fence.lines) + marks)
    return "\n\n".join(parts) + "\n"


class PageFile(MarkdownFile):
    """One page; its blocks share one interpreter, started when the first of them is asked for."""

    _run: PageRun | PageError | None = None

    def collect(self):
        page = read_page(self.path, ROOT)
        blocks = [
            b for b in extract_from_buffer(io.StringIO(expanded(page))) if b.syntax == "python"
        ]
        for problem in page.problems:
            yield PageProblem.from_parent(self, name=f"line {problem.line}", problem=problem)
        if page.problems:
            return
        same = [_bare(b.code) for b in blocks] == [_bare(b.code) for b in page.blocks]
        if not same:
            problem = Problem(
                page.file,
                0,
                f"pytest-codeblocks sees {len(blocks)} Python blocks, the site {len(page.blocks)}",
                "write each as a plain ```python fence",
            )
            yield PageProblem.from_parent(self, name="blocks", problem=problem)
            return
        self.page = page
        for block, ours in zip(blocks, page.blocks):
            item = BlockItem.from_parent(self, name=f"line {ours.line}", obj=block)
            item.block = ours
            item.add_marker(pytest.mark.page)
            # A page is one session, so all its blocks go to one worker.
            item.add_marker(pytest.mark.xdist_group(page.key))
            yield item

    def run(self) -> PageRun:
        """Run the page once; a page that cannot run fails each of its blocks the same way."""
        if self._run is None:
            try:
                self._run = run_page(self.page)
            except PageError as error:
                self._run = error
        if isinstance(self._run, PageError):
            raise self._run
        return self._run


def _bare(code: str) -> list[str]:
    return [line for line in code.splitlines() if line.strip()]


class Failure(Exception):
    """A failed block, said in full: one line with the place, then the traceback if any."""


class BlockItem(TestBlock):
    """One block: it ran to its end, and printed, drew and measured what was recorded."""

    block: Block

    def runtest(self):
        page, block = self.parent.page, self.block
        results = self.parent.run().results
        if block.index >= len(results):
            raise Failure(f"{page.file}:{block.line}: not reached, an earlier block failed")
        result = results[block.index]
        if result.error:
            module = result.error["module"]
            at = f" (in {module[0]}:{module[1]})" if module else ""
            raise Failure(
                f"{result.error['file']}:{result.error['line']}: "
                f"{result.error['summary']}{at}\n{result.error['traceback']}"
            )
        for why in differences(self.parent.run(), block):
            raise Failure(why)

    def repr_failure(self, excinfo):
        if isinstance(excinfo.value, (Failure, PageError)):
            return str(excinfo.value)
        return pytest.Item.repr_failure(self, excinfo)

    def reportinfo(self):
        return self.path, self.block.line - 1, f"{self.parent.page.key}, line {self.block.line}"


class PageProblem(pytest.Item):
    """A page that cannot even be read: one failing test for each reason."""

    def __init__(self, *, problem: Problem, **options):
        super().__init__(**options)
        self.problem = problem

    def runtest(self):
        raise Failure(str(self.problem))

    def repr_failure(self, excinfo):
        return str(excinfo.value)

    def reportinfo(self):
        return self.path, self.problem.line, self.name


def differences(run: PageRun, block: Block) -> Iterator[str]:
    """Where a block's run is not what was recorded, one line each, with the mend."""
    page, result = run.page, run.results[block.index]
    again = f"if it is right, run `python -m snippets record --force {page.key}`"
    if block.output or result.printed:
        path = block.output or f"docs/outputs/{page.key}/NAME.txt"
        recorded = (page.root / path).read_text(encoding="utf-8") if block.output else ""
        if why := difference(recorded, result.printed, tolerance=block.tolerance):
            yield f"{page.file}:{block.line}: not what {path} says, {why}; {again}"
    if len(result.figures) != len(block.figures):
        yield (
            f"{page.file}:{block.line}: shows {len(result.figures)} figures, the page quotes "
            f"{len(block.figures)}; quote one .svg for each plt.show()"
        )
    for figure, name in zip(block.figures, result.figures):
        old = (page.root / figure.path).read_text(encoding="utf-8")
        if why := figure_difference(old, run.drawn[name], tolerance=block.tolerance):
            yield f"{page.file}:{figure.line}: not what {figure.path} shows, {why}; {again}"
    yield from _export_differences(run, block, again)
    yield from _metric_differences(page, block, result, again)


def _export_differences(run: PageRun, block: Block, again: str) -> Iterator[str]:
    """A network's weights differ on another processor; its inputs, outputs and size do not."""
    page, old = run.page, read_json(run.page.outputs / "run.json").get("exports", {})
    files = {Path(name).name: data for name, data in run.exported.items()}
    own = {Path(name).name: run.exported[name] for name in run.results[block.index].exports}
    for why in exported.differences(old, exported.described(own), block.tolerance):
        yield f"{page.file}:{block.line}: {why}; {again}"
    if block is page.blocks[-1]:
        for name in sorted(old.keys() - exported.described(files).keys()):
            line, file = exported.links(page).get(name, 0), exported.file_of(name)
            yield f"{page.file}:{line}: {file} was recorded, and no block exports it; {again}"


def _metric_differences(page: Page, block: Block, result: BlockResult, again: str) -> Iterator[str]:
    for match, file, line in uses(page.root).get(page.key, []):
        head = match["name"].split(".")[0]
        if head in result.metrics:
            old, new = look_up(page.key, match["name"], page.root), result.metrics[head]
            for key in match["name"].split(".")[1:]:
                new = new[key] if isinstance(new, dict) else new[int(key)]
            spec = match["spec"] or ""
            why = difference(format(old, spec), format(new, spec), tolerance=block.tolerance)
            if why:
                yield (
                    f"{page.file}:{block.line}: metric {match['name']} (shown at "
                    f"{file}:{line}): {why}; {again}"
                )


def uses(root: Path) -> dict[str, list]:
    """Page key → every `{{page.metric}}` that any page shows, with file and line; not examples."""
    found: dict[str, list] = {}
    for page in (read_page(path, root) for path in page_files(root)):
        for number, line in prose(page):
            for match in NUMBER.finditer(without_code(line)):
                found.setdefault(match["page"], []).append((match, page.file, number))
    return found
