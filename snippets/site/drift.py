"""Run pages, and studies, again and name each recorded number that has moved beyond its tolerance.

`python -m snippets.site.drift [PAGE…] [--studies] [--report FILE]` works in a temporary copy, so
nothing that was recorded changes. It is for the scheduled run: the tests compare what pages print,
but run studies at a tiny size only.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from snippets.site import ROOT
from snippets.site.compare import NUMBER, difference, figure_difference
from snippets.site.execute import ENVIRONMENT, run_page
from snippets.site.page import Page, find_page, page_files, read_page
from snippets.site.problems import PageError
from snippets.site.record import VERSIONS, has_study, read_json

TOLERANCE = 0.05
# A study has five minutes of processor time; a busy machine may take several times as long.
STUDY_SECONDS = 1800
COPIED = ("docs", "snippets", "mkdocs.yml")
ONE_STUDY = """
import sys
from pathlib import Path
from snippets.site.page import find_page
from snippets.site.record import study
study(find_page(sys.argv[2], Path(sys.argv[1])), force=True)
"""


@dataclass(frozen=True)
class Drift:
    """One recorded thing that is not so any more; `place` is a file, with its line or metric."""

    place: str
    recorded: str
    now: str
    tolerance: str

    def __str__(self) -> str:
        return f"{self.place}: recorded {self.recorded}, now {self.now}, tolerance {self.tolerance}"


def numbers(place: str, recorded: str, now: str, tolerance: float) -> Iterator[Drift]:
    """Every difference between two texts, by the rule of `compare`: a number, or a line's words."""
    # A text ends where its last line does, as in `compare`.
    lines = zip_longest(recorded.rstrip("\n").split("\n"), now.rstrip("\n").split("\n"))
    for line, (old, new) in enumerate(lines, 1):
        at = f"{place}:{line}"
        if old is None or new is None:
            yield Drift(at, _shown(old), _shown(new), "none: lines")
            continue
        pairs = list(zip(NUMBER.findall(old), NUMBER.findall(new)))
        moved = [pair for pair in pairs if difference(*pair, tolerance=tolerance)]
        for a, b in moved:
            yield Drift(at, a, b, f"{100 * tolerance:g} %")
        if not moved and difference(old, new, tolerance=tolerance):
            yield Drift(at, _shown(old), _shown(new), "none: words")


def metrics(place: str, recorded, now, tolerance: float, specs: dict, name="") -> Iterator[Drift]:
    """Every difference between two trees of metrics, each number as pages show it.

    specs: dotted name → the formats in which pages show it; a number that none shows is compared
    at three significant digits, as printed ones are.
    """
    old, new = (dict(enumerate(m)) if isinstance(m, list) else m for m in (recorded, now))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            below = f"{name}.{key}" if name else str(key)
            if key in old and key in new:
                yield from metrics(place, old[key], new[key], tolerance, specs, below)
            else:
                there = [repr(tree[key]) if key in tree else "missing" for tree in (old, new)]
                yield Drift(f"{place}: {below}", *there, "none: names")
        return
    at = f"{place}: {name}"
    if not (_is_number(old) and _is_number(new)):
        if old != new:
            yield Drift(at, repr(old), repr(new), "none: words")
        return
    # With "#", 2.0 is written 2.00: two units of its last digit are not two.
    whole = isinstance(old, int) and isinstance(new, int)
    for spec in specs.get(name) or ["d" if whole else "#.3g"]:
        a, b = format(old, spec), format(new, spec)
        if difference(a, b, tolerance=tolerance):
            yield Drift(at, a, b, f"{100 * tolerance:g} %")
            return


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(line: str | None) -> str:
    return "no such line" if line is None else repr(line.strip())


def shown_as(page: Page) -> dict[str, list[str]]:
    """Dotted metric → the formats in which the site's pages show it."""
    # Needs pytest, which the other builders' environment, a user of this module, does not have.
    from snippets.site.collector import uses

    specs: dict[str, list[str]] = {}
    for match, _, _ in uses(page.root).get(page.key, []):
        specs.setdefault(match["name"], []).append(match["spec"] or "")
    return specs


def page_drift(page: Page, copy: Path) -> Iterator[Drift]:
    """Run a page in the copy; compare what it prints, draws and measures with its outputs."""
    try:
        run = run_page(find_page(page.key, copy))
    except PageError as error:
        yield Drift(page.file, "a run to the end", str(error), "none: failure")
        return
    if run.error:
        at = f"{run.error['file']}:{run.error['line']}"
        yield Drift(at, "a run to the end", run.error["summary"], "none: failure")
        return
    recorded, specs = _metrics(page, "run"), shown_as(page)
    for block, result in zip(page.blocks, run.results):
        if block.output:
            old = _read(page, block.output)
            yield from numbers(block.output, old, result.printed, block.tolerance)
        if len(block.figures) != len(result.figures):
            count = str(len(block.figures)), str(len(result.figures))
            yield Drift(f"{page.file}:{block.line}", *count, "none: figures")
        for figure, name in zip(block.figures, result.figures):
            old, new = _read(page, figure.path), run.drawn[name]
            if why := figure_difference(old, new, tolerance=block.tolerance):
                yield Drift(figure.path, "as quoted", why, f"{100 * block.tolerance:g} %")
        old = {name: recorded[name] for name in block.metrics if name in recorded}
        yield from metrics(_json(page, "run"), old, result.metrics, block.tolerance, specs)


def study_drift(page: Page, copy: Path) -> Iterator[Drift]:
    """Run a page's study at full size in the copy; compare its table and its metrics."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", ONE_STUDY, str(copy), page.key]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=STUDY_SECONDS,
        )
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    except subprocess.TimeoutExpired:
        done, why = None, f"stopped after {STUDY_SECONDS} s"
    if done is None or done.returncode:
        yield Drift(f"snippets/{page.key}.py", "a study to the end", why, "none: failure")
        return
    table = f"docs/outputs/{page.key}/study.txt"
    again = find_page(page.key, copy)
    if not (page.root / table).is_file():
        yield Drift(table, "never", "run", "none: lines")
        return
    yield from numbers(table, _read(page, table), _read(again, table), TOLERANCE)
    old, new = _metrics(page, "study"), _metrics(again, "study")
    specs = {
        name.removeprefix("study."): formats
        for name, formats in shown_as(page).items()
        if name.startswith("study.")
    }
    yield from metrics(_json(page, "study"), old, new, TOLERANCE, specs)


def _read(page: Page, path: str) -> str:
    return (page.root / path).read_text(encoding="utf-8")


def _metrics(page: Page, name: str) -> dict:
    return read_json(page.outputs / f"{name}.json").get("metrics", {})


def _json(page: Page, name: str) -> str:
    return f"docs/outputs/{page.key}/{name}.json"


def drifts(pages: list[Page], *, studies: bool) -> Iterator[tuple[str, list[Drift]]]:
    """Run each page, and each study, in a copy; yields its name and what has drifted."""
    for page in pages:
        # A fresh copy each: no run can help or harm the next.
        with tempfile.TemporaryDirectory(prefix="drift-") as folder:
            copy = copy_of(page.root, Path(folder).resolve())
            if page.blocks:
                yield page.key, list(page_drift(page, copy))
            if studies and has_study(page):
                yield f"study of {page.key}", list(study_drift(page, copy))


def copy_of(root: Path, folder: Path) -> Path:
    """Copy to `folder` what a run reads; links stay links."""
    for name in COPIED:
        if (root / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(root / name, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(root / name, folder / name)
    return folder


def report(results: dict[str, list[Drift]]) -> str:
    """The results as Markdown, for an issue."""
    found = [drift for drifted in results.values() for drift in drifted]
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    made = ", ".join([python, *(f"{name} {version(name)}" for name in VERSIONS)])
    lines = [_count(results), "", f"Run again with {made}."]
    if found:
        lines += ["", "| where | recorded | now | tolerance |", "|---|---|---|---|"]
        lines += [
            "| " + " | ".join(map(_cell, (d.place, d.recorded, d.now, d.tolerance))) + " |"
            for d in found
        ]
        names = " ".join(name for name, drifted in results.items() if drifted and " " not in name)
        lines += ["", f"If the new ones are right: `python -m snippets record --force {names}`"]
        lines[-1] += ", or `study --force` for a study. If they are not, the code has a reason."
    lines += ["", "Compared: " + ", ".join(results) + "."]
    return "\n".join(lines) + "\n"


def _count(results: dict[str, list[Drift]]) -> str:
    count = sum(map(len, results.values()))
    what = "1 recorded value has" if count == 1 else f"{count or 'No'} recorded values have"
    return f"{what} drifted, in {len(results)} runs."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Print a line for each drifted number; exit code 1 when there is one."""
    parser = argparse.ArgumentParser(
        prog="python -m snippets.site.drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="default: every page")
    parser.add_argument("--studies", action="store_true", help="also studies, at full size")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the result as Markdown")
    options = parser.parse_args(arguments)
    try:
        pages = [find_page(name, root) for name in options.pages]
    except PageError as error:
        print(error, file=sys.stderr)
        return 2
    pages = pages or [read_page(path, root) for path in page_files(root)]
    results = {}
    for name, drifted in drifts(pages, studies=options.studies):
        results[name] = drifted
        print(f"{name}: {len(drifted)} drifted", file=sys.stderr, flush=True)
        for drift in drifted:
            print(drift, flush=True)
    print(_count(results))
    if options.report:
        options.report.write_text(report(results), encoding="utf-8")
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
