"""Recording: fresh pages cost nothing, the same run writes the same bytes, nothing good is lost."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from snippets.site import ROOT
from snippets.site.built import build
from snippets.site.execute import run_page
from snippets.site.fingerprint import fingerprint
from snippets.site.notebook import to_notebook
from snippets.site.problems import PageError
from snippets.site.record import record, recover, state

PAGE = "docs/discriminative/line.md"
MODULE = "snippets/discriminative/line.py"
OUTPUTS = "docs/outputs/discriminative/line"


def contents(site):
    folder = site.root / OUTPUTS
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_what_is_recorded(site):
    run = json.loads(site.read(f"{OUTPUTS}/run.json"))
    assert run["metrics"] == {"slope": pytest.approx(2.04)}
    assert site.read(f"{OUTPUTS}/slope.txt") == "slope 2.04\n"
    assert set(run["files"]) == {"line.svg", "slope.txt"}
    assert run["seconds"] > 0 and run["peak_mib"] > 10
    assert run["versions"]["python"] == sys.version.split()[0]
    assert state(site.page()) == ("fresh", "")


def test_a_fresh_page_is_not_run_again(site):
    before = {p: p.stat().st_mtime_ns for p in (site.root / OUTPUTS).iterdir()}
    started = time.perf_counter()
    assert record(site.page()) == "fresh"
    assert time.perf_counter() - started < 0.1
    assert before == {p: p.stat().st_mtime_ns for p in (site.root / OUTPUTS).iterdir()}


def test_recording_twice_writes_the_same_bytes(site):
    before = contents(site)
    record(site.page(), force=True)
    record(site.page(), force=True)
    assert contents(site) == before


def test_a_changed_number_makes_it_stale_and_a_comment_does_not(site):
    mark = fingerprint(site.page())
    site.replace(MODULE, "    return start", "    # A comment.\n    return start")
    site.replace(MODULE, "Least squares by hand.", "Least squares.")
    assert fingerprint(site.page()) == mark
    site.replace(MODULE, "start=0.0", "start=0.5")
    assert state(site.page())[0] == "stale"


def test_a_change_in_an_imported_module_makes_it_stale(site):
    site.write("snippets/discriminative/helper.py", '"""Help."""\n\nOFFSET = 1\n')
    site.replace(
        PAGE, 'print(f"slope', 'from snippets.discriminative.helper import OFFSET\nprint(f"slope'
    )
    record(site.page())
    assert state(site.page())[0] == "fresh"
    site.write("snippets/discriminative/helper.py", '"""Help."""\n\nOFFSET = 2\n')
    assert state(site.page())[0] == "stale"


def test_an_output_edited_by_hand_is_found(site):
    site.write(f"{OUTPUTS}/slope.txt", "slope 9.99\n")
    assert state(site.page()) == ("stale", "slope.txt was edited by hand")


def test_a_failing_page_keeps_the_last_good_outputs(site):
    before = contents(site)
    site.replace(MODULE, "sum(a * a for a in x)", "0")
    with pytest.raises(PageError) as caught:
        record(site.page())
    problem = caught.value.problem
    assert (problem.file, problem.line) == (PAGE, site.line_of(PAGE, "slope = train"))
    assert "ZeroDivisionError" in problem.message
    assert f'"{MODULE}", line {site.line_of(MODULE, "return start")}' in problem.mend
    assert contents(site) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal to send there")
def test_an_interrupted_recording_keeps_the_last_good_outputs(site):
    before = contents(site)
    wait = "import pathlib, time\npathlib.Path('reached').touch()\ntime.sleep(300)\n"
    site.replace(PAGE, "slope = train(", wait + "slope = train(")
    code = (
        "import sys; from pathlib import Path; from snippets.site.page import read_page;"
        "from snippets.site.record import record;"
        f"root = Path({str(site.root)!r}); record(read_page(root / {PAGE!r}, root))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        # A run in the background is started deaf to this signal, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120  # a busy machine takes long to get there
    while not (site.root / "reached").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.poll() is None, "it ended before it could be interrupted"
    process.send_signal(signal.SIGINT)
    process.wait(120)
    assert process.returncode != 0
    assert contents(site) == before


def test_a_swap_cut_off_between_its_renames_is_undone(site):
    before = contents(site)
    folder = site.root / OUTPUTS
    os.rename(folder, folder.with_name(".line.old"))
    recover(site.page())
    assert contents(site) == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plt.show()", "pass", "never shows it"),
        ("plt.show()", "plt.show()\nsubplots()\nplt.show()", "shows 2 figures, the page quotes 1"),
        ('print(f"slope {slope:.2f}")', "pass", "prints nothing"),
        ("assert slope > 1", "print(slope)", "shows no output"),
        ("metrics: slope", "metrics: slop", "does not define"),
        (
            "axes.plot([0, 1], [0, slope])",
            "axes.plot([0, 1], [0, slope], color='#123456')",
            "uses colour #123456",
        ),
        (
            "slope = train(",
            "import urllib.request as u\nu.urlopen('http://192.0.2.1/')\nslope = train(",
            "must not use the network",
        ),
        ("slope = train(", "import os\nos._exit(3)\nslope = train(", "stopped with code 3"),
        ("slope = train(", "slope = = train(", "invalid syntax"),
    ],
)
def test_what_a_page_may_not_do(site, old, new, message):
    indent = "    " if old.startswith("assert") else ""
    site.replace(PAGE, old, new.replace("\n", "\n" + indent))
    with pytest.raises(PageError) as caught:
        record(site.page(), force=True)
    assert message in str(caught.value)
    assert caught.value.problem.file == PAGE
    assert caught.value.problem.line > 0


def test_a_run_writes_nothing(site):
    before = contents(site)
    run = run_page(site.page())
    assert [r.error for r in run.results] == [None] * 5
    assert run.results[2].printed == "slope 2.04\n"
    assert contents(site) == before


def test_the_notebook_is_valid_and_is_the_page(site):
    page = site.page()
    book = nbformat.reads(to_notebook(page), as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [c.source.strip() for c in code] == [b.code.strip() for b in page.blocks]
    assert code[2].outputs[0].text == "slope 2.04\n"
    assert "svg" in code[3].outputs[0].data["image/svg+xml"]
    prose = "\n".join(c.source for c in book.cells if c.cell_type == "markdown")
    assert "{{" not in prose and "--8<--" not in prose and "its slope is 2.0." in prose


def test_what_lies_under_outputs_is_never_run(site, tmp_path):
    """Recorded outputs are data: code that somebody puts there is neither imported nor executed."""
    mark = tmp_path / "executed"
    code = f"open({str(mark)!r}, 'w').close()\n"
    outputs = site.page().outputs
    for name in ("__init__.py", "conftest.py", "sitecustomize.py", "line.py", "test_evil.py"):
        (outputs / name).write_text(code, encoding="utf-8")
    (outputs / "evil.txt").write_text(f"```python\n{code}```\n", encoding="utf-8")
    quote = '--8<-- "docs/outputs/discriminative/line/evil.txt"'
    site.replace(PAGE, "## Measured", f"{quote}\n\n## Measured")
    assert [block.code for block in site.page().blocks if str(mark) in block.code] == []
    record(site.page(), force=True)
    assert build(site.root, tmp_path / "site") == []
    assert not mark.exists()


def test_no_test_is_collected_from_outputs(tmp_path):
    for folder in ("docs", "docs/outputs/page"):
        (tmp_path / folder).mkdir(parents=True)
        name = folder.replace("/", "_")
        (tmp_path / folder / f"test_{name}.py").write_text("def test(): pass\n", encoding="utf-8")
    settings = str(ROOT / "pyproject.toml")
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-c", settings, "docs"]
    told = subprocess.run(
        [*command, "--rootdir", "."], cwd=tmp_path, capture_output=True, text=True
    )
    assert "test_docs.py" in told.stdout and "test_docs_outputs_page.py" not in told.stdout
