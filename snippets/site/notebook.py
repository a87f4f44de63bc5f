"""The page as a notebook: the same prose, the same blocks, the recorded outputs.

Made from the page's text and the recorded files alone, so that it costs nothing to make again
when only the prose has changed.
"""

import re

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from snippets.site.numbers import fill
from snippets.site.page import EXPECTED, Block, Page
from snippets.site.quotes import QUOTE

PREFACE = (
    "*This notebook is the page “{title}” of Boundary & Density, with the outputs that were "
    "recorded for it. It imports the site's own modules: run it in a checkout, after "
    "`make install`, with the folder of the checkout as the working directory.*"
)
TAB = re.compile(r"^(?P<indent>\s*)(?:===!?|!!!|\?\?\?\+?)\s+(?P<rest>.*)$")


def to_notebook(page: Page) -> str:
    """The notebook's text: valid nbformat 4.5, the same bytes for the same page and outputs."""
    cells = [new_markdown_cell(PREFACE.format(title=page.title))]
    last = 0
    lines = page.text.splitlines()
    python = {block.line: block for block in page.blocks}
    covered = 0
    for fence in page.fences:
        block = python.get(fence.line)
        end = fence.line + len(fence.raw) + 1
        if block is not None:
            _add_prose(cells, lines[last : fence.line - 1], page)
            cells.append(_code_cell(page, block))
            last = end
        elif covered < fence.line and _is_output(lines, fence.line):
            _add_prose(cells, lines[last : fence.line - 1], page)
            last = end
    _add_prose(cells, lines[last:], page)
    for k, cell in enumerate(cells):
        cell["id"] = f"cell-{k}"
    book = new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
    )
    nbformat.validate(book)
    return nbformat.writes(book, indent=1) + "\n"


def _is_output(lines: list[str], fence_line: int) -> bool:
    above = [line.strip() for line in lines[: fence_line - 1] if line.strip()]
    return bool(above) and above[-1] == EXPECTED


def _code_cell(page: Page, block: Block):
    outputs = []
    if block.output and (page.root / block.output).is_file():
        text = (page.root / block.output).read_text(encoding="utf-8")
        outputs.append(new_output("stream", name="stdout", text=text))
    for figure in block.figures:
        path = page.root / figure.path
        if path.is_file():
            svg = path.read_text(encoding="utf-8")
            outputs.append(
                new_output(
                    "display_data", data={"image/svg+xml": svg, "text/plain": figure.alternative}
                )
            )
    code = re.sub(r"\n{3,}", "\n\n\n", block.code.strip("\n"))
    return new_code_cell(code, outputs=outputs, execution_count=block.index + 1)


def _add_prose(cells: list, lines: list[str], page: Page) -> None:
    text = _prose(lines, page)
    if text:
        cells.append(new_markdown_cell(text))


def _prose(lines: list[str], page: Page) -> str:
    """Markdown that Jupyter understands: no comments, quotes, captions' marks, tabs or asides."""
    out, front = [], bool(lines) and lines[0].strip() == "---"
    dashes = 0
    for line in lines:
        if front and dashes < 2:
            dashes += line.strip() == "---"
            continue
        bare = line.strip()
        if bare.startswith(("<!--", "///", "<div", "</div", "<figure", "</figure")) or QUOTE.match(
            line
        ):
            continue
        if tab := TAB.match(line):
            title = re.search(r'"([^"]+)"', tab["rest"])
            words = tab["rest"].split()
            out += ["", f"**{title[1] if title else words[0].capitalize()}**", ""]
            continue
        if line.startswith("    ") and not bare.startswith(("```", "- ", "* ", "1. ")):
            line = bare
        out.append(fill(line.rstrip(), page.root, failed=lambda match, why: None))
    text = "\n".join(out)
    text = re.sub(r"\{ ?[#.][^}\n]*\}|\{:[^}\n]*\}", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
