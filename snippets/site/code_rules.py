"""The rules on code: what a module, a page's block or a test must not say. Nothing is run.

A rule is a function of a syntax tree that yields (line, message, mend); `modules_and_tests` and
`blocks` say in which file the line stands.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from snippets.site.page import SECTIONS, Block, Page
from snippets.site.problems import Problem
from snippets.site.quotes import Line

Found = Iterator[tuple[int, str, str]]
# Where a page or a module could ask the network, and what scikit-learn downloads.
NETWORK = (
    "urllib.request",
    "http.client",
    "requests",
    "httpx",
    "aiohttp",
    "socket",
    "ftplib",
    "huggingface_hub",
    "torch.hub",
)
OFFLINE = "use data that comes with an installed package, as snippets.shared.digits does"
# Reading these runs what is in them.
UNSAFE_MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
UNSAFE_CALLS = ("eval", "exec", "torch.save", "torch.load", "os.system")
SAFE = "train it in the run, or keep weights as ONNX or safetensors with their sha256"
# scikit-learn's names that draw numbers of their own unless they are given a `random_state`.
DRAWING = re.compile(
    r"(RandomForest|ExtraTrees?|GradientBoosting|AdaBoost|Bagging|DecisionTree)(Classifier|Regressor)"
    r"|(MLP|SGD)(Classifier|Regressor)|(MiniBatch)?KMeans|(Bayesian)?GaussianMixture|TSNE|FastICA"
    r"|IsolationForest|BernoulliRBM|Stratified\w*ShuffleSplit|(Group)?ShuffleSplit"
    r"|train_test_split|permutation_importance|make_(moons|blobs|circles|classification)"
    r"|RandomizedSearchCV"
)
TORCH_DRAWS = re.compile(
    r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial|rand_like|randn_like)"
)
# Layers that begin with random weights.
LAYERS = re.compile(
    r"(torch\.)?nn\.(Linear|Conv\w+|Embedding|LSTM|GRU|RNN|Bilinear|Transformer\w*|MultiheadAttention)"
)
CLOCKS = re.compile(r"(time\.)?(perf_counter|process_time|monotonic|thread_time)(_ns)?")
DATES = re.compile(r"time\.(time|ctime|localtime)(_ns)?|(datetime\.)*(datetime|date)\.(now|today)")
# What does not ask in which order a set is read.
ORDERLESS = ("sorted", "len", "sum", "min", "max", "any", "all", "set", "frozenset")
GENERATORS = ("default_rng", "Random", "RandomState", "PCG64", "SeedSequence")


def dotted(node: ast.AST) -> str:
    """`np.random.rand` of such an expression; "" of anything that is not names and dots."""
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return node.id if isinstance(node, ast.Name) else ""


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that is imported, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call and the name of what is called, `numpy` as np."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            yield node, re.sub(r"^numpy\.", "np.", name)


def _begins(name: str, known: tuple[str, ...]) -> str:
    return next((k for k in known if name == k or name.startswith(k + ".")), "")


# ---------------------------------------------------------------- modules and blocks alike


def nothing_is_fetched(tree: ast.AST) -> Found:
    """No import of what reads the network: a page is offline."""
    for line, name in imports(tree):
        if known := _begins(name, NETWORK):
            yield line, f"{known} reads the network, and a page is offline", OFFLINE
        elif name.startswith("sklearn.datasets.fetch_"):
            yield line, f"{name.rpartition('.')[2]} downloads its data, a page is offline", OFFLINE
    for call, name in calls(tree):
        if re.search(r"(^|\.)datasets\.fetch_\w+$", name):
            yield call.lineno, f"{name} downloads its data, a page is offline", OFFLINE


def nothing_is_unpickled(tree: ast.AST) -> Found:
    """Nothing that runs what it reads: no pickle under any name, no eval."""
    for line, name in imports(tree):
        if known := _begins(name, UNSAFE_MODULES):
            yield line, f"{known} runs what is in the file that it reads", SAFE
    for call, name in calls(tree):
        if name in UNSAFE_CALLS:
            yield call.lineno, f"{name}() runs or stores code", SAFE
        if any(k.arg == "allow_pickle" and not _is(k.value, False) for k in call.keywords):
            yield call.lineno, "allow_pickle runs what is in the file that it reads", SAFE


def _is(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def chance_has_a_seed(tree: ast.AST) -> Found:
    """Each generator has a seed, no global one is used, no set decides an order."""
    # `random` is also what many call their own generator.
    module = any(name == "random" for _, name in imports(tree))
    shared = r"(np\.)?random\.[a-z]" if module else r"np\.random\.[a-z]"
    for call, name in calls(tree):
        if name.rpartition(".")[2] in GENERATORS:
            if (not call.args and not call.keywords) or (call.args and _is(call.args[0], None)):
                yield call.lineno, f"{name}() has no seed", f"write {name}(0), or pass a seed"
        elif re.match(shared, name) and not name.endswith("random.seed"):
            message = f"{name}() draws from the generator that all code shares"
            yield call.lineno, message, "draw from np.random.default_rng(seed)"
        elif _draws(call, name) and _unseeded(call):
            yield call.lineno, f"{name}() has no random_state", "pass random_state=0"
        elif name == "hash":
            message = "hash() of a text differs in each interpreter"
            yield call.lineno, message, "use hashlib.sha256 or zlib.crc32"
        elif DATES.fullmatch(name):
            yield call.lineno, f"{name}() differs in each run", "leave the date out of a run"
    yield from _sets_in_order(tree)


def _draws(call: ast.Call, name: str) -> bool:
    """It takes a `random_state`, and draws."""
    shuffles = any(k.arg == "shuffle" and _is(k.value, True) for k in call.keywords)
    last = name.rpartition(".")[2]
    return bool(
        DRAWING.fullmatch(last)
        or name in ("shuffle", "resample")
        or name.endswith(".rvs")
        or (last.endswith("Fold") and shuffles)
    )


def _unseeded(call: ast.Call) -> bool:
    """No `random_state` is given; keywords that are not written out (`**settings`) may hold one."""
    state = [k for k in call.keywords if k.arg in ("random_state", None)]
    return not state or (state[0].arg == "random_state" and _is(state[0].value, None))


def _sets_in_order(tree: ast.AST) -> Found:
    free = {
        id(argument)
        for call, name in calls(tree)
        if name in ORDERLESS
        for argument in call.args
        if isinstance(argument, ast.GeneratorExp | ast.ListComp)
    }
    for order in (order for node in ast.walk(tree) if id(node) not in free for order in _in(node)):
        made = isinstance(order, ast.Call) and dotted(order.func) in ("set", "frozenset")
        if made or isinstance(order, ast.Set | ast.SetComp):
            message = "a set is read in an order that differs in each interpreter"
            yield order.lineno, message, "write sorted(…) around it"


def _in(node: ast.AST) -> list[ast.AST]:
    """What this node reads in its order: `for … in x`, `list(x)`, `", ".join(x)`."""
    if isinstance(node, ast.For):
        return [node.iter]
    if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
        return [part.iter for part in node.generators]
    if isinstance(node, ast.Call) and (
        dotted(node.func) in ("list", "tuple", "enumerate")
        or getattr(node.func, "attr", "") == "join"
    ):
        return node.args[:1]
    return []


def torch_draws(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Calls that draw from torch's own stream, for which no generator is given."""
    for call, name in calls(tree):
        drawn = TORCH_DRAWS.fullmatch(name) or re.search(r"\.(normal|uniform|bernoulli)_$", name)
        if drawn and "generator" not in {k.arg for k in call.keywords}:
            yield call, name


def seeds_torch(tree: ast.AST) -> bool:
    return any(name == "torch.manual_seed" for _, name in calls(tree))


CODE = (nothing_is_fetched, nothing_is_unpickled, chance_has_a_seed)
SEED_TORCH = "call torch.manual_seed(seed) before it, or pass generator="


# ---------------------------------------------------------------- pages


def pages_code_is_sound(page: Page) -> Iterator[Problem]:
    """The rules on code, for the lines that stand on the page itself."""
    whole = _parse("".join(block.code for block in page.blocks))
    places = [line for block in page.blocks for line in block.lines]
    for rule in CODE if whole else ():
        for line, message, mend in rule(whole):
            yield from _on_page(page, places[line - 1], message, mend)
    trees = [(block, tree) for block in page.blocks if (tree := _parse(block.code))]
    for block, tree in trees:
        yield from _clocks(page, block, tree)
    yield from _unseeded_torch(page, trees)
    yield from _metrics_are_defined(page, trees)


@cache
def _parse(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except SyntaxError:
        return None  # the run says it, with its line


def _on_page(page: Page, place: Line, message: str, mend: str) -> Iterator[Problem]:
    """A quoted line is its module's business, and is reported there."""
    if place.file == page.file:
        yield Problem(place.file, place.number, message, mend)


def _clocks(page: Page, block: Block, tree: ast.Module) -> Iterator[Problem]:
    shows = block.output or block.metrics or block.figures
    for call, name in calls(tree):
        if CLOCKS.fullmatch(name) and shows and not block.reason:
            yield from _on_page(
                page,
                block.lines[call.lineno - 1],
                f"{name}() gives another number in each run",
                "widen it: <!-- tolerance: 80 % because seconds depend on the machine -->",
            )


def _unseeded_torch(page: Page, trees: list[tuple[Block, ast.Module]]) -> Iterator[Problem]:
    """Torch draws, or makes layers, before the page's own top level has seeded it."""
    seeded = False
    for block, tree in trees:
        for statement in tree.body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                continue
            drawn = [(call, name) for call, name in calls(statement) if LAYERS.fullmatch(name)]
            drawn += torch_draws(statement)
            seeded = seeded or seeds_torch(statement)
            for call, name in drawn:
                if not seeded:
                    place = block.lines[call.lineno - 1]
                    message = f"{name}() draws and torch has no seed yet"
                    mend = "call torch.manual_seed(0) before it"
                    yield from _on_page(page, place, message, mend)


def _metrics_are_defined(page: Page, trees: list[tuple[Block, ast.Module]]) -> Iterator[Problem]:
    defined: set[str] = set()
    lines = page.text.splitlines()
    for block, tree in trees:
        defined |= _bound(tree)
        for name in block.metrics:
            if name not in defined and "*" not in defined:
                number = next(
                    n for n, text in enumerate(lines, 1)
                    if n > block.line and re.search(rf"<!--\s*metrics:.*\b{name}\b", text)
                )  # fmt: skip
                yield Problem(
                    page.file,
                    number,
                    f"the metrics comment names {name!r}, which no block above defines",
                    "name a variable of the page, or make it",
                )


def _bound(tree: ast.Module) -> set[str]:
    """The names that a block gives to something; "*" stands for all."""
    names = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    names |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return names


# ---------------------------------------------------------------- modules


def modules_are_sound(root: Path, pages: list[Page]) -> Iterator[Problem]:
    """The rules on code, for the lessons' modules and for what they share."""
    seeded = {
        page.module: any((t := _parse(b.code)) and seeds_torch(t) for b in page.blocks)
        for page in pages
    }
    for path, tree in _files(root, "snippets", "[!_]*.py", (*SECTIONS, "shared")):
        file = path.relative_to(root).as_posix()
        for rule in CODE:
            for line, message, mend in rule(tree):
                yield Problem(file, line, message, mend)
        if not seeds_torch(tree) and not seeded.get(path):
            for call, name in torch_draws(tree):
                message = f"{name}() draws, and neither the module nor its page seeds torch"
                yield Problem(file, call.lineno, message, SEED_TORCH)


def _files(root: Path, top: str, pattern: str, sections: tuple[str, ...]):
    """(path, syntax tree) of files; one that is no Python is reported by `modules_are_readable`."""
    for section in sections:
        for path in sorted((root / top / section).glob(pattern)):
            if tree := _parse(path.read_text(encoding="utf-8")):
                yield path, tree


# ---------------------------------------------------------------- tests


CHECKS = re.compile(r"([\w.]+\.)?assert_\w+|pytest\.(raises|warns|fail)")


def tests_can_fail(root: Path, pages: list[Page]) -> Iterator[Problem]:
    """Each test of a lesson asserts something, and none is skipped or expected to fail."""
    for path, tree in _files(root, "tests", "test_*.py", SECTIONS):
        file = path.relative_to(root).as_posix()
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        helpers = {f.name for f in functions if _asserts(f, set())}
        for function in functions:
            if function.name.startswith("test_") and not _asserts(function, helpers):
                yield Problem(
                    file,
                    function.lineno,
                    f"{function.name} asserts nothing, so it cannot fail",
                    "assert what it is about",
                )
        for node in ast.walk(tree):
            name = dotted(node)
            if re.fullmatch(r"pytest\.(skip|xfail|importorskip|mark\.(skip|skipif|xfail))", name):
                yield Problem(
                    file,
                    node.lineno,
                    f"{name}: a lesson's test always runs",
                    "mend what it tests, or remove it",
                )


def _asserts(function: ast.FunctionDef, helpers: set[str]) -> bool:
    return any(isinstance(node, ast.Assert) for node in ast.walk(function)) or any(
        CHECKS.fullmatch(name) or name.rpartition(".")[2] in helpers for _, name in calls(function)
    )


# ---------------------------------------------------------------- what was left behind


def nothing_is_left_behind(root: Path, pages: list[Page]) -> Iterator[Problem]:
    """No note to oneself, merge conflict or blanket silence in a module or test."""
    for top in ("snippets", "tests"):
        for section in (*SECTIONS, "shared"):
            for path in sorted((root / top / section).glob("*.py")):
                file = path.relative_to(root).as_posix()
                for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
                    yield from left_behind(file, number, text)
                    if re.search(r"#\s*noqa\s*(?!:)(\s|$)", text):
                        yield Problem(
                            file,
                            number,
                            "this noqa silences every rule",
                            "name the one: # noqa: E402",
                        )


def left_behind(file: str, number: int, text: str) -> Iterator[Problem]:
    """What an author forgets on one line of any source."""
    if re.match(r"(<{7}|>{7})( |$)", text):
        yield Problem(file, number, "a merge conflict was left", "keep one side, remove the marks")
    if note := re.search(r"\b(TODO|FIXME)\b", text):
        yield Problem(file, number, f"{note[0]} was left", "do it, or open an issue and remove it")
    if "\t" in text:
        yield Problem(file, number, "the line has a tab character", "indent it with spaces")
