"""Build the same tree with MkDocs, ProperDocs and Zensical, and say what differs.

`make other-builders` runs this in a virtual environment of its own. A difference is news, not a
failure: the exit code is 1 only when a builder stops or builds no page.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from snippets.site import ROOT
from snippets.site.drift import copy_of

BUILDERS = ("mkdocs", "properdocs", "zensical")
# What a page has, counted in its HTML: a builder that drops an extension shows it here.
PARTS = {
    "Python blocks": r'<div class="language-python highlight">',
    "formulas": r"<math\b",
    "drawings": r"<svg\b[^>]*\brole=|<svg\b[^>]*\baria-",
    "tables": r"<table\b",
    "headings": r"<h[1-6]\b",
    "marks left over": r"\{\{\s*[\w/]+\.|--(?:8|&#56;)(?:&lt;|<)--",
}
WARNING = re.compile(r"^\W*warning\b.*$", re.M | re.I)
# Zensical reads MkDocs' tag !ENV and not this one.
RELATIVE = "!relative $config_dir"


@dataclass
class Built:
    """What a builder made: its pages' HTML by path, its warnings, and its exit code."""

    pages: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    said: str = ""
    code: int = 0


def build(builder: str, root: Path, programs: Path) -> Built:
    """Build a copy of the tree, notebooks not run, into the copy's own site/."""
    with tempfile.TemporaryDirectory(prefix="builder-") as folder:
        copy = copy_of(root, Path(folder).resolve())
        config = copy / "mkdocs.yml"
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace(RELATIVE, copy.as_posix()), encoding="utf-8")
        environment = {
            **os.environ,
            "EXECUTE_NOTEBOOKS": "false",
            "NO_COLOR": "1",
            "NO_MKDOCS_2_WARNING": "1",
            "PYTHONPATH": str(copy),
        }
        done = subprocess.run(
            [str(programs / builder), "build", "-f", str(config)],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        said = (done.stdout + done.stderr).strip()
        site = copy / "site"
        pages = {
            path.relative_to(site).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(site.rglob("*.html"))
        }
        return Built(pages, [w.strip() for w in WARNING.findall(said)], said, done.returncode)


def differences(ours: Built, theirs: Built) -> list[str]:
    """One line for each page that is missing or new, and each part whose count differs."""
    lines = [f"{page}: not built" for page in ours.pages if page not in theirs.pages]
    lines += [f"{page}: only here" for page in theirs.pages if page not in ours.pages]
    for page in sorted(ours.pages.keys() & theirs.pages.keys()):
        for part, pattern in PARTS.items():
            counts = [len(re.findall(pattern, built.pages[page])) for built in (ours, theirs)]
            if counts[0] != counts[1]:
                lines.append(f"{page}: {counts[1]} {part}, MkDocs has {counts[0]}")
    return lines


def stopped(built: Built) -> str | None:
    """Why this is no build at all, None when it is one."""
    if built.code:
        last = (built.said.splitlines() or ["it said nothing"])[-1]
        return f"stopped with code {built.code}: {last}"
    return None if built.pages else "built no page"


def report(built: dict[str, Built]) -> str:
    """The comparison as Markdown: a section for each builder."""
    ours = built["mkdocs"]
    parts = ["# The same tree by other builders", ""]
    if RELATIVE in (ROOT / "mkdocs.yml").read_text(encoding="utf-8"):
        parts += [f"In `mkdocs.yml`, `{RELATIVE}` was replaced by the folder: not all know it.", ""]
    for builder, theirs in built.items():
        parts += [f"## {builder}", ""]
        if why := stopped(theirs):
            parts += [why, "", "```text", *theirs.said.splitlines()[-20:], "```", ""]
            continue
        parts.append(f"{len(theirs.pages)} pages, {len(theirs.warnings)} warnings.")
        news = [*theirs.warnings, *(differences(ours, theirs) if theirs is not ours else [])]
        parts += ["", *(f"- {line}" for line in news), ""] if news else [""]
    return "\n".join(parts).rstrip() + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; exit code 1 when a builder stops or builds nothing."""
    parser = argparse.ArgumentParser(
        prog="python -m snippets.site.other_builders",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the result as Markdown")
    options = parser.parse_args(arguments)
    programs = Path(sys.executable).parent
    built = {builder: build(builder, ROOT, programs) for builder in BUILDERS}
    text = report(built)
    print(text, end="")
    if options.report:
        options.report.write_text(text, encoding="utf-8")
    return 1 if any(map(stopped, built.values())) else 0


if __name__ == "__main__":
    raise SystemExit(main())
