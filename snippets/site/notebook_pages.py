"""MkDocs hook: a free-form notebook becomes a page like any other.

mkdocs-jupyter finds the notebooks and holds the options. Its own template loads scripts from two
other hosts, carries 570 kB of styles and puts figures on white, and no option replaces it. So the
hook runs the notebook and hands MkDocs plain Markdown: from there on its links, headings, formulas,
code and search are those of every page, and so is a strict build.
"""

import logging
import os
import re
import tempfile
from pathlib import Path

import jupytext
import nbformat
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

from snippets.shared.notebooks import OWN_PAPER

PLUGIN = "mkdocs-jupyter"
SECONDS_PER_CELL = 120
log = logging.getLogger("mkdocs.notebooks")


def on_files(files, config):
    """Offer each notebook, without outputs, as a file to download: a class runs it itself."""
    for file in [f for f in files if _is_notebook(f, config)]:
        book = _read(Path(file.abs_src_path))
        book.cells = [cell for cell in book.cells if cell.cell_type != "raw"]
        text = nbformat.writes(book, indent=1) + "\n"
        files.append(File.generated(config, _beside(file.src_uri), content=text))
    return files


def on_pre_page(page, config, files):
    """Take back the rendering that mkdocs-jupyter has put in MkDocs' place."""
    if _is_notebook(page.file, config):
        vars(page).pop("render", None)
    return page


def on_page_read_source(page, config):
    """The notebook as Markdown, run first unless `execute` is off; None for other pages."""
    if not _is_notebook(page.file, config):
        return None
    path, options = Path(page.file.abs_src_path), config.plugins[PLUGIN].config
    book = _read(path)
    if options["execute"]:
        _run(book, path, Path(config.config_file_path).parent, allow_errors=options["allow_errors"])
    return to_markdown(book, name=path.stem)


def to_markdown(book, *, name: str) -> str:
    """Front matter, prose, code and outputs, with links for downloading below the first cell."""
    parts = []
    for cell in book.cells:
        if cell.cell_type == "code":
            parts += [_fence("python", cell.source), *map(_output, joined(cell.outputs))]
        else:
            parts.append(cell.source)
            if cell.cell_type == "markdown" and cell is _first_prose(book):
                parts.append(_downloads(name))
    return "\n\n".join(parts) + "\n"


def joined(outputs: list) -> list:
    """Outputs with neighbouring pieces of printed text made one: where a kernel cuts is chance."""
    whole: list = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            whole.append(nbformat.from_dict(output))
    return whole


def _output(output) -> str:
    if output.output_type == "stream":
        if output.name == "stderr":
            log.warning("the notebook warns: %s", " ".join(output.text.split()))
        return _fence("text", output.text)
    if output.output_type == "error":
        return _fence("text", f"{output.ename}: {output.evalue}")
    if "text/html" in output.data:
        return output.data["text/html"].replace(OWN_PAPER, "")
    return _fence("text", output.data["text/plain"])


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


def _downloads(name: str) -> str:
    return (
        f'<p>To take along: <a href="{name}.ipynb" download>the notebook</a> or '
        f'<a href="{name}.py" download>the same as a script</a>.</p>'
    )


def _first_prose(book):
    return next(cell for cell in book.cells if cell.cell_type == "markdown")


def _is_notebook(file: File, config) -> bool:
    return PLUGIN in config.plugins and config.plugins[PLUGIN].should_include(file)


def _beside(src_uri: str) -> str:
    return re.sub(r"\.py$", ".ipynb", src_uri)


def _read(path: Path):
    """The notebook with identifiers that are the same each time."""
    book = jupytext.read(path)
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell-{number}"
    book.metadata.pop("jupytext", None)
    return book


def _run(book, path: Path, root: Path, *, allow_errors: bool) -> None:
    """Run all cells in a fresh kernel, as every page is run: one thread, nobody's own settings."""
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "IPYTHONDIR": folder}
        # Sockets in the file system: nobody else on the machine can listen.
        sockets = {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}
        client = NotebookClient(
            book,
            timeout=SECONDS_PER_CELL,
            allow_errors=allow_errors,
            resources={"metadata": {"path": str(root)}},
            config=Config({"KernelManager": sockets}),
        )
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            raise PluginError(_where(book, path, root, error)) from None


def _where(book, path: Path, root: Path, error: CellExecutionError) -> str:
    """One line: file, line, and what went wrong there."""
    failed = [c for c in book.cells if any(o.output_type == "error" for o in c.get("outputs", []))]
    text, source = path.read_text(encoding="utf-8"), failed[-1].source if failed else ""
    line = text[: max(text.find(source), 0)].count("\n") + 1
    inner = re.findall(r"-+> (\d+) ", re.sub(r"\x1b\[[\d;]*m", "", str(error)))
    line += int(inner[0]) - 1 if inner else 0
    file = path.relative_to(root) if path.is_relative_to(root) else path
    return f"{file}:{line}: the notebook fails: {error.ename}: {error.evalue}"
