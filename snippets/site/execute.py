"""Run a page in a fresh interpreter and hand back, block by block, what it printed and made."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from snippets.site.page import Page
from snippets.site.problems import PageError, Problem

# One thread gives the same sums on every machine, and two are slower on a busy one.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
}


@dataclass
class BlockResult:
    """What one block did; `error` is None when it ran to its end."""

    index: int
    printed: str
    figures: list[str]
    exports: list[str]
    metrics: dict
    error: dict | None
    seconds: float
    elapsed: float
    peak_mib: float


@dataclass
class PageRun:
    """The results of a page's blocks in order; after a failure the rest are missing."""

    page: Page
    results: list[BlockResult] = field(default_factory=list)
    drawn: dict[str, str] = field(default_factory=dict)
    exported: dict[str, bytes] = field(default_factory=dict)

    @property
    def error(self) -> dict | None:
        return next((r.error for r in self.results if r.error), None)

    @property
    def metrics(self) -> dict:
        return {name: value for r in self.results for name, value in r.metrics.items()}

    @property
    def seconds(self) -> float:
        return sum(r.seconds for r in self.results)

    @property
    def peak_mib(self) -> float:
        return max((r.peak_mib for r in self.results), default=0.0)


def run_page(
    page: Page, *, progress: Callable[[int], None] = lambda index: None, limit: float = 900
) -> PageRun:
    """Run a page's blocks; `progress` is called with the number of blocks done.

    Raises PageError when the page cannot be read, is killed, or runs over `limit` seconds.
    A block that fails is not raised: it is the last result, with its `error`.
    """
    if page.problems:
        raise PageError(page.problems[0])
    run = PageRun(page)
    with tempfile.TemporaryDirectory(prefix="page-") as folder:
        job = Path(folder, "job.json")
        job.write_text(json.dumps(_job(page)), encoding="utf-8")
        command = [sys.executable, "-m", "snippets.site.worker", str(job), folder]
        # The run's own code comes first on the path, wherever the package is installed from.
        path = os.pathsep.join([str(page.root), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": path}
        _collect(run, command, environment, folder, progress, limit)
    return run


def _job(page: Page) -> dict:
    blocks = [
        {
            "index": block.index,
            "file": page.file,
            "line": block.line,
            "lines": [[line.text, line.file, line.number] for line in block.lines],
            "metrics": block.metrics,
            "figures": [f.path for f in block.figures],
        }
        for block in page.blocks
    ]
    return {"root": str(page.root), "blocks": blocks}


def _collect(run: PageRun, command, environment, folder, progress, limit) -> None:
    page = run.page
    with (
        Path(folder, "stderr").open("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            cwd=page.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        import threading

        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                result = BlockResult(**json.loads(line))
                for name in result.figures:
                    run.drawn[name] = Path(folder, name).read_text(encoding="utf-8")
                for name in result.exports:
                    run.exported[name] = Path(folder, name).read_bytes()
                run.results.append(result)
                progress(len(run.results))
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        process.wait()
        if process.returncode and not run.error:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["it said nothing"])[-1]
            block = page.blocks[len(run.results)] if len(run.results) < len(page.blocks) else None
            raise PageError(
                Problem(
                    page.file,
                    block.line if block else 0,
                    f"the page's interpreter stopped with code {process.returncode} ({last})",
                    f"it must end within {limit:.0f} s and within memory; run it alone to see",
                )
            )
