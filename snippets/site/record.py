"""Write what a page's run printed, drew, exported and measured to the paths that the page names.

A folder of outputs is written beside the old one and then renamed, so that an interrupted or
failed run leaves the last good outputs in place.
"""

import contextlib
import hashlib
import importlib
import io
import json
import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

from snippets.site import exported
from snippets.site.execute import PageRun, run_page
from snippets.site.fingerprint import fingerprint, study_fingerprint
from snippets.site.page import EXPECTED, Page
from snippets.site.problems import PageError, Problem

# Not made by running the page: the study has its own run, the others are generated.
KEPT = ("study.txt", "study.json", "card.txt")
GENERATED = (*KEPT, "run.json", "notebook.ipynb")
VERSIONS = ("numpy", "scipy", "scikit-learn", "torch", "matplotlib")


def read_json(path: Path) -> dict:
    """A recorded JSON file; {} when there is none."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads(path.read_text(encoding="utf-8"))
    return {}


def write(path: Path, text: str) -> bool:
    """Write a text file beside its place and rename it; False when it already says this."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, path)
    return True


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def state(page: Page) -> tuple[str, str]:
    """("fresh" | "stale" | "missing" | "none" | "broken", why)."""
    if page.problems:
        return "broken", str(page.problems[0])
    if not page.blocks:
        return "none", "no Python block"
    run = read_json(page.outputs / "run.json")
    if not run:
        return "missing", "never recorded"
    try:
        if run["fingerprint"] != fingerprint(page):
            return "stale", "the code has changed since it was recorded"
    except SyntaxError as error:
        return "broken", f"{error.msg}, line {error.lineno} of a block"
    for name, digest in run["files"].items():
        path = page.outputs / name
        if not path.is_file():
            return "stale", f"{name} is gone"
        if sha256(path) != digest:
            return "stale", f"{name} was edited by hand"
    return "fresh", ""


def outputs(run: PageRun) -> dict[str, bytes]:
    """File name → bytes, as the page names them; PageError where page and run disagree."""
    page, files = run.page, {}
    for block, result in zip(page.blocks, run.results):
        if result.printed and not block.output:
            raise PageError(
                Problem(
                    page.file,
                    block.line,
                    "the block prints and the page shows no output",
                    f"add {EXPECTED} and a ```text fence that quotes "
                    f"docs/outputs/{page.key}/NAME.txt",
                )
            )
        if block.output and not result.printed:
            raise PageError(
                Problem(
                    page.file,
                    block.output_line,
                    "the block prints nothing",
                    "print something, or remove the output",
                )
            )
        if len(block.figures) != len(result.figures):
            raise PageError(
                Problem(
                    page.file,
                    block.line,
                    f"the block shows {len(result.figures)} figures, "
                    f"the page quotes {len(block.figures)}",
                    "quote one .svg for each plt.show(), in order",
                )
            )
        if block.output:
            _put(files, page, block.output, _text(result.printed), block.output_line)
        for figure, name in zip(block.figures, result.figures):
            _put(files, page, figure.path, _text(run.drawn[name]), figure.line)
        for name in result.exports:
            _put(files, page, name, run.exported[name], block.line)
    for problem in exported.problems(page, exported.described(files)):
        raise PageError(problem)
    return files


def _text(text: str) -> bytes:
    return (text if text.endswith("\n") else text + "\n").encode()


def _put(files: dict[str, bytes], page: Page, path: str, data: bytes, line: int) -> None:
    name = path.rpartition("/")[2]
    if name in files or name in GENERATED:
        raise PageError(
            Problem(
                page.file, line, f"two things want the name {name}", "give this one another name"
            )
        )
    files[name] = data


def record(page: Page, *, force: bool = False, progress=lambda done: None) -> str:
    """Record a page; returns "fresh" (nothing to do), "recorded" or "unchanged".

    Raises PageError when the page is broken or fails; the last good outputs then stay.
    """
    recover(page)
    if not force and state(page)[0] in ("fresh", "none"):
        return "fresh"
    run = run_page(_without_missing_outputs(page), progress=progress)
    if run.error:
        error = run.error
        raise PageError(
            Problem(
                error["file"],
                error["line"],
                error["summary"],
                f"mend it and record again; the last good outputs stand\n{error['traceback']}",
            )
        )
    files = outputs(run)
    before = read_json(page.outputs / "run.json")
    summary = _summary(page, run, files, before)
    changed = summary != before
    if changed or not all((page.outputs / name).is_file() for name in files):
        _replace(page, {**files, "run.json": _json(summary).encode()})
    return "recorded" if changed else "unchanged"


def _without_missing_outputs(page: Page) -> Page:
    """The same page, its quotes of not yet recorded outputs forgiven: this run will write them."""
    ours = f"a missing file, docs/outputs/{page.key}/"
    page.problems = [p for p in page.problems if ours not in p.message]
    return page


def _summary(page: Page, run: PageRun, files: dict[str, bytes], before: dict) -> dict:
    digests = {n: hashlib.sha256(data).hexdigest() for n, data in sorted(files.items())}
    exports = exported.described(files)
    summary = {
        "page": page.key,
        "fingerprint": fingerprint(page),
        "metrics": run.metrics,
        "seconds": float(f"{run.seconds:.2g}"),
        "peak_mib": float(f"{run.peak_mib:.2g}"),
        "blocks": [float(f"{r.seconds:.2g}") for r in run.results],
        "versions": {
            "python": platform.python_version(),
            **{v: version(v).split("+")[0] for v in VERSIONS},
        },
        "files": digests,
        **({"exports": exports} if exports else {}),
    }
    return _keep_costs(summary, before)


def _keep_costs(summary: dict, before: dict) -> dict:
    """Keep the recorded cost when the new one is the same but for a machine's mood.

    Seconds and memory differ a little on each run; writing them anew would make two recordings
    of one page differ. Within a factor of two, or within a second, the first measurement stands.
    """
    costs = ("seconds", "peak_mib", "blocks")
    same = all(summary[k] == before.get(k) for k in ("fingerprint", "metrics", "files", "versions"))
    if not same:
        return summary
    now, then = summary["seconds"], before["seconds"]
    if max(now, then) <= 2 * min(now, then) or abs(now - then) <= 1:
        return {**summary, **{k: before[k] for k in costs}}
    return summary


def _json(data: dict) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _replace(page: Page, files: dict[str, bytes]) -> None:
    """Swap in a folder with exactly these files and those that are kept."""
    new, old = _beside(page, "new"), _beside(page, "old")
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    new.mkdir(parents=True)
    for name, data in files.items():
        (new / name).write_bytes(data)
    for name in KEPT:
        if (page.outputs / name).is_file():
            shutil.copy2(page.outputs / name, new / name)
    if page.outputs.exists():
        page.outputs.rename(old)
    new.rename(page.outputs)
    shutil.rmtree(old, ignore_errors=True)


def _beside(page: Page, what: str) -> Path:
    return page.outputs.with_name(f".{page.outputs.name}.{what}")


def recover(page: Page) -> None:
    """Undo a swap that was cut off between its two renames."""
    if not page.outputs.exists() and _beside(page, "old").exists():
        _beside(page, "old").rename(page.outputs)


def study(page: Page, *, force: bool = False) -> str:
    """Run `study()` of the twin module; write its table and metrics. Returns as `record` does."""
    before = read_json(page.outputs / "study.json")
    mark = study_fingerprint(page)
    if not force and study_state(page)[0] == "fresh":
        return "fresh"
    module = importlib.import_module("snippets." + page.key.replace("/", "."))
    started = time.process_time()
    printed = io.StringIO()
    with contextlib.redirect_stdout(_Tee(printed, sys.stderr)):
        metrics = module.study()
    from snippets.site.worker import _plain

    text = printed.getvalue()
    summary = {
        "page": page.key,
        "fingerprint": mark,
        "metrics": _plain(metrics),
        "seconds": float(f"{time.process_time() - started:.2g}"),
        "files": {"study.txt": hashlib.sha256(text.encode()).hexdigest()},
    }
    if before and summary["metrics"] == before["metrics"] and summary["files"] == before["files"]:
        summary["seconds"] = before["seconds"]
    write(page.outputs / "study.txt", text)
    return "recorded" if write(page.outputs / "study.json", _json(summary)) else "unchanged"


def has_study(page: Page) -> bool:
    return page.module.is_file() and "\ndef study(" in page.module.read_text(encoding="utf-8")


def study_state(page: Page) -> tuple[str, str]:
    """("fresh" | "stale" | "missing" | "none", why) of the page's study."""
    if not has_study(page):
        return "none", "no study"
    recorded = read_json(page.outputs / "study.json")
    if not recorded:
        return "missing", "never run"
    if recorded["fingerprint"] != study_fingerprint(page):
        return "stale", "its code has changed since it was run"
    table = page.outputs / "study.txt"
    if not table.is_file() or sha256(table) != recorded["files"]["study.txt"]:
        return "stale", "study.txt is gone or was edited by hand"
    return "fresh", ""


class _Tee(io.TextIOBase):
    """Write to two streams: the study's table is recorded while its author watches."""

    def __init__(self, *streams):
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)
