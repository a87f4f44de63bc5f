"""Each planted bug is caught by the test that its entry names."""

import multiprocessing

import pytest

from snippets.site.page import page_files, read_page
from snippets.site.planted import Bug, load, pool, try_bug, unedited
from snippets.site.rules import is_lesson

LESSONS = [page for page in map(read_page, page_files()) if is_lesson(page)]
DEEP = [page.key for page in LESSONS if "import torch" in page.module.read_text(encoding="utf-8")]
BUGS = load()
FORK = "forkserver" in multiprocessing.get_all_start_methods()
needs_fork = pytest.mark.skipif(not FORK, reason="bugs are planted in forked processes")


def alone(bug: Bug):
    """The verdict of a process of its own, so that the edited module stays in it."""
    with pool(1) as processes:
        return processes.apply_async(try_bug, [bug]).get(timeout=300)


@pytest.mark.parametrize("key", [page.key for page in LESSONS])
def test_there_are_enough_and_each_says_why_and_by_what_it_is_caught(key):
    bugs = load(pages=(key,))
    assert len(bugs) >= (8 if key in DEEP else 4)
    assert len({bug.why for bug in bugs}) == len(bugs)
    nameless = [bug.why for bug in bugs if not bug.by]
    assert nameless == [], f"run `python -m snippets.site.planted {key}` and add `by:`"


@needs_fork
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.page}: {bug.why}"[:100])
def test_a_planted_bug_is_caught(bug, record_property):
    verdict = alone(bug)
    record_property("planted", f"{bug.page}|{verdict.caught_by or ''}")
    assert verdict.caught_by, f"{bug.test}: survives: {bug.why}: mend the test so that it fails"
    # Some are caught before the named test, when its module makes what it needs.
    assert verdict.caught_by.partition("[")[0] in (*bug.by, "importing the test")


@needs_fork
@pytest.mark.parametrize("key", list(dict.fromkeys(bug.page for bug in BUGS)))
def test_without_an_edit_the_same_tests_pass(key):
    """The runner can say no: what is caught above is caught because of the edit."""
    verdict = alone(unedited(key, BUGS))
    assert verdict.caught_by is None


@needs_fork
def test_an_edit_that_changes_nothing_survives():
    (page,) = (p for p in LESSONS if p.key == "generative/naive_bayes")
    harmless = Bug(page.key, "import numpy as np", "import numpy as np  # !", "nothing changes")
    tests = unedited(page.key, BUGS).by
    verdict = alone(Bug(harmless.page, harmless.find, harmless.replace, harmless.why, tests))
    assert verdict.caught_by is None and not verdict.right
