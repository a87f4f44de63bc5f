"""The rules are themselves tested: each file in mistakes/ breaks the small site in one way.

A mistake names the edit, the file and the text on the line where it must be reported, and the
words of the message. `by: check` is found without running anything, `by: build` in the built
HTML, `by: run` when the page is recorded, `by: test` when the test run compares it with what was
recorded. A mistake without a line says `whole_file: true`: no line of the file is wrong.
"""

import base64
import re
from pathlib import Path

import pytest
import yaml

from snippets.site.built import build, check_site
from snippets.site.collector import differences
from snippets.site.execute import run_page
from snippets.site.problems import PageError, Problem
from snippets.site.record import record
from snippets.site.rules import check_source

FOLDER = Path(__file__).parent / "mistakes"
MISTAKES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.yml"))
}


def apply(mistake: dict, site) -> None:
    for edit in mistake["edits"]:
        if "find" in edit:
            site.replace(edit["file"], edit["find"], edit["replace"])
        elif "rename" in edit:
            (site.root / edit["file"]).rename(site.root / edit["rename"])
        elif edit.get("remove"):
            (site.root / edit["file"]).unlink()
        elif "bytes" in edit:
            (site.root / edit["file"]).write_bytes(bytes(edit["bytes"]))
        elif "base64" in edit:
            (site.root / edit["file"]).write_bytes(base64.b64decode(edit["base64"]))
        else:
            site.write(edit["file"], edit["write"])
    if mistake.get("record"):
        record(site.page(), force=True)


def as_problem(said: str) -> Problem:
    """What the test run says of a block, taken apart again."""
    match = re.fullmatch(r"(?P<file>[^:]+):(?P<line>\d+): (?P<message>.*); (?P<mend>[^;]*)", said)
    return Problem(match["file"], int(match["line"]), match["message"], match["mend"])


def problems(mistake: dict, site):
    if mistake["by"] == "run":
        with pytest.raises(PageError) as caught:
            record(site.page(), force=True)
        return [caught.value.problem]
    if mistake["by"] == "test":
        record(site.page(), force=True)
        run = run_page(site.page())
        said = [why for block in run.page.blocks for why in differences(run, block)]
        return [as_problem(why) for why in said]
    found = check_source(site.root)
    if mistake["by"] == "check":
        return found
    stale = [p for p in found if "stale" not in p.message and "notebook" not in p.message]
    assert not stale, f"already found without building: {stale}"
    target = site.root / "site"
    return build(site.root, target) or list(check_site(site.root, target))


def test_the_small_site_has_no_problem(site):
    assert check_source(site.root) == []
    assert build(site.root, site.root / "site") == []
    assert list(check_site(site.root, site.root / "site")) == []


def named(mistakes: dict) -> list:
    """One parameter for each; only what Mermaid itself must find needs a browser."""
    browser = pytest.mark.browser
    return [
        pytest.param(name, marks=browser if mistake.get("needs") == "chromium" else ())
        for name, mistake in mistakes.items()
    ]


@pytest.mark.parametrize("name", named(MISTAKES))
def test_each_mistake_is_caught_where_it_is(name, site, record_property):
    mistake = MISTAKES[name]
    apply(mistake, site)
    found = problems(mistake, site)
    expected = mistake["expect"]
    matching = [
        p for p in found if p.file == expected["file"] and re.search(expected["message"], p.message)
    ]
    assert matching, f"{mistake['why']}\nfound only:\n" + "\n".join(map(str, found))
    assert ("line" in expected) != bool(expected.get("whole_file")), "one of the two"
    line = site.line_of(expected["file"], expected["line"]) if "line" in expected else 0
    assert line in [p.line for p in matching], (
        f"reported on {[p.line for p in matching]}, not {line}"
    )
    mend = next(p.mend for p in matching if p.line == line)
    assert re.search(expected["mend"], mend), mend
    record_property("mistake", f"{name}|{mistake['by']}|{expected['file']}:{line}")
