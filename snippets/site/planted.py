"""Plant a classic bug in a module and see its test fail: `python -m snippets.site.planted [PAGE…]`.

`tests/planted_bugs.yml` lists one-line edits with their reasons, and names the test (`by`) that
must fail on each: it runs against the edited source. Unedited it must pass. A bug that survives is
an error in the test. For a bug without `by`, the whole twin test runs, and the table names the
test that caught it.
"""

import argparse
import contextlib
import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import multiprocessing
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from snippets.site import ROOT
from snippets.site.problems import PageError, Problem

# Before torch is imported: with two threads on a busy machine one test took minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
LIST = "tests/planted_bugs.yml"
HEAVY = (
    "numpy",
    "safetensors.torch",
    "scipy.spatial.distance",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.ensemble",
    "sklearn.metrics",
    "sklearn.mixture",
    "sklearn.model_selection",
    "sklearn.neural_network",
    "sklearn.svm",
    "scipy.ndimage",
    "torch",
    "torch.distributions",
    "matplotlib.pyplot",
    "hypothesis",
    "pytest",
)


@dataclass(frozen=True)
class Bug:
    """A one-line edit of a module; `find` stands in it exactly once. An empty one is no edit.

    `by` names the test functions that run, all of the twin test when it is empty.
    """

    page: str
    find: str = ""
    replace: str = ""
    why: str = "unedited"
    by: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        return f"snippets/{self.page}.py"

    @property
    def test(self) -> str:
        section, _, stem = self.page.rpartition("/")
        return f"tests/{section}/test_{stem}.py"


@dataclass(frozen=True)
class Verdict:
    """What the test said of a bug: `caught_by` is the first failing test, None when it passed."""

    bug: Bug
    caught_by: str | None
    seconds: float

    @property
    def right(self) -> bool:
        return (self.caught_by is None) == (not self.bug.find)


def load(root: Path = ROOT, pages: tuple[str, ...] = ()) -> list[Bug]:
    """The bugs of these pages, or of all; PageError for an edit that cannot be made."""
    entries = yaml.safe_load((root / LIST).read_text(encoding="utf-8"))
    bugs = []
    for page, edits in entries.items():
        for edit in edits:
            by = (edit["by"],) if "by" in edit else ()
            bug = Bug(page, edit["find"], edit["replace"], edit["why"], by)
            count = (root / bug.file).read_text(encoding="utf-8").count(bug.find)
            if count != 1 or bug.find == bug.replace:
                raise PageError(
                    Problem(
                        LIST,
                        0,
                        f"{bug.file} has {bug.find!r} {count} times",
                        "`find` must stand in the module exactly once",
                    )
                )
            there = re.findall(r"^def (test_\w+)", (root / bug.test).read_text("utf-8"), re.M)
            if by and by[0] not in there:
                near = ", ".join(difflib.get_close_matches(by[0], there, 3, 0.4)) or "none"
                raise PageError(
                    Problem(LIST, 0, f"{bug.test} has no {by[0]}", f"name one of its tests: {near}")
                )
            if not pages or page in pages:
                bugs.append(bug)
    return bugs


class _Edited(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import the module of a bug from its edited source, everything else as usual."""

    def __init__(self, bug: Bug, root: Path):
        self.name = bug.file.removesuffix(".py").replace("/", ".")
        self.path = root / bug.file
        self.source = self.path.read_text(encoding="utf-8").replace(bug.find, bug.replace)

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def exec_module(self, module):
        exec(compile(self.source, str(self.path), "exec", dont_inherit=True), module.__dict__)

    def create_module(self, spec):
        return None


class _First:
    """pytest plugin: remember the first test that failed."""

    failed: str | None = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.failed is None:
            self.failed = report.nodeid.partition("::")[2]

    def pytest_collectreport(self, report):
        if report.failed and self.failed is None:
            self.failed = "importing the test"


def try_bug(bug: Bug) -> Verdict:
    """Run the twin test against the edited module, in this process, which ends afterwards."""
    import pytest

    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if bug.find:
        sys.meta_path.insert(0, _Edited(bug, ROOT))
    first, started = _First(), time.monotonic()
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        code = pytest.main(
            [
                "-x",
                "-q",
                "-m",
                "not bar",
                "-p",
                "no:cacheprovider",
                # Neither the pages nor a browser are needed, nor what a failure looks like.
                "-o",
                "addopts=",
                "-p",
                "no:unraisableexception",
                "--tb=no",
                "--no-header",
                *([f"{bug.test}::{name}" for name in bug.by] or [bug.test]),
            ],
            plugins=[first],
        )
    caught = first.failed if code else None
    if code and not caught:
        caught = f"pytest ended with {code}: {silence.getvalue().strip().splitlines()[-1:]}"
    return Verdict(bug, caught, time.monotonic() - started)


def unedited(page: str, bugs: list[Bug]) -> Bug:
    """No edit of this page's module, and every test that catches one of its bugs."""
    mine = [bug for bug in bugs if bug.page == page]
    return Bug(page, by=tuple(sorted({name for bug in mine for name in bug.by})))


def pool(jobs: int):
    """Processes in which to try bugs: each is forked from one that has only the heavy imports.

    So a bug costs its test's time, and no module or state of the caller is in its way.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
    return context.Pool(jobs, maxtasksperchild=1)


def try_all(bugs: list[Bug], *, jobs: int = 2):
    """Yield a Verdict for each module unedited and for each bug, in order."""
    plain = [unedited(page, bugs) for page in dict.fromkeys(bug.page for bug in bugs)]
    with pool(jobs) as processes:
        yield from processes.imap(try_bug, [*plain, *bugs], chunksize=1)


def main(arguments: list[str] | None = None) -> int:
    """Print a table of all bugs; exit code 1 when one survives or a module fails unedited."""
    parser = argparse.ArgumentParser(
        prog="python -m snippets.site.planted",
        description=__doc__.replace("`", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="default: all")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    try:
        bugs = load(pages=tuple(options.pages))
    except PageError as error:
        print(error)
        return 1
    verdicts = []
    for verdict in try_all(bugs, jobs=options.jobs):
        verdicts.append(verdict)
        what = "passes" if verdict.caught_by is None else f"caught by {verdict.caught_by}"
        mark = " " if verdict.right else "✗"
        print(
            f"{mark} {verdict.seconds:5.1f} s  {verdict.bug.page}: {verdict.bug.why}: {what}",
            flush=True,
        )
    planted = [v for v in verdicts if v.bug.find]
    wrong = [v for v in verdicts if not v.right]
    print(f"{sum(v.right for v in planted)} of {len(planted)} planted bugs caught")
    for verdict in wrong:
        mend = "mend the test so that it fails" if verdict.bug.find else "mend the module"
        print(f"{verdict.bug.test}: {verdict.bug.why} → {mend}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
