"""What a page's run exports: networks as ONNX with their golden files, plain JSON, and the links.

A network goes by its stem, such as `sampler`; plain JSON by its whole name, such as `merges.json`.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator

from snippets.site.page import Page
from snippets.site.problems import Problem
from snippets.site.prose import prose, without_code

LINK = re.compile(r"\]\(\s*<?(?P<target>[^\s)>#]+\.(?:onnx|json))\b")
# A reader downloads it on a click, beside the runtime.
BYTES = 1_500_000


def described(files: dict[str, bytes]) -> dict[str, dict]:
    """Name → opset, bytes, and the type and shape of each input and output, for run.json.

    files: name → bytes of what was recorded; each .onnx has its golden .json among them. Of
    plain JSON, bytes and digest.
    """
    found = {}
    for stem in sorted(n.removesuffix(".onnx") for n in files if n.endswith(".onnx")):
        golden = json.loads(files[f"{stem}.json"])
        found[stem] = {"opset": golden["opset"], "bytes": len(files[f"{stem}.onnx"])}
        for side in ("inputs", "outputs"):
            found[stem][side] = {
                word: {"type": t["type"], "shape": ["batch", *t["shape"][1:]]}
                for word, t in golden[side].items()
            }
    answers = {f"{stem}.json" for stem in found}
    for name in sorted({name for name in files if name.endswith(".json")} - answers):
        digest = hashlib.sha256(files[name]).hexdigest()
        found[name] = {"bytes": len(files[name]), "sha256": digest}
    return found


def file_of(name: str) -> str:
    """The file that a reader downloads."""
    return name if name.endswith(".json") else f"{name}.onnx"


def address(page: Page, name: str) -> str:
    """Where a link on the page finds its own export."""
    target = f"docs/outputs/{page.key}/{file_of(name)}"
    return os.path.relpath(target, os.path.dirname(page.file)).replace(os.sep, "/")


def links(page: Page) -> dict[str, int]:
    """Name → line of the first link to an export of this page's own, or to a golden file."""
    found: dict[str, int] = {}
    for number, text in prose(page):
        for match in LINK.finditer(without_code(text)):
            name = match["target"].rpartition("/")[2].removesuffix(".onnx")
            if match["target"] == address(page, name):
                found.setdefault(name, number)
    return found


def problems(page: Page, exports: dict[str, dict]) -> Iterator[Problem]:
    """Where what was exported and what the page links are not the same, or it is too heavy."""
    linked = links(page)
    for name, about in exports.items():
        line = linked.get(name) or _line(page, name)
        if name not in linked:
            yield Problem(
                page.file,
                line,
                f"{file_of(name)} is exported and the page does not link it",
                f"add a link to {address(page, name)}",
            )
        if about["bytes"] > BYTES:
            yield Problem(
                page.file,
                line,
                f"{file_of(name)} has {about['bytes']:,} bytes, the budget is {BYTES:,}",
                "export a smaller network",
            )
    for name, line in linked.items():
        stem = name.removesuffix(".json")
        if name not in exports and stem not in exports:
            save = "save" if stem == name else "save_json"
            yield Problem(
                page.file,
                line,
                f"the page links {file_of(name)}, and no block exports it",
                f'export it with snippets.shared.exports.{save}("{stem}", …), or remove the link',
            )


def _line(page: Page, name: str) -> int:
    """The line that names an export, or its block's if the line is quoted; 0 if none does."""
    for block in page.blocks:
        for line in block.lines:
            if re.search(rf"[\"']{name.removesuffix('.json')}[\"']", line.text):
                return line.number if line.file == page.file else block.line
    return 0


def differences(old: dict[str, dict], new: dict[str, dict], tolerance: float) -> Iterator[str]:
    """Where a run's exports are not the recorded ones, in words; `new` may hold some of them."""
    for name, now in new.items():
        then = old.get(name)
        if then is None:
            yield f"{file_of(name)} was not recorded"
            continue
        if "sha256" in now:
            if then != now:
                yield f"{name} had {then['bytes']:,} bytes, now {now['bytes']:,}, others than those"
            continue
        for part in ("opset", "inputs", "outputs"):
            if then[part] != now[part]:
                yield f"{name}.onnx had {part} {_said(then[part])}, now {_said(now[part])}"
        if abs(then["bytes"] - now["bytes"]) > tolerance * then["bytes"]:
            yield f"{name}.onnx had {then['bytes']:,} bytes, now {now['bytes']:,}"


def _said(part: int | dict) -> str:
    if isinstance(part, int):
        return str(part)
    tensors = (f"{k} {t['type']} [{', '.join(map(str, t['shape']))}]" for k, t in part.items())
    return ", ".join(tensors)
