"""A hash of the code that makes a page's outputs: its blocks and all that they import from here.

Code is read as a syntax tree without docstrings, so neither a comment nor a new line makes a page
stale. The tree is written out by our own few lines because `ast.dump` differs between Pythons.
"""

import ast
import contextlib
import hashlib
from functools import cache
from pathlib import Path

from snippets.site.page import Page

# How a value is recorded is the machinery's business and held by its own tests.
IGNORED = ("snippets.site",)


def fingerprint(page: Page) -> str:
    """Fingerprint of a page's program and of the names under which its outputs are recorded."""
    digest = hashlib.sha256()
    modules: set[Path] = set()
    for block in page.blocks:
        tree = ast.parse(block.code)
        digest.update(canonical(tree).encode())
        digest.update(repr([block.output, [f.path for f in block.figures], block.metrics]).encode())
        modules |= _imports(tree, page.root)
    _update(digest, modules, page.root)
    return digest.hexdigest()[:32]


def study_fingerprint(page: Page) -> str:
    """Fingerprint of what `study()` of the twin module can reach."""
    digest = hashlib.sha256()
    _update(digest, {page.module}, page.root)
    return digest.hexdigest()[:32]


def modules_of(page: Page) -> list[Path]:
    """The snippets modules that a page's blocks import, directly or not; the twin among them."""
    modules = {page.module} if page.module.is_file() else set()
    for block in page.blocks:
        with contextlib.suppress(SyntaxError):
            modules |= _imports(ast.parse(block.code), page.root)
    return _reached(modules, page.root)


def _reached(modules: set[Path], root: Path) -> list[Path]:
    done: set[Path] = set()
    while modules - done:
        path = min(modules - done)
        done.add(path)
        modules = modules | _module(str(path), path.stat().st_mtime_ns, str(root))[1]
    return sorted(done)


def _update(digest, modules: set[Path], root: Path) -> None:
    for path in _reached(modules, root):
        code, _ = _module(str(path), path.stat().st_mtime_ns, str(root))
        digest.update(path.relative_to(root).as_posix().encode() + code.encode())


@cache
def _module(path: str, changed: int, root: str) -> tuple[str, frozenset[Path]]:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return canonical(tree), frozenset(_imports(tree, Path(root)))


def _imports(tree: ast.AST, root: Path) -> set[Path]:
    """The files under snippets/ that a tree imports by name."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {n for n in names if n.split(".")[0] == "snippets" and not n.startswith(IGNORED)}
    files = {root / (name.replace(".", "/") + ".py") for name in names}
    return {file for file in files if file.is_file()}


def canonical(node: object) -> str:
    """A syntax tree as text: no positions, no docstrings, no empty fields."""
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list):
                value = _without_docstring(node, value)
            if value not in (None, []) and name not in ("ctx", "type_comment", "kind"):
                fields.append(f"{name}={canonical(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return "[" + ",".join(canonical(item) for item in node) + "]"
    return repr(node)


def _without_docstring(node: ast.AST, body: list) -> list:
    holders = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if isinstance(node, holders) and body and isinstance(body[0], ast.Expr):
        value = body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return body[1:]
    return body
