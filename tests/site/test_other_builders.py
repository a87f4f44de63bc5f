"""The comparison of builders: it names what a builder drops, and fails only when one stops."""

import sys
from pathlib import Path

import pytest

from snippets.site import other_builders
from snippets.site.other_builders import BUILDERS, Built, differences, main

CODE = '<div class="language-python highlight"><pre></pre></div>'


def test_missing_and_new_pages_are_named():
    ours, theirs = Built({"a.html": "", "b.html": ""}), Built({"b.html": "", "c.html": ""})
    assert differences(ours, theirs) == ["a.html: not built", "c.html: only here"]


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (CODE, "<pre></pre>", "0 Python blocks, MkDocs has 1"),
        ("<math></math>", "$x$", "0 formulas, MkDocs has 1"),
        ("<p>0.97</p>", "<p>{{ generative/vae.mse }}</p>", "1 marks left over, MkDocs has 0"),
        ("<h2>a</h2><h2>b</h2>", "<h2>a</h2>", "1 headings, MkDocs has 2"),
    ],
)
def test_parts_that_a_builder_drops_are_counted(ours, theirs, said):
    assert differences(Built({"a.html": ours}), Built({"a.html": theirs})) == [f"a.html: {said}"]


@pytest.fixture
def built(monkeypatch):
    """What each builder will have built; tests change it."""
    results = {builder: Built({"a.html": CODE}) for builder in BUILDERS}
    monkeypatch.setattr(other_builders, "build", lambda builder, root, programs: results[builder])
    return results


def test_a_difference_and_a_warning_are_news_and_no_failure(built, capsys, tmp_path):
    built["zensical"] = Built({"a.html": ""}, ["WARNING - a link"])
    assert main(["--report", str(tmp_path / "report.md")]) == 0
    said = capsys.readouterr().out
    assert "- a.html: 0 Python blocks, MkDocs has 1" in said and "- WARNING - a link" in said
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == said


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (Built({"a.html": CODE}, said="one\nno such tag", code=1), "code 1: no such tag"),
        (Built(), "built no page"),
    ],
)
def test_a_builder_that_stops_is_a_failure(built, capsys, what, why):
    built["properdocs"] = what
    assert main([]) == 1
    assert why in capsys.readouterr().out


def test_a_real_build_in_a_copy(site):
    """MkDocs stands for the others: the copy is built, the folder itself is not written to."""
    before = sorted(site.root.rglob("*"))
    made = other_builders.build("mkdocs", site.root, Path(sys.executable).parent)
    assert made.code == 0, made.said
    assert CODE[:40] in made.pages["discriminative/line.html"] and not made.warnings
    assert sorted(site.root.rglob("*")) == before
