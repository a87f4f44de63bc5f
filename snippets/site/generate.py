"""Write what follows from the taxonomy, the claims and the recorded runs; nothing here trains."""

from pathlib import Path

from snippets.site import gates, share_cards
from snippets.site.notebook import to_notebook
from snippets.site.page import Page, page_files, read_page
from snippets.site.record import read_json, state, write


def write_generated(root: Path, pages: list[Page]) -> list[str]:
    """Write taxonomy diagrams, cards and tables, missing diagrams and notebooks; returns paths."""
    written = [path for path, text in texts(root).items() if write(root / path, text)]
    # Read the pages again: they may quote what was just written.
    pages = [read_page(root / page.file, root) for page in pages]
    for page in pages:
        if state(page)[0] == "fresh" and page.blocks:
            path = page.outputs / "notebook.ipynb"
            if write(path, to_notebook(page)):
                written.append(path.relative_to(root).as_posix())
    return written + _render_diagrams(root) + share_cards.write_cards(root)


def texts(root: Path) -> dict[str, str]:
    """Repository path → text of every generated file, without diagrams and notebooks."""
    if not (root / "snippets" / "taxonomy.yml").is_file():
        return {}
    from snippets.site.taxonomy import generated

    pages = [read_page(path, root) for path in page_files(root)]
    return {
        **generated(root),
        "docs/outputs/site/tolerances.txt": _tolerances(pages),
        "docs/outputs/site/pages.txt": _costs(pages),
        **({"docs/outputs/site/gates.txt": gate} if (gate := gates.table(root, pages)) else {}),
    }


def _tolerances(pages: list[Page]) -> str:
    """A Markdown list of every widened tolerance, or one sentence when there is none."""
    rows = [
        f"- [{page.title}]({page.key}.md), the block that begins "
        f"`{next(line.text.strip() for line in block.lines if line.text.strip())}`: "
        f"{block.tolerance:.0%}, because {block.reason}."
        for page in pages
        for block in page.blocks
        if block.reason
    ]
    return "\n".join(rows or ["At present no block asks for more."]) + "\n"


def _costs(pages: list[Page]) -> str:
    """A Markdown table: each page with a program, what its run cost and with what it ran."""
    rows = ["| Page | Blocks | Seconds | Peak memory |", "|---|---:|---:|---:|"]
    versions: dict[str, str] = {}
    for page in pages:
        run = read_json(page.outputs / "run.json")
        if run and page.blocks:
            versions = run["versions"]
            rows.append(
                f"| [{page.title}]({page.key}.md) | {len(page.blocks)} | "
                f"{run['seconds']:g} | {run['peak_mib']:.0f} MiB |"
            )
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(rows) + (f"\n\nRecorded with {made}.\n" if made else "\n")


def stale_notebooks(root: Path) -> list[Page]:
    """Pages whose notebook is not what their text and outputs would give."""
    pages = [read_page(path, root) for path in page_files(root)]
    return [
        page
        for page in pages
        if page.blocks
        and read_json(page.outputs / "run.json")
        and not page.problems
        and _text(page.outputs / "notebook.ipynb") != to_notebook(page)
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _render_diagrams(root: Path) -> list[str]:
    from snippets.site import diagrams

    sources = diagrams.missing(root)
    written = []
    if sources:
        for name, svg in diagrams.render(sources).items():
            path = root / "docs" / "outputs" / "diagrams" / f"{name}.svg"
            write(path, svg)
            written.append(path.relative_to(root).as_posix())
    for path in diagrams.stale(root):
        path.unlink()
        written.append(f"{path.relative_to(root).as_posix()} (removed, no page draws it any more)")
    return written
