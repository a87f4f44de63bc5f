"""The rules are themselves tested: each file in mistakes/ breaks the small site in one way.

A mistake names the edit, the file and the text on the line where it must be reported, and the
words of the message. `by: check` is found without running anything, `by: build` in the built
HTML, `by: run` when the page runs.
"""

import re
from pathlib import Path

import pytest
import yaml

from snippets.site.built import build, check_site
from snippets.site.problems import PageError
from snippets.site.record import record
from snippets.site.rules import check_source

FOLDER = Path(__file__).parent / "mistakes"
MISTAKES = {path.stem: path for path in sorted(FOLDER.glob("*.yml"))}


def apply(mistake: dict, site) -> None:
    for edit in mistake["edits"]:
        if "find" in edit:
            site.replace(edit["file"], edit["find"], edit["replace"])
        elif "rename" in edit:
            (site.root / edit["file"]).rename(site.root / edit["rename"])
        elif edit.get("remove"):
            (site.root / edit["file"]).unlink()
        else:
            site.write(edit["file"], edit["write"])
    if mistake.get("record"):
        record(site.page(), force=True)


def problems(mistake: dict, site):
    if mistake["by"] == "run":
        with pytest.raises(PageError) as caught:
            record(site.page(), force=True)
        return [caught.value.problem]
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


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_caught_where_it_is(name, site):
    mistake = yaml.safe_load(MISTAKES[name].read_text(encoding="utf-8"))
    apply(mistake, site)
    found = problems(mistake, site)
    expected = mistake["expect"]
    matching = [
        p for p in found if p.file == expected["file"] and re.search(expected["message"], p.message)
    ]
    assert matching, f"{mistake['why']}\nfound only:\n" + "\n".join(map(str, found))
    line = site.line_of(expected["file"], expected["line"]) if expected.get("line") else 0
    assert line in [p.line for p in matching], (
        f"reported on {[p.line for p in matching]}, not {line}"
    )
    mend = next(p.mend for p in matching if p.line == line)
    assert re.search(expected["mend"], mend), mend
