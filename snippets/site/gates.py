"""How many gates there are, counted from the lists that the tests read: nothing here is typed."""

import ast
from collections import Counter
from pathlib import Path

import yaml

from snippets.site.page import Page, nav_pages

SCHEMES, WIDTHS = ("light", "dark"), (390, 820, 1440)
BY = {
    "check": "by `make check`, without running anything",
    "build": "in the built pages",
    "run": "when its page runs",
    "test": "when the test run compares it with what was recorded",
}


def table(root: Path, pages: list[Page]) -> str:
    """A Markdown table of the gates, then one of planted bugs by module; "" without tests."""
    mistakes = [
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted((root / "tests" / "site" / "mistakes").glob("*.yml"))
    ]
    bugs = root / "tests" / "planted_bugs.yml"
    if not mistakes or not bugs.is_file():
        return ""
    planted = yaml.safe_load(bugs.read_text(encoding="utf-8"))
    reachable = len(nav_pages(root) or ())
    visits = reachable * len(SCHEMES) * len(WIDTHS)
    caught = Counter(mistake["by"] for mistake in mistakes)
    where = "; ".join(f"{caught[by]} {how}" for by, how in BY.items() if caught[by])
    rows = [
        (
            "Blocks run again, their output and figures compared",
            sum(len(p.blocks) for p in pages),
            "",
        ),
        ("One-mistake sites that must be caught, where they are", len(mistakes), where),
        (
            "Bugs planted in modules that a test must catch",
            sum(map(len, planted.values())),
            "below",
        ),
        (
            "Visits of a real browser",
            visits,
            f"{reachable} pages, {' and '.join(SCHEMES)}, "
            f"{', '.join(map(str, WIDTHS))} pixels wide: accessibility (WCAG 2.2 AA), contrast of "
            "plots, diagrams, formulas and code, overflow, layout shift, console, other hosts",
        ),
        ("Searches that must lead to the page that is meant", _queries(root), "in the first three"),
    ]
    lines = ["| Gate | Count | |", "|---|---:|---|"]
    lines += [f"| {what} | {count:,} | {how} |" for what, count, how in rows]
    lines += ["", "| Module | Planted bugs |", "|---|---:|"]
    lines += [f"| `snippets/{page}.py` | {len(edits)} |" for page, edits in planted.items()]
    return "\n".join(lines) + "\n"


def _queries(root: Path) -> int:
    """The searches listed in the browser's test, read and not imported."""
    tree = ast.parse((root / "tests/site/test_browser_search.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "QUERIES":
            return sum(map(len, ast.literal_eval(node.value).values()))
    return 0
