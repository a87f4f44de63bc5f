"""The five commands, as a contributor meets them."""

import subprocess
import sys

import pytest

from snippets.site import ROOT
from snippets.site.cli import main


def test_help_names_the_commands_and_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("list", "run", "study", "record", "check", "generative/vae"):
        assert word in text


def test_a_misspelt_page_gets_the_nearest_in_one_line(capsys):
    assert main(["run", "generative/va"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "did you mean generative/vae" in said


def test_list_shows_every_lesson_with_its_state(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("generative/naive_bayes "))
    assert row.split()[1] == "fresh" and float(row.split()[2]) > 0


def test_a_page_without_study_says_where_to_write_it(capsys):
    assert main(["study", "choosing/claims"]) == 1
    assert "define study() in snippets/choosing/claims.py" in capsys.readouterr().err


def test_python_m_snippets_starts_quickly():
    command = [sys.executable, "-X", "importtime", "-m", "snippets", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    # Asking for help must not pay for torch or matplotlib.
    assert "torch" not in done.stderr and "matplotlib" not in done.stderr
