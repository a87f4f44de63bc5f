"""The five commands of `python -m snippets`."""

import argparse
import sys
import time

from snippets.site import ROOT
from snippets.site.page import Page, find_page, page_files, read_page
from snippets.site.problems import PageError

DESCRIPTION = "Run, record and check the pages: what you read is what ran."
EPILOGUE = """\
A page is named section/page, as in generative/vae.

typical work:
  python -m snippets run generative/vae       does my page run, and what does it say?
  python -m snippets record generative/vae    write its outputs, figures and notebook
  python -m snippets check                    do all rules hold? (trains nothing)
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse and run one command; returns the exit code (1: a page or rule failed)."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except PageError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the last good outputs stand", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m snippets",
        description=DESCRIPTION,
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(command=command)
        return sub

    add("list", list_pages, "show every page: fresh, stale or missing, and its seconds")
    sub = add("run", run_pages, "run pages and print what they print; writes nothing")
    sub.add_argument("pages", nargs="+", metavar="PAGE")
    sub = add("study", study_pages, "run the longer study of a page and record its table")
    sub.add_argument("pages", nargs="*", metavar="PAGE", help="default: every page that has one")
    sub.add_argument("--force", action="store_true", help="also when nothing has changed")
    sub = add("record", record_pages, "run pages and write outputs, figures, diagrams, notebooks")
    sub.add_argument("pages", nargs="*", metavar="PAGE", help="default: every page")
    sub.add_argument("--stale", action="store_true", help="only pages whose outputs are not fresh")
    sub.add_argument("--force", action="store_true", help="also when nothing has changed")
    sub = add("check", check, "hold the site to all its rules; trains nothing")
    sub.add_argument("--no-build", action="store_true", help="skip the rules on the built pages")
    return parser


def _pages(names: list[str]) -> list[Page]:
    if names:
        return [find_page(name) for name in names]
    return [read_page(path) for path in page_files()]


def list_pages(options) -> int:
    """Print a line for each page, and for each study."""
    from snippets.site.record import read_json, state, study_state

    pages = _pages([])
    wide = max(len("  study of ") + len(page.key) for page in pages) + 2
    print(f"{'page':<{wide}}{'state':<9}{'seconds':>8}{'MiB':>7}  note")
    for page in pages:
        what, why = state(page)
        run = read_json(page.outputs / "run.json")
        cost = f"{run['seconds']:>8}{run['peak_mib']:>7.0f}" if run else f"{'–':>8}{'–':>7}"
        print(f"{page.key:<{wide}}{what:<9}{cost}  {why}".rstrip())
        what, why = study_state(page)
        if what != "none":
            seconds = read_json(page.outputs / "study.json").get("seconds", "–")
            print(f"{'  study of ' + page.key:<{wide}}{what:<9}{seconds:>8}{'':>7}  {why}".rstrip())
    return 0


def run_pages(options) -> int:
    """Run pages and print each block's output under its line; nothing is written."""
    from snippets.site.execute import run_page

    failed = 0
    for page in _pages(options.pages):
        ours = f"a missing file, docs/outputs/{page.key}/"
        page.problems = [p for p in page.problems if ours not in p.message]
        run = run_page(page)
        for block, result in zip(page.blocks, run.results):
            drawn = f", {len(result.figures)} figure(s)" if result.figures else ""
            print(f"── {page.file}:{block.line}  {result.seconds:.2f} s{drawn}")
            print(result.printed, end="")
            if result.metrics:
                print("metrics:", result.metrics)
            if result.error:
                failed += 1
                print(f"{result.error['file']}:{result.error['line']}: {result.error['summary']}")
                print(result.error["traceback"])
        print(f"── {page.key}: {run.seconds:.1f} s CPU, {run.peak_mib:.0f} MiB")
    return 1 if failed else 0


def study_pages(options) -> int:
    """Run studies and record their tables."""
    from snippets.site.record import has_study, study

    pages = _pages(options.pages)
    for page in pages:
        if has_study(page):
            print(f"{page.key}: study {study(page, force=options.force)}", file=sys.stderr)
        elif options.pages:
            print(
                f"{page.key} has no study: define study() in snippets/{page.key}.py",
                file=sys.stderr,
            )
            return 1
    _write_generated(pages)
    return 0


def record_pages(options) -> int:
    """Record pages, then everything that is generated from what was recorded."""
    from snippets.site.record import record, recover, state

    failed = 0
    pages = _pages(options.pages)
    for page in pages:
        recover(page)
        if options.stale and state(page)[0] in ("fresh", "none"):
            continue
        started = time.monotonic()
        progress = _progress(page)
        try:
            progress(0)
            outcome = record(page, force=options.force, progress=progress)
        except PageError as error:
            failed += 1
            print(f"\r\033[K{error}" if sys.stderr.isatty() else str(error), file=sys.stderr)
            continue
        _say(page, outcome, time.monotonic() - started)
    _write_generated(_pages(options.pages))
    return 1 if failed else 0


def _progress(page: Page):
    """Show "page  3/12 blocks" on one line of a terminal; on a pipe say nothing."""

    def show(done: int) -> None:
        if sys.stderr.isatty() and page.blocks:
            bar = "█" * done + "░" * (len(page.blocks) - done)
            print(
                f"\r\033[K{page.key}  {bar} {done}/{len(page.blocks)}",
                end="",
                file=sys.stderr,
                flush=True,
            )

    return show


def _say(page: Page, outcome: str, seconds: float) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{page.key}: {outcome} ({seconds:.1f} s)", file=sys.stderr)


def _write_generated(pages: list[Page]) -> None:
    """Write what follows from the pages and their outputs: cards, tables, diagrams, notebooks."""
    from snippets.site.generate import write_generated

    for path in write_generated(ROOT, [read_page(ROOT / p.file) for p in pages]):
        print(f"wrote {path}", file=sys.stderr)


def check(options) -> int:
    """Print every broken rule with file, line and mend; exit code 1 when there is one."""
    from snippets.site.rules import check_source

    started = time.monotonic()
    problems = check_source(ROOT)
    if not options.no_build and not problems:
        from snippets.site.built import check_build

        problems = check_build(ROOT)
    for problem in problems:
        print(problem)
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}" if problems else "all rules hold"
    print(f"{count} ({time.monotonic() - started:.1f} s)")
    return 1 if problems else 0
