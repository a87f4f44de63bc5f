"""The counts that the site shows of itself, and the table at the end of a test run."""

from types import SimpleNamespace

import gate_report
import yaml
from browsing import entries

from snippets.site import ROOT, gates
from snippets.site.page import page_files, read_page
from snippets.site.planted import load


def test_counts_are_those_of_the_lists():
    table = gates.table(ROOT, [read_page(path, ROOT) for path in page_files(ROOT)])
    mistakes = len(list((ROOT / "tests/site/mistakes").glob("*.yml")))
    assert f"must be caught, where they are | {mistakes} |" in table
    assert f"that a test must catch | {len(load())} |" in table
    assert f"Visits of a real browser | {len(entries()) * 6} |" in table
    assert "| `snippets/generative/vae.py` |" in table


def test_every_mistake_is_counted_under_its_gate():
    found = [yaml.safe_load(p.read_text()) for p in (ROOT / "tests/site/mistakes").glob("*.yml")]
    assert {mistake["by"] for mistake in found} == set(gates.BY)


def test_searches_are_counted_without_importing(tmp_path):
    test = tmp_path / "tests/site/test_browser_search.py"
    test.parent.mkdir(parents=True)
    test.write_text('QUERIES = {"a": ["one", "two"], "b": ["three"]}\n1 / 0\n', encoding="utf-8")
    assert gates._queries(tmp_path) == 3


def test_a_site_without_tests_has_no_table(site):
    assert gates.table(site.root, []) == ""


def report(nodeid: str, when: str = "call", **properties):
    return SimpleNamespace(nodeid=nodeid, when=when, user_properties=list(properties.items()))


def test_the_report_counts_what_was_tried_and_what_was_caught():
    name = "test_each_mistake_is_caught_where_it_is"
    lines = gate_report.lines(
        [
            report(name, mistake="dead_link|check|docs/a.md:3"),
            report(name, when="setup", mistake="dead_link|check|docs/a.md:3"),
            report(name, mistake="no_line|run|docs/a.md:0"),
            report(name),
            report("b", planted="generative/vae|test_a"),
            report("b", planted="generative/vae|"),
            report("c", axe="index|6|2"),
            report("d", builds="abc|abd|12"),
        ]
    )
    assert "2 of 3 caught (1 by check, 1 by run)" in lines[0]
    assert "1 of 3 with file and line" in lines[1]
    assert "1 of 2 caught" in lines[2]
    assert "2 violations in 6 visits of 1 pages" in lines[4]
    assert "12 files, sha256 abc and abd" in lines[5]


def test_the_report_says_nothing_of_gates_that_did_not_run():
    assert gate_report.lines([report("a")]) == []
