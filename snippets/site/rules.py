"""The rules on what is written: pages, modules, tests and recorded outputs. Nothing is run.

Each rule yields Problems with file, line and mend. Rules on the built HTML are in `built`.
"""

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from snippets.site import diagrams, exported, quotes
from snippets.site.code_rules import (
    modules_are_sound,
    nothing_is_left_behind,
    pages_code_is_sound,
    tests_can_fail,
)
from snippets.site.compare import TEXT
from snippets.site.fingerprint import modules_of
from snippets.site.markdown_rules import MARKDOWN_RULES
from snippets.site.mathml import BLOCK, INLINE, to_mathml
from snippets.site.numbers import NUMBER as QUOTED_NUMBER
from snippets.site.numbers import fill
from snippets.site.page import IMAGE_ROLE, SECTIONS, Page, nav_pages, page_files, read_page
from snippets.site.problems import PageError, Problem
from snippets.site.prose import headings, is_lesson, prose, without_code
from snippets.site.quotes import QUOTE
from snippets.site.record import read_json, state, study_state
from snippets.site.repository_rules import (
    abbreviations_are_defined_once,
    images_are_light_and_shown,
    packages_are_pinned,
    registers_are_sound,
    titles_differ,
    weights_are_safe,
)

LANGUAGES = ("python", "text", "sh", "mermaid", "yaml", "md", "html", "toml", "make")
FIGURE_BYTES = 60_000
SECONDS = 40  # of a page's run; some sections and pages may take longer
LONGER = {"language_models": 60, "language_models/gpt": 150}
PARTS = ("The idea", "Measured", "Where it fails", "Claims", "Try it", "Sources")
VERDICTS = ("true", "true with a caveat", "disputed", "wrong", "outdated")
Problems = Iterator[Problem]


def check_source(root: Path) -> list[Problem]:
    """All problems of the sources under `root`, sorted by file and line."""
    pages = [read_page(path, root) for path in page_files(root)]
    found: list[Problem] = []
    for page in pages:
        found += page.problems
        for rule in PAGE_RULES:
            found += rule(page)
    for rule in SITE_RULES:
        found += rule(root, pages)
    return sorted(set(found))


# ---------------------------------------------------------------- fences and blocks


def fences_are_plain(page: Page) -> Problems:
    for fence in page.fences:
        info = fence.info
        python = re.fullmatch(r"\s*\{?\s*\.?(python3?|py3?|pycon|ipython)\b.*", info, re.I)
        if fence.marks.startswith("~"):
            yield Problem(
                page.file, fence.line, "a fence of tildes would not be run", "write three backticks"
            )
        elif python and info != "python":
            yield Problem(
                page.file,
                fence.line,
                f"the fence ```{info} would not be run",
                "write it as ```python, nothing before or after",
            )
        elif not info:
            yield Problem(
                page.file,
                fence.line,
                "the fence names no language",
                f"name one of {', '.join(LANGUAGES)}",
            )
        elif not python and info.split()[0] not in LANGUAGES:
            yield Problem(
                page.file,
                fence.line,
                f"fence language {info!r} is not on the list",
                f"use one of {', '.join(LANGUAGES)}",
            )
        if fence.indent and len(fence.indent.expandtabs()) % 4:
            yield Problem(
                page.file,
                fence.line,
                "the fence is indented by no multiple of four",
                "align it with the tab or admonition that holds it",
            )


def blocks_are_short(page: Page) -> Problems:
    for block in page.blocks:
        code = [line for line in block.lines if line.text.strip()]
        if not code:
            yield Problem(page.file, block.line, "the block is empty", "write code or remove it")
        if len(block.lines) > 28 and len(code) > 25:
            yield Problem(
                page.file,
                block.line,
                f"the block has {len(code)} lines of code",
                "keep a block to 25: split the section or the function",
            )
        for line in block.lines:
            if len(line.text) > 78:
                yield Problem(
                    line.file,
                    line.number,
                    f"the line is {len(line.text)} columns wide",
                    "keep what a page shows within 78, wider is cut off",
                )
            if re.match(r"if\s+__name__\s*==", line.text):
                yield Problem(
                    line.file,
                    line.number,
                    "a main guard hides code from the run",
                    "write its body at the top level of the block",
                )


def blocks_quote_their_twin(page: Page) -> Problems:
    for fence in page.fences:
        targets = [(line, m["target"]) for line in fence.raw if (m := QUOTE.match(line.text))]
        if fence.info != "python":
            continue
        for line, target in targets:
            path, section = quotes.split_target(target)
            if path.endswith(".py") and not section:
                yield Problem(
                    page.file, line.number, f"quotes all of {path}", f"name a section: {path}:train"
                )
            if len([r for r in fence.raw if r.text.strip()]) > len(targets):
                yield Problem(
                    page.file,
                    line.number,
                    "the block mixes a quote and its own lines",
                    "put the quote into a block of its own",
                )
                break
        ours = f"docs/outputs/{page.key}/"
        if any(t.startswith(ours) for _, t in targets):
            yield Problem(
                page.file,
                fence.line,
                "a Python block quotes an output",
                "quote outputs in a ```text fence",
            )


def outputs_are_announced(page: Page) -> Problems:
    announced = {block.output_line for block in page.blocks}
    for fence in page.fences:
        for line in fence.raw:
            match = QUOTE.match(line.text)
            if fence.info != "text" or not match or line.number in announced:
                continue
            if match["target"].startswith(f"docs/outputs/{page.key}/") and not match[
                "target"
            ].endswith("/study.txt"):
                yield Problem(
                    page.file,
                    fence.line,
                    "this output belongs to no block",
                    "put <!--pytest-codeblocks:expected-output--> above it, after its block",
                )


def outputs_are_fresh(page: Page) -> Problems:
    for (what, why), thing, verb in (
        (state(page), "outputs are", "record"),
        (study_state(page), "study is", "study"),
    ):
        if what in ("stale", "missing"):
            yield Problem(
                page.file,
                _line_of_quote(page, why.split()[0]),
                f"its {thing} {what}: {why}",
                f"python -m snippets {verb} {page.key}",
            )
    run = read_json(page.outputs / "run.json")
    limit = LONGER.get(page.key) or LONGER.get(page.key.partition("/")[0], SECONDS)
    if run and run["seconds"] > limit:
        yield Problem(
            page.file,
            0,
            f"its run takes {run['seconds']} s, the budget is {limit} s",
            "train less, or move the long part to study()",
        )


def _line_of_quote(page: Page, name: str) -> int:
    """The line that quotes this output; 0 where it is the whole page that is stale."""
    lines = enumerate(page.text.splitlines(), 1)
    # An export and its golden file stand together, at the link to the first.
    own = f"outputs/{page.key}/"
    shown = (f'docs/{own}{name}"', f"{own}{Path(name).stem}.onnx)", f"{own}{name})")
    return next((n for n, line in lines if any(path in line for path in shown)), 0)


DIGITS = 6
DECIMAL = re.compile(r"(?<![\w.])(\d[\d,]*\.\d+)(?![\d.])")
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")


def outputs_say_what_matters(page: Page) -> Problems:
    """What was printed has few digits, and no address in memory: these differ in each run."""
    for block in page.blocks:
        for output in (block.output, *(figure.path for figure in block.figures)):
            path = page.root / (output or "")
            if not output or not path.is_file():
                continue
            text = path.read_text(encoding="utf-8")
            if output.endswith(".svg"):
                text = "\n".join(TEXT.findall(text))
            if found := ADDRESS.search(text):
                yield Problem(
                    page.file,
                    block.line,
                    f"{output} says {found[0]!r}, an address that differs in each run",
                    "print what is in the object, not the object",
                )
            elif long := [n for n in DECIMAL.findall(text) if _digits(n) > DIGITS]:
                yield Problem(
                    page.file,
                    block.line,
                    f"{output} says {long[0]}, more digits than carry a meaning",
                    "print three significant digits: {value:.3g}",
                )


def _digits(number: str) -> int:
    return len(re.sub(r"[.,]", "", number).lstrip("0"))


def outputs_are_used(page: Page) -> Problems:
    """Nothing lies in a page's folder that no run, study or generator put there."""
    from snippets.site.record import GENERATED

    if page.outputs.is_dir() and page.key != "index":
        known = set(read_json(page.outputs / "run.json").get("files", {})) | set(GENERATED)
        for path in sorted(page.outputs.iterdir()):
            if path.is_file() and path.name not in known:
                yield Problem(
                    path.relative_to(page.root).as_posix(),
                    0,
                    "no run has written this",
                    "remove it, or quote it on the page and record",
                )


def exports_are_linked(page: Page) -> Problems:
    """A reader can download what the page's run has exported, and nothing else of that kind."""
    if run := read_json(page.outputs / "run.json"):
        yield from exported.problems(page, run.get("exports", {}))


# ---------------------------------------------------------------- figures and diagrams


def figures_have_alternatives(page: Page) -> Problems:
    lines = page.text.splitlines()
    for number, text in prose(page):
        for tag in re.findall(r"<img\b[^>]*>", without_code(text)):
            if not re.search(r'\balt="[^"]{10,}"', tag):
                yield Problem(
                    page.file,
                    number,
                    "the image has no useful text alternative",
                    'say what it shows: alt="…"',
                )
        for alt in re.findall(r"!\[([^\]]*)\]", without_code(text)):
            if len(alt) < 10:
                yield Problem(
                    page.file,
                    number,
                    f"the image's text alternative is {alt!r}",
                    "say what it shows, in a sentence",
                )
    for block in page.blocks:
        for figure in block.figures:
            yield from _figure(page, figure, lines)


def _figure(page: Page, figure, lines: list[str]) -> Problems:
    words = figure.alternative.split()
    if len(words) < 6 or re.match(
        r"(an? )?(image|figure|plot|chart|picture)\b( of)?", figure.alternative, re.I
    ):
        what = f"is {figure.alternative!r}" if words else "is missing"
        yield Problem(
            page.file,
            figure.line,
            f"the figure's text alternative {what}",
            'say what it shows, in a sentence: <div role="img" aria-label="…">',
        )
    below = [text.strip() for text in lines[figure.line : figure.line + 4]]
    if not any(text.startswith("/// figure-caption") for text in below):
        yield Problem(
            page.file,
            figure.line,
            "the figure has no caption",
            "add a `/// figure-caption` block below its </div>",
        )
    path = page.root / figure.path
    if path.is_file() and path.stat().st_size > FIGURE_BYTES:
        yield Problem(
            page.file,
            figure.line,
            f"{figure.path} has {path.stat().st_size:,} bytes, the budget is {FIGURE_BYTES:,}",
            "rasterise the cloud, draw fewer points, or make it smaller",
        )


def diagrams_are_drawn(root: Path, pages: list[Page]) -> Problems:
    """Each diagram is a flowchart with a title and a description, and was drawn.

    One that was not drawn is parsed, if there is a Chromium, to name the line that is wrong.
    """
    undrawn = []
    for fence in diagrams.fences_of(root, pages):
        problems = diagrams.missing_parts(fence)
        yield from problems
        path = root / diagrams.FOLDER / f"{diagrams.identifier(fence.source)}.svg"
        if not problems and not path.is_file():
            undrawn.append(fence)
    yield from diagrams.why_undrawn(undrawn)


def diagrams_lead_somewhere(page: Page) -> Problems:
    for fence in page.fences:
        if fence.info == "mermaid":
            yield from _clicks(page, fence)


def _clicks(page: Page, fence) -> Problems:
    for line in fence.lines:
        match = re.search(r'^\s*click\s+\S+\s+(?:href\s+)?"([^"]+)"', line.text)
        if match and not re.match(r"[a-z]+:", match[1]):
            target = match[1].partition("#")[0].replace(".html", ".md")
            folder = (page.root / page.file).parent
            if not (folder / target).is_file() and not (folder / match[1]).is_file():
                yield Problem(
                    line.file,
                    line.number,
                    f"the diagram links to {match[1]}, which is no page",
                    "link to an existing page, or leave the click out",
                )


# ---------------------------------------------------------------- words, numbers, formulas


def quoted_numbers_exist(page: Page) -> Problems:
    for number, text in prose(page):
        if "{{" not in text:
            continue
        failures: list[tuple[str, str]] = []
        fill(text, page.root, partial(_note, failures))
        left = QUOTED_NUMBER.sub("", without_code(text))
        if "{{" in left:
            failures.append((left.strip(), "this is not understood"))
        for what, why in failures:
            message, _, mend = str(why).partition(": run ")
            yield Problem(
                page.file,
                number,
                f"{what}: {message}",
                f"run {mend}" if mend else "write {{section/page.metric:.3f}}",
            )


def _note(failures: list[tuple[str, str]], match: re.Match, why: str) -> None:
    failures.append((match[0], why))


TYPED = re.compile(r"(?<![\w.,/-])(?P<value>\d[\d,]*(?:\.\d+)?)(?P<percent>\s?%)?(?![\w]|\.\d|/\d)")


def numbers_stand_somewhere(page: Page) -> Problems:
    """A number in prose stands in the page's code or outputs, or is quoted with {{…}}."""
    if not page.blocks:
        return
    known = _numbers_of(page)
    section = ""
    for number, text in prose(page):
        if match := re.match(r"^##\s+(.*)", text):
            section = match[1].strip()
        if section == "Sources" or text.lstrip().startswith(("<!--", "[^", "--8<--")):
            continue
        for match in TYPED.finditer(_visible(text)):
            token = match["value"].rstrip(",").replace(",", "")
            small = "." not in token and int(token) < 13
            year = re.fullmatch(r"(19|20)\d\d", token)
            if not year and not (small and not match["percent"]) and token not in known:
                yield Problem(
                    page.file,
                    number,
                    f"the number {match[0]} stands in no output or code of this page",
                    f"quote it: {{{{{page.key}.NAME:.3f}}}}",
                )


def _visible(text: str) -> str:
    """A prose line without code, formulas, quoted numbers, addresses and marks."""
    text = without_code(QUOTED_NUMBER.sub("", text))
    text = re.sub(BLOCK, "", text)
    text = re.sub(INLINE, "", text)
    text = re.sub(r"\]\([^)]*\)|<https?:[^>]*>|https?://\S+|\{[#.:][^}]*\}", "] ", text)
    labels = " ".join(m["alt"] for m in IMAGE_ROLE.finditer(text))
    text = re.sub(r"<[^>]*>", " ", text) + " " + labels
    return re.sub(r"^\s*\d+\.\s", "", text)


def _numbers_of(page: Page) -> set[str]:
    """Every number in the page's code, in the modules that it imports and in its outputs."""
    texts = [block.code for block in page.blocks]
    texts += [path.read_text(encoding="utf-8") for path in modules_of(page)]
    texts += [path.read_text(encoding="utf-8") for path in page.outputs.glob("*.txt")]
    found = {t.replace(",", "") for t in re.findall(r"\d[\d,]*(?:\.\d+)?", " ".join(texts))}
    found |= {t.replace("_", "") for t in re.findall(r"\d[\d_]+", " ".join(texts))}
    found |= {t for text in texts for t in re.findall(r"\.\d+", text)}
    shares = {t for t in found if re.fullmatch(r"0?\.\d+", t)}
    # .05 in the code may be 5 % in the prose.
    return found | {f"{float(t) * 100:g}" for t in shares} | {f"0{t}" for t in found if t[0] == "."}


def formulas_are_understood(page: Page) -> Problems:
    paragraph: list[tuple[int, str]] = []
    for number, text in [*prose(page), (0, "")]:
        if text.strip() and (not paragraph or number == paragraph[-1][0] + 1):
            paragraph.append((number, text))
            continue
        yield from _formulas(page, paragraph)
        paragraph = [(number, text)] if text.strip() else []


def _formulas(page: Page, paragraph: list[tuple[int, str]]) -> Problems:
    text = without_code("\n".join(line for _, line in paragraph))
    if "$" not in text:
        return
    first = paragraph[0][0]
    for pattern, block in ((BLOCK, True), (INLINE, False)):
        for match in re.finditer(pattern, text, re.S):
            try:
                to_mathml(match["tex"], block=block)
            except ValueError as error:
                line = first + text[: match.start()].count("\n")
                yield Problem(
                    page.file,
                    line,
                    f"the formula {match[0]} is not understood: {error}",
                    "correct the command; a price is written \\$5",
                )
        text = re.sub(pattern, lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
    if re.search(r"(?<!\\)\$", text):
        line = first + re.split(r"(?<!\\)\$", text)[0].count("\n")
        yield Problem(
            page.file,
            line,
            "a formula is opened and never closed",
            "add the closing $, or write \\$ for a dollar",
        )


def markdown_is_safe(page: Page) -> Problems:
    for number, text in prose(page):
        text = without_code(text)
        if re.search(r"<\s*/?script\b", text, re.I):
            yield Problem(
                page.file,
                number,
                "a <script> in Markdown",
                "put behaviour into docs/assets and load it in mkdocs.yml",
            )
        if re.search(r"<[a-z][^>]*\s(style|on\w+)\s*=", text, re.I):
            yield Problem(
                page.file,
                number,
                "an inline style or handler in Markdown",
                "give the element a class and style it in docs/assets/css",
            )
        if re.match(r"^(!!!|\?\?\?\+?|===)", text.strip()):
            yield from _container(page, number, text)


KINDS = (
    "note",
    "tip",
    "info",
    "warning",
    "danger",
    "example",
    "success",
    "question",
    "quote",
    "abstract",
    "failure",
    "bug",
)


def _container(page: Page, number: int, text: str) -> Problems:
    kind = re.match(r"^\s*(?:!!!|\?\?\?\+?)\s+(\w+)", text)
    if kind and kind[1] not in KINDS:
        yield Problem(
            page.file, number, f"unknown admonition {kind[1]!r}", f"use one of {', '.join(KINDS)}"
        )
    if text.strip().startswith("===") and not re.match(r'^\s*===[!+]*\s+".+"\s*$', text):
        yield Problem(page.file, number, "a tab without a title", 'write === "Title"')
    own = len(text) - len(text.lstrip())
    lines = page.text.splitlines()
    body = next(((n, t) for n, t in enumerate(lines[number:], number + 1) if t.strip()), None)
    if body is None or len(body[1]) - len(body[1].lstrip()) < own + 4:
        yield Problem(
            page.file,
            body[0] if body else number,
            f"the content of {text.strip()!r} is not indented",
            "indent it by four spaces",
        )


def references_are_defined(page: Page) -> Problems:
    text = "\n".join(without_code(line) for _, line in prose(page))
    notes = set(re.findall(r"^\s*\[\^([^\]]+)\]:", text, re.M))
    links = {m.lower() for m in re.findall(r"^\s*\[([^\]^]+)\]:\s*\S", text, re.M)}
    for number, line in prose(page):
        line = without_code(line)
        for name in re.findall(r"\[\^([^\]]+)\](?!:)", line):
            if name not in notes:
                yield Problem(
                    page.file,
                    number,
                    f"footnote [^{name}] is not defined",
                    f"add `[^{name}]: …` at the end of the page",
                )
        for label, name in re.findall(r"(?<!!)\[([^\]\[^]+)\]\[([^\]]*)\]", line):
            if (name or label).lower() not in links:
                yield Problem(
                    page.file,
                    number,
                    f"the link [{label}][{name}] is not defined",
                    f"add `[{name or label}]: address`",
                )


def headings_do_not_skip(page: Page) -> Problems:
    found = headings(page)
    level = 0
    for number, depth, title in found:
        if depth > level + 1:
            yield Problem(
                page.file,
                number,
                f"heading {title!r} skips from level {level} to {depth}",
                f"write it with {level + 1} #",
            )
        level = depth
    tops = [line for line, depth, _ in found if depth == 1]
    if len(tops) != 1:
        yield Problem(
            page.file,
            tops[1] if tops else 1,
            f"the page has {len(tops)} titles",
            "write exactly one `# Title`",
        )
    if not re.match(r"^---\n(?:.*\n)*?description: .{30,160}\n(?:.*\n)*?---\n", page.text):
        lines = enumerate(page.text.splitlines(), 1)
        yield Problem(
            page.file,
            next((n for n, line in lines if line.startswith("description:")), 1),
            "the page has no description of 30 to 160 characters",
            "begin it with ---, description: One sentence., ---",
        )


# ---------------------------------------------------------------- a lesson's anatomy


def lessons_have_all_parts(page: Page) -> Problems:
    if not is_lesson(page):
        return
    titles = {title: line for line, level, title in headings(page) if level == 2}
    last = 0
    for part in PARTS:
        if part not in titles:
            later = [titles[p] for p in PARTS[PARTS.index(part) :] if p in titles]
            yield Problem(
                page.file,
                min(later, default=0),
                f"the page has no part {part!r}",
                f"write it above this line; the parts are {', '.join(PARTS)}",
            )
        elif titles[part] < last:
            yield Problem(
                page.file,
                titles[part],
                f"the part {part!r} is out of order",
                f"the order is {', '.join(PARTS)}",
            )
        last = titles.get(part, last)
    for needed, what in (
        (f"docs/outputs/{page.key}/card.txt", "card"),
        ('=== "For a developer"', "tab for developers"),
        ('=== "For a domain expert"', "tab for domain experts"),
    ):
        if needed not in page.text:
            yield Problem(page.file, 0, f"the page has no {what}", f"add {needed}")
    solutions = len(re.findall(r'^\?\?\? success "', page.text, re.M))
    if "Try it" in titles and solutions != 3:
        yield Problem(
            page.file,
            titles["Try it"],
            f"{solutions} exercises have a folded solution",
            'give each of the three its ??? success "Solution"',
        )


def claims_have_verdicts(page: Page) -> Problems:
    path = page.root / "snippets" / "claims.yml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        register = {c["id"]: c for c in entries}
    except (OSError, yaml.YAMLError, TypeError, KeyError):
        return  # `registers_are_sound` says why
    for number, text in prose(page):
        match = re.match(r"^\|\s*(C\d\d)\b[^|]*\|(?P<verdict>[^|]*)\|", text)
        if not match or not is_lesson(page):
            continue
        verdict = match["verdict"].strip().strip("*").lower()
        entry = register.get(match[1])
        if verdict not in VERDICTS:
            yield Problem(
                page.file,
                number,
                f"claim {match[1]} has no verdict, but {verdict!r}",
                f"the verdict is one of: {', '.join(VERDICTS)}",
            )
        elif entry is None:
            yield Problem(
                page.file,
                number,
                f"claim {match[1]} is not in the register",
                "add it to snippets/claims.yml",
            )
        elif entry["verdict"] != verdict:
            yield Problem(
                page.file,
                number,
                f"claim {match[1]} is {verdict!r} here and "
                f"{entry['verdict']!r} in snippets/claims.yml",
                "make them say the same",
            )


# ---------------------------------------------------------------- rules on the whole site


def pages_are_in_nav(root: Path, pages: list[Page]) -> Problems:
    config = root / "mkdocs.yml"
    if not config.is_file():
        return
    listed = nav_pages(root)
    if listed is None:
        yield Problem("mkdocs.yml", 0, "there is no nav", "list the pages under nav:")
        return
    files = {page.file.removeprefix("docs/") for page in pages}
    files |= {
        p.relative_to(root / "docs").as_posix() for p in (root / "docs" / "notebooks").glob("*.py")
    }
    for file in sorted(files - set(listed)):
        yield Problem(f"docs/{file}", 0, "the page is not in nav", "add it to nav in mkdocs.yml")
    for file in sorted(set(listed) - files):
        yield Problem(
            "mkdocs.yml",
            listed[file],
            f"nav lists {file}, which is no page",
            "write the page, or take the line out",
        )


def twins_are_complete(root: Path, pages: list[Page]) -> Problems:
    lessons = {page.key: page for page in pages if is_lesson(page)}
    for page in lessons.values():
        for path, what in ((page.module, "module"), (page.test, "test")):
            if not path.is_file():
                yield Problem(
                    page.file,
                    0,
                    f"the page's {what} is missing",
                    f"write {path.relative_to(root).as_posix()}",
                )
    for section in SECTIONS:
        for path in sorted((root / "snippets" / section).glob("[!_]*.py")):
            if f"{section}/{path.stem}" not in lessons:
                yield Problem(
                    path.relative_to(root).as_posix(),
                    0,
                    "no page quotes this module",
                    f"write docs/{section}/{path.stem}.md, or remove it",
                )
        for path in sorted((root / "tests" / section).glob("test_*.py")):
            if f"{section}/{path.stem.removeprefix('test_')}" not in lessons:
                yield Problem(
                    path.relative_to(root).as_posix(),
                    0,
                    "this test has no page",
                    f"name it after its page in docs/{section}/",
                )


def modules_are_readable(root: Path, pages: list[Page]) -> Problems:
    for section in (*SECTIONS, "shared"):
        for path in sorted((root / "snippets" / section).glob("[!_]*.py")):
            file = path.relative_to(root).as_posix()
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except SyntaxError as error:
                yield Problem(file, error.lineno or 0, f"not Python: {error.msg}", "correct it")
                continue
            yield from _module(file, tree)
            try:
                quotes.sections(path)
            except quotes.SectionError as error:
                yield Problem(file, error.line, str(error), error.mend)


def _module(file: str, tree: ast.Module) -> Problems:
    if not ast.get_docstring(tree):
        yield Problem(file, 1, "the module says no idea", "begin it with a one-sentence docstring")
    calm = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in tree.body:
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not isinstance(node, calm) and not text:
            yield Problem(
                file, node.lineno, "importing the module would run this", "move it into a function"
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            size = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if size > 25:
                yield Problem(
                    file,
                    node.lineno,
                    f"{node.name} has {size} lines below its docstring",
                    "keep a function to 25",
                )


def studies_are_tested(root: Path, pages: list[Page]) -> Problems:
    for page in pages:
        if study_state(page)[0] != "none" and page.test.is_file():
            text = page.test.read_text(encoding="utf-8")
            if not re.search(r"\bstudy\(", text):
                yield Problem(
                    page.test.relative_to(root).as_posix(),
                    0,
                    "the study is not tested",
                    "call study(...) at a tiny size",
                )


def generated_files_are_fresh(root: Path, pages: list[Page]) -> Problems:
    if not (root / "snippets" / "taxonomy.yml").is_file():
        return
    from snippets.site import share_cards
    from snippets.site.generate import stale_notebooks, texts

    mend = "python -m snippets record --stale"
    try:
        made = texts(root)
    except PageError:
        return  # `registers_are_sound` says why
    for path, text in made.items():
        file = root / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            yield Problem(path, 0, "this generated file is not what its sources say", mend)
    for page in stale_notebooks(root):
        path = (page.outputs / "notebook.ipynb").relative_to(root).as_posix()
        yield Problem(path, 0, f"the notebook is not what {page.file} says", mend)
    for path in share_cards.stale(root):
        yield Problem(path, 0, "the picture of a shared link is not what its page says", mend)
    for path in share_cards.left_over(root):
        yield Problem(path, 0, "no section has this picture", mend)


PAGE_RULES = (
    fences_are_plain,
    blocks_are_short,
    blocks_quote_their_twin,
    outputs_are_announced,
    outputs_are_fresh,
    outputs_are_used,
    exports_are_linked,
    outputs_say_what_matters,
    figures_have_alternatives,
    diagrams_lead_somewhere,
    quoted_numbers_exist,
    numbers_stand_somewhere,
    formulas_are_understood,
    markdown_is_safe,
    references_are_defined,
    headings_do_not_skip,
    lessons_have_all_parts,
    claims_have_verdicts,
    pages_code_is_sound,
    *MARKDOWN_RULES,
)
SITE_RULES = (
    pages_are_in_nav,
    twins_are_complete,
    modules_are_readable,
    studies_are_tested,
    generated_files_are_fresh,
    diagrams_are_drawn,
    modules_are_sound,
    tests_can_fail,
    nothing_is_left_behind,
    registers_are_sound,
    abbreviations_are_defined_once,
    titles_differ,
    packages_are_pinned,
    weights_are_safe,
    images_are_light_and_shown,
)
