"""The workshop notebook: what it says holds, and its page is as light and quiet as the others."""

import os
import pickle
import re
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import jupytext
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB

from snippets.generative import naive_bayes
from snippets.shared.notebooks import OWN_PAPER, to_html
from snippets.shared.plots import draw_digits, plt
from snippets.site import ROOT, notebook_pages
from snippets.site.built import transfer

NOTEBOOK = ROOT / "docs/notebooks/both_families.py"
PAGE = "notebooks/both_families.html"
# Runs the notebook without a network, then computes on its variables what the tests ask about.
RUN = """
import pickle, resource, runpy, socket, sys
import numpy as np

def refuse(*args, **kwargs):
    raise OSError("the workshop must not need a network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
page = runpy.run_path(sys.argv[1])
usage = resource.getrusage(resource.RUSAGE_SELF)
names = ["x_train", "y_train", "x_test", "y_test", "density", "said", "by_density", "wrong",
         "seen", "right", "sure", "alarm", "curve", "drawn", "meant", "as_meant"]
kept = {name: page[name] for name in names} | {"seconds": usage.ru_utime + usage.ru_stime}
kept["joint"] = page["log_joint"](page["density"], page["x_test"])
kept["joint_seen"] = page["log_joint"](page["density"], page["x_test"], page["seen"])
kept["joint_unseen"] = page["log_joint"](page["density"], page["x_test"], ~page["seen"])
kept["boundary"], kept["limit"] = page["boundary"], page["limit"]
kept["labels"] = np.repeat(np.arange(10), 20)
kept["mixed"] = np.array([page["mix"](label) for label in kept["labels"]])
flipped = page["x_test"].reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64)
kept["flipped"], kept["joint_flipped"] = flipped, page["log_joint"](page["density"], flipped)
with open(sys.argv[2], "wb") as file:
    pickle.dump(kept, file)
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """What the notebook computes and prints, run as a plain script in a process of its own."""
    target = tmp_path_factory.mktemp("workshop") / "kept.pickle"
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "DISPLAY": ""}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK), str(target)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kept = pickle.loads(target.read_bytes())
    return SimpleNamespace(**kept, printed=done.stdout, complaints=done.stderr)


@pytest.fixture(scope="module")
def cells():
    return jupytext.read(NOTEBOOK).cells


@pytest.fixture(scope="module")
def prose(cells):
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.fixture(scope="module")
def built(built_site):
    text = (built_site / PAGE).read_text(encoding="utf-8")
    return SimpleNamespace(text=text, article=BeautifulSoup(text, "lxml").find("article"))


# ---------------------------------------------------------------- the code


def test_it_runs_offline_in_seconds_and_without_a_complaint(workshop):
    assert workshop.seconds < 10
    assert workshop.complaints == ""


def test_the_density_is_scikit_learns(workshop):
    floor = 0.01 / workshop.x_train.var(axis=0).max()
    oracle = GaussianNB(var_smoothing=floor).fit(workshop.x_train, workshop.y_train)
    expected = oracle.predict_joint_log_proba(workshop.x_test)
    np.testing.assert_allclose(workshop.joint, expected, rtol=1e-9)


def test_the_density_is_the_one_of_the_page_on_naive_bayes(workshop):
    model = naive_bayes.train(workshop.x_train, workshop.y_train, floor=0.01)
    for theirs, ours in zip(model, workshop.density):
        np.testing.assert_allclose(theirs, ours)
    hidden = np.tile(~workshop.seen, (len(workshop.x_test), 1))
    expected = naive_bayes.log_joint(model, workshop.x_test, hidden)
    np.testing.assert_allclose(workshop.joint_seen, expected)


def test_a_hidden_pixel_only_loses_its_own_factor(workshop):
    both = workshop.joint_seen + workshop.joint_unseen - np.log(workshop.density[0])
    np.testing.assert_allclose(both, workshop.joint)


# ---------------------------------------------------------------- what the answers say


def test_the_boundary_answers_better_and_makes_none_of_the_guessed_mistakes(workshop):
    boundary = np.mean(workshop.said == workshop.y_test)
    density = np.mean(workshop.by_density == workshop.y_test)
    assert boundary > 0.955
    assert 0.88 < density < boundary - 0.03
    pairs = {
        frozenset(pair)
        for pair in zip(
            workshop.said[workshop.wrong].tolist(), workshop.y_test[workshop.wrong].tolist()
        )
    }
    assert pairs.isdisjoint({frozenset(p) for p in ((1, 7), (3, 8), (4, 9))})


def test_drawn_and_mixed_digits_are_equally_speckled(workshop):
    def neighbours_agree(images, labels):
        rows = (images - workshop.density[1][labels]).reshape(-1, 8, 8)
        return np.corrcoef(rows[:, :-1].ravel(), rows[:, 1:].ravel())[0, 1]

    assert neighbours_agree(workshop.x_test, workshop.y_test) > 0.3
    assert abs(neighbours_agree(workshop.drawn, workshop.meant)) < 0.1
    assert abs(neighbours_agree(workshop.mixed, workshop.labels)) < 0.1
    assert workshop.as_meant > 0.9
    assert workshop.drawn.min() >= 0 and workshop.drawn.max() <= 1


def test_with_half_hidden_the_helper_decides(workshop):
    density, mean, helper = workshop.right.values()
    assert mean + 0.03 < density < helper


def test_density_notices_noise_and_misses_double_exposures(workshop):
    usual, noise, double = (workshop.sure[k] for k in ("digits", "noise", "double exposures"))
    assert 0.6 < noise[0] < usual[0] - 0.1  # less sure than usual, far from unsure
    assert noise[1] > 0.9  # the density's answer hardly wavers
    assert double[0] < usual[0] - 0.1
    alarm = workshop.alarm
    assert alarm["noise"] == 1
    assert alarm["digits"] < 0.05 and alarm["double exposures"] <= alarm["digits"]


def test_the_boundary_is_never_clearly_behind_and_the_density_goes_flat(workshop):
    boundary, density = workshop.curve.mean(axis=1)
    assert (boundary > density - 0.02).all()
    assert abs(boundary[0] - density[0]) < 0.02
    assert boundary[-1] > density[-1] + 0.03
    assert abs(density[-1] - density[-2]) < 0.01 < boundary[-1] - boundary[-3]


def test_the_exercises_end_as_their_answer_says(workshop):
    x, y, upper = workshop.x_test, workshop.y_test, ~workshop.seen
    helper = Ridge(alpha=1).fit(workshop.x_train[:, upper], workshop.x_train[:, ~upper])
    guess = x.copy()
    guess[:, ~upper] = helper.predict(x[:, upper])
    density = np.mean(workshop.joint_unseen.argmax(axis=1) == y)
    mean = workshop.boundary.score(np.where(upper, x, workshop.x_train.mean(axis=0)), y)
    assert mean < density < workshop.boundary.score(guess, y)

    alarm = np.mean(np.logaddexp.reduce(workshop.joint_flipped, axis=1) < workshop.limit)
    assert 0.1 < alarm < 0.5
    assert workshop.boundary.predict_proba(workshop.flipped).max(axis=1).mean() > 0.7

    shared = np.array([_shared_variance(workshop, size).mean() for size in (2, 50, 100)])
    own = workshop.curve[1].mean(axis=0)[[1, 5, 6]]
    assert (abs(shared - own) < 0.03).all()
    assert abs(shared[2] - shared[1]) < 0.01


def _shared_variance(workshop, size):
    """Accuracy of the density with one variance for all digits, on the notebook's draws."""
    scores = []
    for k in range(workshop.curve.shape[1]):
        order = np.random.default_rng(k).permutation(len(workshop.x_train))
        labels = workshop.y_train[order]
        few = np.concatenate([order[labels == digit][:size] for digit in range(10)])
        model = naive_bayes.train(workshop.x_train[few], workshop.y_train[few])
        tied = model._replace(variance=np.tile(model.prior @ model.variance, (10, 1)))
        answer = naive_bayes.log_joint(tied, workshop.x_test).argmax(axis=1)
        scores.append(np.mean(answer == workshop.y_test))
    return np.array(scores)


# ---------------------------------------------------------------- the session


def test_the_timetable_adds_up_and_names_every_step(prose):
    table = re.findall(r"^\| (\d\. [^|]+?) \| (\d+) \|", prose, re.M)
    assert sum(int(minutes) for _, minutes in table) == 40
    assert [title for title, _ in table] == re.findall(r"^## (.+)$", prose, re.M)


def test_every_step_asks_looks_discusses_and_answers(prose):
    steps = re.split(r"^## ", prose, flags=re.M)[1:]
    for step in steps:
        assert "**Ask.**" in step and "**Discuss.**" in step, step[:30]
        assert "<summary>Expected answer</summary>" in step, step[:30]
    assert all("**Look.**" in step for step in steps[1:-1])


def test_no_measured_number_is_typed_into_the_prose(prose):
    assert re.findall(r"\d[.,]\d|\d\s?%|\bper cent\b", prose) == []


def test_no_cell_is_long_or_wide(cells):
    for cell in cells:
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            assert len(lines) <= 20, cell.source
            assert max(map(len, lines)) <= 78, cell.source


# ---------------------------------------------------------------- the built page


def test_the_page_shows_what_the_script_prints(built, workshop):
    outputs = [code.get_text() for code in built.article.select(".language-text pre")]
    assert "".join(outputs).split() == workshop.printed.split()


def test_every_cell_and_figure_is_on_the_page(built, cells):
    codes = [cell.source for cell in cells if cell.cell_type == "code"]
    shown = [code.get_text().strip() for code in built.article.select(".language-python pre")]
    assert shown == [code.strip() for code in codes]
    figures = built.article.select("figure > [role=img]")
    assert len(figures) == sum(code.count("\nshow(") for code in codes)
    assert all(len(figure["aria-label"].split()) > 4 for figure in figures)


def test_figures_follow_the_readers_scheme(built):
    for svg in built.article.select("figure svg"):
        text = re.sub(r"var\(--[\w-]+,\s*#[0-9a-f]{6}\)", "", str(svg))
        text = re.sub(r'href="data:[^"]*"', "", text)
        assert not re.search(r"(fill|stroke|color)\W{1,3}(#[0-9a-f]{3,6}|white|black)", text)
    assert OWN_PAPER not in built.text


def test_the_page_is_light_and_has_nothing_of_its_own(built, built_site):
    assert transfer(built_site / PAGE, built_site) <= 120_000
    article = str(built.article)
    for trace in ("<script", "<style", "<link", "jp-", "prompt", "clipboard-copy", "http://", "$"):
        assert trace not in re.sub(r"<(svg|code)\b.*?</\1>", "", article, flags=re.S), trace
    # Neither formulas nor italics: without them two fonts stay where they are.
    assert not built.article.select("math, em, i")
    other_hosts = r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//'
    assert not re.search(other_hosts, built.text)
    assert not re.search(r'<link\b[^>]*rel="stylesheet"[^>]*href="(?:https?:)?//', built.text)


def test_headings_go_down_one_level_at_a_time(built):
    levels = [int(h.name[1]) for h in built.article.find_all(re.compile("^h[1-6]$"))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_every_link_leads_to_a_page_or_a_file(built, built_site):
    links = [a["href"] for a in built.article.select("a[href]")]
    files = [link.split("#")[0] for link in links if "://" not in link]
    assert not [name for name in files if name.endswith(".md")]
    missing = [f for f in files if f and not ((built_site / PAGE).parent / f).is_file()]
    assert missing == []


def test_both_downloads_are_there_and_ready_to_run(built, built_site):
    folder = (built_site / PAGE).parent
    offered = [a["href"] for a in built.article.select("a[download]")]
    assert offered == ["both_families.ipynb", "both_families.py"]
    assert (folder / "both_families.py").read_bytes() == NOTEBOOK.read_bytes()
    book = nbformat.read(folder / "both_families.ipynb", as_version=4)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells)


def test_a_second_run_gives_the_same_bytes(built):
    book = notebook_pages._read(NOTEBOOK)
    notebook_pages._run(book, NOTEBOOK, ROOT, allow_errors=False)
    outputs = [o for cell in book.cells for o in notebook_pages.joined(cell.get("outputs", []))]
    figures = [o.data["text/html"].replace(OWN_PAPER, "") for o in outputs if "data" in o]
    assert figures and all(figure in built.text for figure in figures)
    again = "".join(o.text for o in outputs if "text" in o)
    shown = [code.get_text() for code in built.article.select(".language-text pre")]
    assert again.split() == "".join(shown).split()
    assert not re.search(r"0x[0-9a-f]{6,}", built.text)


# ---------------------------------------------------------------- the hook


def test_the_notebook_is_run_unless_the_environment_says_no(monkeypatch):
    for value, expected in (("true", True), ("false", False)):
        monkeypatch.setenv("EXECUTE_NOTEBOOKS", value)
        config = load_config(str(ROOT / "mkdocs.yml"))
        options = config.plugins["mkdocs-jupyter"].config
        assert options["execute"] is expected
        assert options["allow_errors"] is False and options["cache"] is False
        assert any("notebook_pages" in name for name in config.hooks)


def test_without_a_run_the_page_has_its_prose_and_code_only():
    text = notebook_pages.to_markdown(notebook_pages._read(NOTEBOOK), name="both_families")
    assert text.startswith("---\ndescription:")
    assert "```text" not in text and text.count("```python") > 10


def test_a_failing_cell_stops_the_build_and_is_found(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("# %% [markdown]\n# # Title\n\n# %%\nx = 1\nx / 0\n", encoding="utf-8")
    book = notebook_pages._read(path)
    with pytest.raises(PluginError, match=r"^broken\.py:6: .*ZeroDivisionError: division by zero$"):
        notebook_pages._run(book, path, tmp_path, allow_errors=False)


def test_a_warning_in_the_notebook_fails_a_strict_build(caplog):
    cell = nbformat.v4.new_code_cell(
        "f()",
        outputs=[nbformat.v4.new_output("stream", name="stderr", text="UserWarning:\n careful\n")],
    )
    title = nbformat.v4.new_markdown_cell("# Title")
    notebook_pages.to_markdown(nbformat.v4.new_notebook(cells=[title, cell]), name="n")
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "the notebook warns: UserWarning: careful"
    ]
    assert caplog.records[0].name.startswith("mkdocs.")


def test_text_that_arrives_in_pieces_is_one_output():
    pieces = [nbformat.v4.new_output("stream", name="stdout", text=t) for t in ("a\n", "b\n")]
    picture = nbformat.v4.new_output("display_data", data={"text/html": "<p>"})
    whole = notebook_pages.joined([*pieces, picture, pieces[0]])
    assert [o.get("text") for o in whole] == ["a\nb\n", None, "a\n"]
    assert pieces[0].text == "a\n"


def test_a_figure_needs_a_sentence():
    figure = draw_digits(np.zeros((10, 64)))
    try:
        with pytest.raises(ValueError, match="in a sentence"):
            to_html(figure, "digits")
        assert 'aria-label="Ten &quot;blank&quot; digits here"' in to_html(
            figure, 'Ten "blank" digits here'
        )
    finally:
        plt.close(figure)
