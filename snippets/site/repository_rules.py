"""The rules on what lies beside pages and modules: registers, packages, weights, images."""

import ast
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

from snippets.site.code_rules import imports
from snippets.site.page import SECTIONS, Page
from snippets.site.problems import PageError, Problem
from snippets.site.record import read_json
from snippets.site.register import COMPANIONS, FILE, VERBS, load, load_claims

Problems = Iterator[Problem]
RASTER_BYTES = 150_000
RASTERS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".bmp")
# Files that run code when they are read.
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt", ".bin")
WEIGHTS = (".onnx", ".safetensors")
# Import name → the package's name, where they differ by more than a hyphen.
PACKAGES = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "pymdownx": "pymdown-extensions",
    "material": "mkdocs-material",
    "mpl_toolkits": "matplotlib",
}


# ---------------------------------------------------------------- the registers


def registers_are_sound(root: Path, pages: list[Page]) -> Problems:
    """Taxonomy and claims can be read, and every lesson is in the taxonomy."""
    if not (root / FILE).is_file():
        return
    try:
        taxonomy = load(root)
        load_claims(root, taxonomy)
    except PageError as error:
        yield error.problem
        return
    for page in pages:
        card = f"docs/outputs/{page.key}/card.txt"
        if card in page.text and page.key not in taxonomy.models:
            line = next(n for n, text in enumerate(page.text.splitlines(), 1) if card in text)
            yield Problem(
                page.file,
                line,
                f"the taxonomy has no entry {page.key}, so there is no card",
                f"add `- key: {page.key}` to {FILE}",
            )
    for model in taxonomy.models.values():
        yield from _abilities(root, model)


def _abilities(root: Path, model) -> Problems:
    """What a module can do is what the taxonomy says: no verb less, and no other."""
    path = root / "snippets" / f"{model.key}.py"
    if not path.is_file():
        return
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError:
        return  # `modules_are_readable` says it, with its line
    functions = {n.name: n.lineno for n in tree.body if isinstance(n, ast.FunctionDef)}
    file = path.relative_to(root).as_posix()
    for ability in model.can:
        if VERBS[ability] not in functions:
            yield Problem(
                FILE,
                model.line,
                f"{model.key} can {ability}, but its module has no {VERBS[ability]}()",
                f"write it in {file}, or take {ability!r} out of `can`",
            )
    allowed = {*model.verbs, *(c for c, verb in COMPANIONS.items() if verb in model.verbs)}
    for verb in sorted({*VERBS.values(), *COMPANIONS} & set(functions) - allowed):
        yield Problem(
            file,
            functions[verb],
            f"the taxonomy does not say that {model.key} has {verb}()",
            f"add the ability to `can` of its entry in {FILE}, line {model.line}",
        )


def abbreviations_are_defined_once(root: Path, pages: list[Page]) -> Problems:
    """One meaning for each abbreviation: of two the later would win, everywhere."""
    texts = {page.file: page.text for page in pages}
    shared = root / "snippets" / "site" / "abbreviations.txt"
    if shared.is_file():
        texts = {"snippets/site/abbreviations.txt": shared.read_text(encoding="utf-8"), **texts}
    first: dict[str, str] = {}
    for file, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.match(r"\*\[([^\]]+)\]:", line):
                place = f"{file}:{number}"
                if first.setdefault(match[1], place) != place:
                    yield Problem(
                        file,
                        number,
                        f"the abbreviation {match[1]} is defined twice, first in {first[match[1]]}",
                        "keep one of the two",
                    )


def titles_differ(root: Path, pages: list[Page]) -> Problems:
    """A title in search results and in a browser's tab names one page."""
    first: dict[str, str] = {}
    for page in pages:
        if first.setdefault(page.title.lower(), page.file) != page.file:
            lines = page.text.splitlines()
            yield Problem(
                page.file,
                next((n for n, line in enumerate(lines, 1) if line.startswith("# ")), 0),
                f"{first[page.title.lower()]} has the same title, {page.title!r}",
                "give one of them another",
            )


# ---------------------------------------------------------------- packages


def packages_are_pinned(root: Path, pages: list[Page]) -> Problems:
    """Each package that is used is named in pyproject.toml and pinned in constraints.txt."""
    project, pins = root / "pyproject.toml", root / "constraints.txt"
    if not project.is_file():
        return
    if not pins.is_file():
        yield Problem("constraints.txt", 0, "there is no such file", "write it by `pip freeze`")
        return
    pinned: dict[str, str] = {}
    for number, text in enumerate(pins.read_text(encoding="utf-8").splitlines(), 1):
        line = text.partition("#")[0].strip()
        if exact := re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.!+-]+)", line):
            pinned[_normal(exact[1])] = exact[2]
        elif line:
            yield Problem(
                "constraints.txt", number, f"{line} is not one version", "write it as name==1.2.3"
            )
    lines = project.read_text(encoding="utf-8").splitlines()
    try:
        table = tomllib.loads("\n".join(lines))["project"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        yield Problem("pyproject.toml", 0, f"not understood: {error}", "correct it")
        return
    groups = [table.get("dependencies", []), *table.get("optional-dependencies", {}).values()]
    for wanted in (name for group in groups for name in group):
        yield from _pinned(wanted, lines, pinned)
    named = {_normal(_name(wanted)) for wanted in groups[0]}
    yield from _imported(root, pages, named, {*pinned, *named})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement.strip())[0]


def _pinned(wanted: str, lines: list[str], pinned: dict[str, str]) -> Problems:
    from packaging.requirements import Requirement

    line = next((n for n, text in enumerate(lines, 1) if f'"{wanted}"' in text), 0)
    version = pinned.get(_normal(_name(wanted)))
    exact = re.search(r"==[\w.!+-]+$", wanted)
    if version is None and exact:
        return  # pinned where it is named
    if version is None:
        yield Problem(
            "pyproject.toml",
            line,
            f"{_name(wanted)} has no version in constraints.txt",
            f"add `{_name(wanted)}==…`, the version that you have tested",
        )
    elif not Requirement(wanted).specifier.contains(version, prereleases=True):
        yield Problem(
            "pyproject.toml",
            line,
            f"{wanted} is asked for, and constraints.txt pins {version}",
            "make them agree",
        )


def _imported(root: Path, pages: list[Page], named: set[str], pinned: set[str]) -> Problems:
    """What a lesson imports pyproject.toml must name; the machinery may use what they bring."""
    folders = {**dict.fromkeys(SECTIONS, named), **dict.fromkeys(("shared", "site"), pinned)}
    for name, known in folders.items():
        folder = root / "snippets" / name
        # What is linked in from elsewhere is checked there.
        for path in [] if folder.is_symlink() else sorted(folder.glob("*.py")):
            for line, package in _third_party(str(path), path.stat().st_mtime_ns):
                if package not in known:
                    yield _unnamed(path.relative_to(root).as_posix(), line, package)
    for page in pages:
        for block in page.blocks:
            try:
                found = _packages(ast.parse(block.code))
            except SyntaxError:
                continue
            for number, package in found:
                place = block.lines[number - 1]
                if package not in named:
                    yield _unnamed(place.file, place.number, package)


def _unnamed(file: str, line: int, package: str) -> Problem:
    return Problem(
        file,
        line,
        f"{package} is imported and pyproject.toml does not name it",
        "add it to dependencies with its reason, and its version to constraints.txt",
    )


@cache
def _third_party(path: str, changed: int) -> list[tuple[int, str]]:
    try:
        return _packages(ast.parse(Path(path).read_text(encoding="utf-8")))
    except SyntaxError:
        return []


def _packages(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for line, name in imports(tree):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("snippets", "tests"):
            found.append((line, _normal(PACKAGES.get(top, top))))
    return found


# ---------------------------------------------------------------- weights


def weights_are_safe(root: Path, pages: list[Page]) -> Problems:
    """No file that runs code when it is read; weights have a digest that is right."""
    for path in _all_files(root):
        file = path.relative_to(root).as_posix()
        if path.suffix in PICKLES:
            yield Problem(
                file,
                0,
                f"a {path.suffix} file can run code when it is read",
                "keep weights as ONNX or safetensors, or train them in the run",
            )
        elif path.suffix in (".npy", ".npz") and (why := _unreadable(path)):
            yield Problem(file, 0, f"{why}: it can only be read as a pickle", "save plain numbers")
        elif path.suffix in WEIGHTS:
            yield from _digest(path, file)


def _all_files(root: Path) -> list[Path]:
    """Everything under docs/ and the lessons' folders; what was built or installed is elsewhere."""
    folders = [root / "docs", root / "snippets" / "shared"]
    folders += [root / top / section for section in SECTIONS for top in ("snippets", "tests")]
    return sorted(p for folder in folders for p in folder.rglob("*") if p.is_file())


def _unreadable(path: Path) -> str:
    """Why NumPy would need a pickle to read an .npy or .npz file; "" when it would not."""
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            with loaded:
                for name in loaded.files:
                    loaded[name]
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def _digest(path: Path, file: str) -> Problems:
    """A digest beside the file, or in the run.json of the page whose run has written it."""
    beside = path.with_name(path.name + ".sha256")
    run = read_json(path.parent / "run.json")
    said = run.get("files", {}).get(path.name)
    if run and said is None:
        return  # `outputs_are_used` says that no run has written it
    if beside.is_file():
        said = (beside.read_text(encoding="utf-8").split() or [""])[0]
    digest = sha256(path.read_bytes()).hexdigest()
    if said is None:
        yield Problem(
            file, 0, "these weights have no digest", f"write {path.name}.sha256 beside them"
        )
    elif said != digest:
        yield Problem(
            file,
            0,
            "these weights are not those whose digest was kept",
            "export them again, or restore them",
        )


# ---------------------------------------------------------------- images


def images_are_light_and_shown(root: Path, pages: list[Page]) -> Problems:
    """A raster image is small, and a page, the theme or the README shows it."""
    paths = [p for p in _all_files(root) if p.suffix.lower() in RASTERS]
    if not paths:
        return
    others = _texts_that_show(root)
    for path in paths:
        file = path.relative_to(root).as_posix()
        inside = path.relative_to(root / "docs").as_posix() if "docs" in file else file
        shown = [(p.file, n) for p in pages for n, t in _lines(p) if path.name in t]
        # A template may put the name together, as in "assets/cards/" ~ section.
        folder = inside.rpartition("/")[0] + "/"
        named = (path.name, folder) if folder.count("/") > 1 else (path.name,)
        if not shown and not any(name in text for name in named for text in others):
            yield Problem(file, 0, "nothing shows this image", "show it on a page, or remove it")
        if path.stat().st_size > RASTER_BYTES:
            where = shown[0] if shown else (file, 0)
            yield Problem(
                *where,
                f"{file} has {path.stat().st_size:,} bytes, the budget is {RASTER_BYTES:,}",
                "make it smaller, or write it as WebP",
            )


def _lines(page: Page) -> list[tuple[int, str]]:
    return list(enumerate(page.text.splitlines(), 1))


def _texts_that_show(root: Path) -> list[str]:
    """Templates, styles, scripts, the notebooks and the files at the top may show an image too."""
    files = [*(root / "snippets" / "site" / "theme").rglob("*.html")]
    files += [p for kind in ("css", "js") for p in (root / "docs" / "assets").rglob(f"*.{kind}")]
    files += (root / "docs" / "notebooks").glob("*.py")
    files += [root / "mkdocs.yml", root / "README.md"]
    return [path.read_text(encoding="utf-8") for path in files if path.is_file()]
