"""Run one page's blocks in this fresh interpreter, as a reader would who copies them in order.

Started by `snippets.site.execute` as `python -m snippets.site.worker JOB FOLDER`. Each block's
result is one line of JSON on the original standard output; figures and exports go to FOLDER.
"""

import ast
import contextlib
import io
import json
import os
import socket
import sys
import time
import traceback
import types
from pathlib import Path


def main(job_file: str, folder: str) -> int:
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    os.chdir(job["root"])
    _forbid_network()
    shown = _catch_figures()
    program = types.ModuleType("__main__")
    program.__dict__["__builtins__"] = __builtins__
    # Classes defined on the page are looked up here, by dataclasses and by pickle.
    sys.modules["__main__"] = program
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for block in job["blocks"]:
        result = _run_block(block, program.__dict__, shown, Path(folder))
        report.write(json.dumps(result) + "\n")
        report.flush()
        if result["error"]:
            return 1
    return 0


def _run_block(block: dict, namespace: dict, shown: list, folder: Path) -> dict:
    """Run one block; the result has printed text, files, metrics, seconds and any error."""
    result = {"index": block["index"], "printed": "", "metrics": {}, "error": None}
    result |= {"figures": [], "exports": []}
    exports = folder / f"exports-{block['index']}"
    exports.mkdir()
    # Read by `snippets.shared.exports`, which is not imported here: it takes a second.
    os.environ["SNIPPETS_EXPORTS"] = str(exports)
    started, clock = _cpu_seconds(), time.monotonic()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            for code in _compile(block["lines"]):
                exec(code, namespace)
        _save_figures(block, shown, folder, result)
        result["exports"] = sorted(f"{exports.name}/{path.name}" for path in exports.iterdir())
        result["metrics"] = {name: _plain(_look_up(name, namespace)) for name in block["metrics"]}
    except BaseException as error:
        result["error"] = _describe(error, block)
    result["printed"] = printed.getvalue()
    result["seconds"] = _cpu_seconds() - started
    result["elapsed"] = time.monotonic() - clock
    result["peak_mib"] = _peak_mib()
    return result


def _compile(lines: list[list]) -> list:
    """Compile each statement under the file and line that it was written on."""
    source = "\n".join(text for text, _, _ in lines) + "\n"
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        _, file, number = lines[min(error.lineno or 1, len(lines)) - 1]
        error.filename, error.lineno, error.end_lineno = file, number, None
        raise
    compiled = []
    for statement in tree.body:
        file = lines[statement.lineno - 1][1]
        for node in ast.walk(statement):
            if hasattr(node, "lineno"):
                node.lineno = lines[node.lineno - 1][2]
                node.end_lineno = lines[min(node.end_lineno, len(lines)) - 1][2]
        module = ast.Module([statement], type_ignores=[])
        compiled.append(compile(module, file, "exec", dont_inherit=True))
    return compiled


def _describe(error: BaseException, block: dict) -> dict:
    """One-line summary, the page's and the module's line, and a traceback without our frames."""
    own = (__file__, contextlib.__file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in own]
    page = [f for f in frames if f.filename == block["file"]]
    module = [f for f in frames if f.filename.startswith("snippets/") or "/snippets/" in f.filename]
    if isinstance(error, SyntaxError) and error.filename in {line[1] for line in block["lines"]}:
        where, line = error.filename, error.lineno
    elif page:
        where, line = block["file"], page[-1].lineno
    else:
        where, line = block["file"], block["line"]
    text = "".join(traceback.format_list(frames))
    text += "".join(traceback.format_exception_only(error))
    return {
        "summary": f"{type(error).__name__}: {error}".splitlines()[0],
        "file": where,
        "line": line,
        "module": [module[-1].filename, module[-1].lineno] if module else None,
        "traceback": text,
    }


def _catch_figures() -> list:
    """Make `plt.show()` collect the open figures instead of opening a window."""
    shown: list = []
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    def show(*args, **kwargs):
        shown.extend(plt.figure(number) for number in plt.get_fignums())
        plt.close("all")

    plt.show = show
    return shown


def _save_figures(block: dict, shown: list, folder: Path, result: dict) -> None:
    import matplotlib.pyplot as plt

    from snippets.site.figures import to_svg

    if plt.get_fignums():
        raise RuntimeError("the block draws a figure and never shows it: end it with plt.show()")
    for k, figure in enumerate(shown):
        path = folder / f"{block['index']}-{k}.svg"
        name = block["figures"][k] if k < len(block["figures"]) else path.stem
        path.write_text(to_svg(figure, name=name), encoding="utf-8")
        result["figures"].append(path.name)
    shown.clear()


def _look_up(name: str, namespace: dict):
    if name not in namespace:
        raise NameError(f"the metrics comment names {name!r}, which the page does not define")
    return namespace[name]


def _plain(value):
    """A metric as JSON: a number, a string, a list or a dict of these."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        # Six digits carry the meaning; the rest is this processor's order of summation.
        return float(f"{value:.6g}")
    raise TypeError(
        f"a metric must be a number, a string, a list or a dict, got {type(value).__name__}"
    )


def _forbid_network() -> None:
    """A page is offline: say so at once, instead of hanging where there is no network."""

    def refuse(self, address, *args):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise OSError(f"a page must not use the network, and this one asked for {address}")
        return connect(self, address, *args)

    connect = socket.socket.connect
    socket.socket.connect = refuse


def _cpu_seconds() -> float:
    """Processor seconds of this process and of the children that have ended."""
    return sum(os.times()[:4])


def _peak_mib() -> float:
    """The most memory that this process has held so far."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    # macOS counts bytes, Linux kibibytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
