"""Markdown extension: `{{section/page.metric:.3f}}` becomes the number that was recorded.

`{{generative/vae.mse.pca:.4f}}` reads `metrics` of the page's run.json,
`{{generative/vae.study.iwae:.2f}}` those of its study.json, `{{generative/vae.run.seconds:.0f}}`
the run itself. Code is left alone.
"""

import json
import logging
import re
from functools import cache
from pathlib import Path

from markdown import Extension
from markdown.preprocessors import Preprocessor

from snippets.site import ROOT

NUMBER = re.compile(r"\{\{\s*(?P<page>[\w/]+)\.(?P<name>[\w.-]+)(?::(?P<spec>[^{}]*))?\s*\}\}")
CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
# MkDocs counts warnings of its own loggers, so a strict build stops on a missing number.
log = logging.getLogger("mkdocs.numbers")


def look_up(page: str, name: str, root: Path = ROOT):
    """The recorded value; KeyError says in one line which page or name is not there."""
    what, _, rest = name.partition(".")
    file = "study.json" if what == "study" else "run.json"
    path = root / "docs" / "outputs" / page / file
    if not path.is_file():
        verb = "study" if what == "study" else "record"
        raise KeyError(f"{page} has no {file}: run `python -m snippets {verb} {page}`")
    data = _read(str(path), path.stat().st_mtime_ns)
    value = data if what == "run" else data["metrics"]
    for key in _keys(rest if what in ("study", "run") else name):
        value = _step(value, key, page)
    return value


def _keys(name: str) -> list[str]:
    return name.split(".") if name else []


def _step(value, key: str, page: str):
    if isinstance(value, dict) and key in value:
        return value[key]
    if (
        isinstance(value, list)
        and key.lstrip("-").isdigit()
        and -len(value) <= int(key) < len(value)
    ):
        return value[int(key)]
    there = ", ".join(value) if isinstance(value, dict) else f"a {type(value).__name__}"
    raise KeyError(f"{page} has recorded no {key!r}; there is: {there}")


@cache
def _read(path: str, changed: int) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def show(match: re.Match, root: Path = ROOT) -> str:
    """The text for one `{{…}}`; KeyError or ValueError when it cannot be shown."""
    value = look_up(match["page"], match["name"], root)
    if isinstance(value, (dict, list)):
        raise ValueError(
            f"{match[0]} is a {type(value).__name__}, not a number: name one of its parts"
        )
    text = format(value, match["spec"] or "")
    # A minus, not a hyphen: screen readers and line breaks treat them differently.
    return re.sub(r"^-(?=[\d.])", "−", text)


def fill(line: str, root: Path = ROOT, failed=None) -> str:
    """Replace every `{{…}}` of a line outside code spans; `failed(match, why)` hears of errors."""

    def replace(match: re.Match) -> str:
        try:
            return show(match, root)
        except (KeyError, ValueError) as error:
            if failed:
                failed(match, error.args[0])
            return f"**{match[0]}?**" if failed is None else match[0]

    parts, end = [], 0
    for span in CODE_SPAN.finditer(line):
        parts += [NUMBER.sub(replace, line[end : span.start()]), span[0]]
        end = span.end()
    return "".join(parts) + NUMBER.sub(replace, line[end:])


class _Numbers(Preprocessor):
    def __init__(self, md, root: Path):
        super().__init__(md)
        self.root = root

    def run(self, lines: list[str]) -> list[str]:
        def failed(match, why):
            log.warning("%s: %s", match[0], why)

        return [fill(line, self.root, failed) if "{{" in line else line for line in lines]


class NumbersExtension(Extension):
    """Registers the preprocessor after fences are taken out and before HTML is."""

    def __init__(self, **kwargs):
        self.config = {"root": [str(ROOT), "the folder that holds docs/outputs"]}
        super().__init__(**kwargs)

    def extendMarkdown(self, md):
        md.preprocessors.register(_Numbers(md, Path(self.getConfig("root"))), "numbers", 24)


def makeExtension(**kwargs):
    return NumbersExtension(**kwargs)
