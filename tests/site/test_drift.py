"""Drift: each recorded number that no longer holds is named, and nothing recorded is touched."""

import json
import re

import pytest

from snippets.site.drift import Drift, main, metrics, numbers, report

OUTPUTS = "docs/outputs/discriminative/line"
PAGE = "docs/discriminative/line.md"
STUDY = '''

def study(*, sizes=(2, 3)):
    """The slope at each size."""
    slopes = {str(size): train([1.0] * size, [2.5] * size) for size in sizes}
    print("slopes", *slopes.values())
    return slopes
'''


def contents(site):
    return {p: p.read_bytes() for p in sorted(site.root.rglob("docs/outputs/**/*")) if p.is_file()}


def run(site, *arguments):
    return main(["line", *arguments], root=site.root)


def test_what_holds_is_silent(site, capsys, tmp_path):
    before = contents(site)
    assert run(site, "--report", str(tmp_path / "drift.md")) == 0
    assert capsys.readouterr().out == "No recorded values have drifted, in 1 runs.\n"
    said = (tmp_path / "drift.md").read_text(encoding="utf-8")
    assert said.startswith("No recorded values have drifted") and "|" not in said
    assert "Compared: discriminative/line." in said
    assert contents(site) == before


def test_a_changed_number_is_named_with_both_values(site, capsys, tmp_path):
    site.write(f"{OUTPUTS}/slope.txt", "slope 2.31\n")
    before = contents(site)
    assert run(site, "--report", str(tmp_path / "drift.md")) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{OUTPUTS}/slope.txt:1: recorded 2.31, now 2.04, tolerance 5 %",
        "1 recorded value has drifted, in 1 runs.",
    ]
    said = (tmp_path / "drift.md").read_text(encoding="utf-8")
    assert f"| {OUTPUTS}/slope.txt:1 | 2.31 | 2.04 | 5 % |" in said.splitlines()
    assert "python -m snippets record --force discriminative/line" in said
    assert contents(site) == before


def test_the_pages_own_tolerance_holds(site):
    site.write(f"{OUTPUTS}/slope.txt", "slope 2.31\n")
    site.replace(
        PAGE,
        "<!-- metrics: slope -->",
        "<!-- metrics: slope -->\n<!-- tolerance: 25 % because it is a test -->",
    )
    assert run(site) == 0


def test_a_changed_metric_is_named(site, capsys):
    recorded = json.loads(site.read(f"{OUTPUTS}/run.json"))
    recorded["metrics"]["slope"] = 3.04
    site.write(f"{OUTPUTS}/run.json", json.dumps(recorded))
    assert run(site) == 1
    assert f"{OUTPUTS}/run.json: slope: recorded 3.0, now 2.0" in capsys.readouterr().out


def test_a_changed_word_in_a_figure_is_named(site, capsys):
    svg = site.read(f"{OUTPUTS}/line.svg")
    site.write(f"{OUTPUTS}/line.svg", svg.replace("</svg>", "<text>gone</text></svg>"))
    assert run(site) == 1
    assert f"{OUTPUTS}/line.svg: recorded as quoted, now" in capsys.readouterr().out


def test_a_page_that_fails_is_named(site, capsys):
    site.replace(PAGE, "slope = train(", "slope = 1 / 0\nslope = train(")
    assert run(site) == 1
    said = capsys.readouterr().out
    at = f"{PAGE}:{site.line_of(PAGE, '1 / 0')}"
    assert f"{at}: recorded a run to the end, now ZeroDivisionError" in said


def test_studies_run_again_at_full_size(site, capsys):
    module = site.root / "snippets/discriminative/line.py"
    module.write_text(module.read_text(encoding="utf-8") + STUDY, encoding="utf-8")
    # Recorded by the run itself: no other test imports this copy of the module.
    table, summary = f"{OUTPUTS}/study.txt", f"{OUTPUTS}/study.json"
    site.write(table, "slopes 2.5 2.9\n")
    site.write(summary, json.dumps({"metrics": {"2": 2.5, "3": 2.9}}))
    before = contents(site)
    assert run(site, "--studies") == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{table}:1: recorded 2.9, now 2.5, tolerance 5 %",
        f"{summary}: 3: recorded 2.90, now 2.50, tolerance 5 %",
        "2 recorded values have drifted, in 2 runs.",
    ]
    assert "study of discriminative/line: 2 drifted" in said.err
    assert contents(site) == before


def test_a_misspelt_page_is_an_error_and_not_a_drift(site, capsys):
    assert main(["discriminative/lime"], root=site.root) == 2
    assert "did you mean discriminative/line" in capsys.readouterr().err


def test_every_number_of_a_line_is_named():
    found = list(numbers("a.txt", "x 1.00 y 2.00\nz 3.00\n", "x 1.50 y 9.00\nz 3.01\n", 0.05))
    assert [(d.place, d.recorded, d.now) for d in found] == [
        ("a.txt:1", "1.00", "1.50"),
        ("a.txt:1", "2.00", "9.00"),
    ]


@pytest.mark.parametrize(
    ("now", "what"),
    [("y 1.00\n", "words"), ("x 1.00\nmore\n", "lines"), ("x none\n", "words")],
)
def test_words_and_lines_are_compared_too(now, what):
    (found,) = numbers("a.txt", "x 1.00\n", now, 0.05)
    assert found.tolerance == f"none: {what}"


@pytest.mark.parametrize(
    ("recorded", "now", "place"),
    [
        ({"a": [1.0, 2.0]}, {"a": [1.0, 3.0]}, "run.json: a.1"),
        ({"a": 1.0}, {"b": 1.0}, "run.json: a"),
        ({"a": "yes"}, {"a": "no"}, "run.json: a"),
        ({"a": True}, {"a": False}, "run.json: a"),
        ({"a": [1.0]}, {"a": [1.0, 2.0]}, "run.json: a.1"),
    ],
)
def test_metrics_are_compared_through_and_through(recorded, now, place):
    found = list(metrics("run.json", recorded, now, 0.05, {}))
    assert found[0].place == place


def test_a_metric_is_compared_as_pages_show_it():
    near, shown = ({"a": 0.0004}, {"a": 0.0009}), {"a": [".2f"]}
    assert list(metrics("run.json", *near, 0.05, {})) != []
    assert list(metrics("run.json", *near, 0.05, shown)) == []


def test_the_report_stays_a_table_whatever_a_value_says():
    said = report({"a/page": [Drift("a.txt:1", "'x | y'", "'two\nlines'", "none: words")]})
    row = next(line for line in said.splitlines() if line.startswith("| a.txt:1"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
