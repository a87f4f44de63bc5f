"""The list of planted bugs fits its modules; `make planted` plants each and wants it caught."""

import pytest

from snippets.site.page import page_files, read_page
from snippets.site.planted import Bug, load
from snippets.site.rules import is_lesson

LESSONS = [page for page in map(read_page, page_files()) if is_lesson(page)]
DEEP = [page.key for page in LESSONS if "import torch" in page.module.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", [page.key for page in LESSONS])
def test_there_are_enough_and_each_says_why(page):
    bugs = load(pages=(page,))
    assert len(bugs) >= (8 if page in DEEP else 4)
    assert len({bug.why for bug in bugs}) == len(bugs)


def test_a_harmless_edit_survives_and_is_reported(tmp_path, monkeypatch, capsys):
    """The runner itself can fail: an edit that changes nothing must be called a survivor."""
    from snippets.site import planted

    harmless = Bug("choosing/data_efficiency", '"""', "'''", "nothing changes")
    monkeypatch.setattr(planted, "load", lambda pages: [harmless])
    monkeypatch.setattr(
        planted,
        "try_all",
        lambda bugs, jobs: iter(
            [planted.Verdict(Bug(harmless.page), None, 1.0), planted.Verdict(harmless, None, 1.0)]
        ),
    )
    assert planted.main([]) == 1
    assert "0 of 1 planted bugs caught" in capsys.readouterr().out
