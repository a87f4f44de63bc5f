"""The collector: pages are test files, and a failure is reported where its author can mend it."""

import shutil
import subprocess
import sys

import pytest

from snippets.site import ROOT
from snippets.site.collector import expanded
from snippets.site.page import page_files, read_page

pytest_plugins = ["pytester"]
PAGE = "docs/discriminative/line.md"


@pytest.fixture
def run_pages(site, pytester, monkeypatch):
    """Run pytest on the small site's page, in a process of its own."""
    shutil.copytree(site.root, pytester.path, symlinks=True, dirs_exist_ok=True)
    for name in ("site", "shared"):
        link = pytester.path / "snippets" / name
        link.unlink()
        # A copy, so that the machinery's root is the small site.
        shutil.copytree(
            ROOT / "snippets" / name, link, ignore=shutil.ignore_patterns("vendor", "theme")
        )
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))

    def run():
        return pytester.runpytest_subprocess(
            "-p",
            "no:codeblocks",
            "-p",
            "snippets.site.collector",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:hypothesispytest",
            "-o",
            "markers=page",
            PAGE,
        )

    return run


def edit(pytester, file, old, new):
    path = pytester.path / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_each_block_is_a_test(run_pages):
    run_pages().assert_outcomes(passed=5)


def test_a_failure_names_the_pages_and_the_modules_line(run_pages, pytester):
    edit(pytester, "snippets/discriminative/line.py", "sum(a * a for a in x)", "0")
    result = run_pages()
    result.assert_outcomes(passed=2, failed=3)
    lines = (pytester.path / PAGE).read_text().splitlines()
    page_line = next(n for n, text in enumerate(lines, 1) if text.startswith("slope = train"))
    result.stdout.fnmatch_lines(
        [
            f"{PAGE}:{page_line}: ZeroDivisionError*(in snippets/discriminative/line.py:*)",
            f'*File "{PAGE}", line {page_line}, in <module>',
        ]
    )
    assert "snippets/site/worker.py" not in result.stdout.str()


def test_changed_output_is_a_failure(run_pages, pytester):
    edit(pytester, "snippets/discriminative/line.py", "start=0.0", "start=0.5")
    result = run_pages()
    result.stdout.fnmatch_lines(["*not what docs/outputs/discriminative/line/slope.txt says*"])
    assert result.ret == 1


def test_a_reason_widens_the_tolerance(run_pages, pytester):
    edit(pytester, "snippets/discriminative/line.py", "start=0.0", "start=0.3")
    edit(
        pytester,
        PAGE,
        "<!-- metrics: slope -->",
        "<!-- metrics: slope -->\n<!-- tolerance: 25 % because lines wobble -->",
    )
    run_pages().assert_outcomes(passed=5)


def test_a_page_that_cannot_be_read_fails(run_pages, pytester):
    edit(pytester, PAGE, "line.py:train", "line.py:fit")
    result = run_pages()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f"{PAGE}:*: quotes a missing section*sections there: imports, train"]
    )


@pytest.mark.parametrize("path", page_files(), ids=lambda p: p.stem)
def test_pytest_codeblocks_sees_the_blocks_that_the_site_sees(path):
    import io

    from pytest_codeblocks.main import extract_from_buffer

    page = read_page(path)
    seen = [b for b in extract_from_buffer(io.StringIO(expanded(page))) if b.syntax == "python"]
    assert len(seen) == len(page.blocks)


def test_workers_keep_a_group_together(tmp_path):
    """A page's blocks must meet in one worker; with another pytest they once did not, silently."""
    code = (
        "import os, pathlib, pytest, time\n"
        "@pytest.mark.xdist_group('one')\n"
        "@pytest.mark.parametrize('k', range(6))\n"
        "def test(k):\n"
        "    time.sleep(0.1)\n"
        "    pathlib.Path(os.environ['PYTEST_XDIST_WORKER']).touch()\n"
    )
    (tmp_path / "test_it.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-n2", "--dist=loadgroup", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("gw*"))) == 1
