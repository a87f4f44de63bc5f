"""Reading a page: blocks, what follows them, and where every line is from."""

import pytest

from snippets.site.page import find_page, read_page
from snippets.site.problems import PageError
from snippets.site.quotes import Line, QuoteError, SectionError, expand, sections, split_target

PAGE = "docs/discriminative/line.md"
MODULE = "snippets/discriminative/line.py"


def test_blocks_are_found_in_order_with_what_follows_them(site):
    page = site.page()
    assert page.problems == []
    assert [b.line for b in page.blocks] == sorted(b.line for b in page.blocks)
    assert len(page.blocks) == 5
    training, drawing = page.blocks[2], page.blocks[3]
    assert training.output == "docs/outputs/discriminative/line/slope.txt"
    assert training.metrics == ["slope"]
    assert [f.path for f in drawing.figures] == ["docs/outputs/discriminative/line/line.svg"]
    assert drawing.figures[0].alternative.startswith("A straight line")


def test_quoted_lines_know_their_file_and_line(site):
    block = site.page().blocks[1]
    first = block.lines[0]
    assert first.text.startswith("def train")
    assert (first.file, first.number) == (MODULE, site.line_of(MODULE, "def train"))
    returned = next(line for line in block.lines if "return start" in line.text)
    assert returned.number == site.line_of(MODULE, "return start")


def test_indented_blocks_lose_their_indentation_only(site):
    site.replace(PAGE, "    assert slope > 1", "    if slope:\n        assert slope > 1")
    assert site.page().blocks[4].code == "if slope:\n    assert slope > 1\n"


def test_every_quoted_line_is_what_the_preprocessor_gives(site):
    quote = Line(f'--8<-- "{MODULE}:train"', PAGE, 1)
    lines = expand(quote, site.root)
    module = site.read(MODULE).splitlines()
    assert all(module[line.number - 1] == line.text for line in lines if line.text)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("a/b.py:model", ("a/b.py", "model")),
        ("a/b.py", ("a/b.py", None)),
    ],
)
def test_targets_split(target, parts):
    assert split_target(target) == parts


def test_missing_section_names_the_others(site):
    with pytest.raises(QuoteError, match="missing section") as caught:
        expand(Line(f'--8<-- "{MODULE}:trian"', PAGE, 1), site.root)
    assert "imports, train" in caught.value.mend


def test_a_line_range_is_refused(site):
    with pytest.raises(QuoteError, match="by line number"):
        expand(Line(f'--8<-- "{MODULE}:3:5"', PAGE, 1), site.root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# --8<-- [end:train]\n", "", "never closed"),
        ("# --8<-- [start:train]\n", "", "ends without a beginning"),
        ("[start:train]", "[start:imports]", "begins twice"),
    ],
)
def test_broken_markers_are_named_with_their_line(site, old, new, message):
    site.replace(MODULE, old, new)
    with pytest.raises(SectionError, match=message) as caught:
        sections(site.root / MODULE)
    assert caught.value.line > 0


def test_a_misspelt_page_gets_the_nearest_name(site):
    with pytest.raises(PageError, match=r"did you mean discriminative/line\?"):
        find_page("discriminative/lime", site.root)
    assert find_page("line", site.root).key == "discriminative/line"
    assert find_page("docs/discriminative/line.md", site.root).key == "discriminative/line"


def test_a_tilde_fence_hides_no_python(site):
    path = site.write("docs/tilde.md", "# T\n\n~~~python\n1 / 0\n~~~\n")
    assert read_page(path, site.root).blocks == []
    assert read_page(path, site.root).fences[0].marks == "~~~"
