"""The taxonomy as data: read it, check it, and write the diagrams, cards and tables that follow.

`generated(root)` gives the text of every file that `record` writes from `snippets/taxonomy.yml`,
`snippets/claims.yml` and the recorded runs; nothing in it depends on the day or the machine.
"""

import difflib
import html
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from snippets.site import ROOT
from snippets.site.problems import PageError, Problem
from snippets.site.record import read_json

FILE = "snippets/taxonomy.yml"
CLAIMS = "snippets/claims.yml"
# Each ability is a verb that the module must have.
VERBS = {
    "classify": "predict_proba",
    "regress": "predict",
    "score": "log_prob",
    "sample": "sample",
    "encode": "encode",
    "fill in": "impute",
}
FAMILIES = ("discriminative", "generative", "both")
LIKELIHOODS = ("exact", "bounded", "absent")
REQUIRED = ("key", "title", "family", "represents", "can", "data")
ALLOWED = (*REQUIRED, "parent", "likelihood", "sampling", "synonyms", "also")


@dataclass(frozen=True)
class Model:
    """One model; `built` when its page exists."""

    key: str
    title: str
    family: str
    represents: str
    can: tuple[str, ...]
    data: str
    parent: str
    likelihood: str
    sampling: str
    synonyms: tuple[str, ...]
    also: tuple[tuple[str, str], ...]
    built: bool

    @property
    def section(self) -> str:
        return self.key.partition("/")[0]

    @property
    def node(self) -> str:
        return self.key.replace("/", "_")


@dataclass(frozen=True)
class Comparison:
    """A page that compares models."""

    key: str
    title: str
    compares: tuple[str, ...]
    data: str


@dataclass
class Taxonomy:
    """Sections (key → title), models (key → Model) and comparisons, all in order."""

    sections: dict[str, str]
    models: dict[str, Model] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)

    def of(self, section: str) -> list[Model]:
        return [model for model in self.models.values() if model.section == section]


def load(root: Path = ROOT) -> Taxonomy:
    """Read and check the taxonomy; PageError names file, line and mend of the first mistake."""
    text = (root / FILE).read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    taxonomy = Taxonomy(data["sections"])

    def fail(entry: dict, message: str, mend: str):
        key = str(entry.get("key", ""))
        lines = text.splitlines()
        line = next((n for n, s in enumerate(lines, 1) if s.strip() == f"- key: {key}"), 0)
        raise PageError(Problem(FILE, line, message, mend))

    keys = {entry.get("key") for entry in data["models"]}
    for entry in data["models"]:
        _check(entry, taxonomy, keys, fail)
        key = entry["key"]
        taxonomy.models[key] = Model(
            key,
            entry["title"],
            entry["family"],
            entry["represents"],
            tuple(entry["can"]),
            entry["data"],
            entry.get("parent", key.partition("/")[0]),
            entry.get("likelihood", "absent"),
            entry.get("sampling", "–"),
            tuple(entry.get("synonyms", ())),
            tuple((also["key"], also["why"]) for also in entry.get("also", ())),
            (root / "docs" / f"{key}.md").is_file(),
        )
    for entry in data.get("comparisons", ()):
        for name in entry["compares"]:
            if name not in keys:
                fail(
                    entry,
                    f"{entry['key']} compares an unknown model, {name!r}",
                    _nearest(name, keys),
                )
        taxonomy.comparisons.append(Comparison(**{**entry, "compares": tuple(entry["compares"])}))
    return taxonomy


def _check(entry: dict, taxonomy: Taxonomy, keys: set, fail) -> None:
    for name in REQUIRED:
        if not entry.get(name):
            fail(entry, f"an entry has no {name}", f"add `{name}: …`")
    for name in entry:
        if name not in ALLOWED:
            fail(entry, f"unknown field {name!r}", _nearest(name, ALLOWED))
    key = entry["key"]
    if key in taxonomy.models:
        fail(entry, f"{key} is listed twice", "keep one of them")
    if key.partition("/")[0] not in taxonomy.sections:
        fail(entry, f"{key} is in no section", _nearest(key.partition("/")[0], taxonomy.sections))
    for value, known, what in (
        (entry["family"], FAMILIES, "family"),
        (entry.get("likelihood", "absent"), LIKELIHOODS, "likelihood"),
        *((ability, tuple(VERBS), "ability") for ability in entry["can"]),
        *(
            (link, tuple(keys), "model")
            for link in [
                *filter(None, [entry.get("parent")]),
                *(a["key"] for a in entry.get("also", ())),
            ]
        ),
    ):
        if value not in known:
            fail(entry, f"{key} names an unknown {what}, {value!r}", _nearest(value, known))


def _nearest(name: str, known) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1, 0.4)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(map(str, known))}"


# ---------------------------------------------------------------- diagrams


def _label(text: str) -> str:
    """Break a long title over two lines, so that the boxes stay narrow."""
    words, half = text.split(), len(text) / 2
    if len(text) <= 16 or len(words) < 2:
        return text
    lengths = [len(" ".join(words[:k])) for k in range(1, len(words))]
    cut = min(range(len(lengths)), key=lambda k: abs(lengths[k] - half)) + 1
    return " ".join(words[:cut]) + "<br>" + " ".join(words[cut:])


def _node(model: Model, here: str = "") -> str:
    classes = (
        [model.family]
        + ([] if model.built else ["planned"])
        + (["here"] if model.key == here else [])
    )
    return f'{model.node}["{_label(model.title)}"]:::{"_".join(classes)}'


def _classes(names: set[str]) -> list[str]:
    """Mermaid wants each class defined; their looks are in the site's style sheet."""
    return [f"    classDef {name} stroke-width:1px" for name in sorted(names)]


def _draw(kind: str, title: str, description: str, lines: list[str]) -> str:
    text = [f"flowchart {kind}", f"    accTitle: {title}", f"    accDescr: {description}", *lines]
    names = set(re.findall(r":::(\w+)", "\n".join(lines)))
    return "\n".join([*text, *_classes(names)]) + "\n"


def _click(model: Model, folder: str, here: str = "") -> list[str]:
    """A link, relative to the page in `folder`, to a page that exists and is not this one."""
    if not model.built or model.key == here:
        return []
    up = "../" if folder else ""
    href = (
        f"{up}{model.key}.html"
        if model.section != folder
        else f"{model.key.partition('/')[2]}.html"
    )
    return [f'    click {model.node} href "{href}"']


def map_diagram(taxonomy: Taxonomy) -> str:
    """Every model, for the front page: a column for each section, from the top of its tree."""
    lines, links = [], []
    for section, title in taxonomy.sections.items():
        lines.append(f'    {section}["{title}"]:::section')
        links.append(f'    click {section} href "{section}/index.html"')
        above = section
        for model in _from_the_top(taxonomy, section):
            # An unseen link holds the column together.
            lines.append(f"    {above} ~~~ {_node(model).replace('<br>', ' ')}")
            links += _click(model, "")
            above = model.node
    built = sum(model.built for model in taxonomy.models.values())
    tight = '%%{init: {"flowchart": {"rankSpacing": 9, "nodeSpacing": 12, "padding": 7}}}%%\n'
    return tight + _draw(
        "TB",
        "The map of models",
        f"{len(taxonomy.sections)} sections and their {len(taxonomy.models)} models, of which "
        f"{built} have a page; dashed boxes are planned.",
        lines + links,
    )


def _from_the_top(taxonomy: Taxonomy, parent: str) -> list[Model]:
    """The models below a section or a model, each followed by its children."""
    found = []
    for model in taxonomy.models.values():
        if model.parent == parent:
            found += [model, *_from_the_top(taxonomy, model.key)]
    return found


def overlaps_diagram(taxonomy: Taxonomy) -> str:
    """The models that belong to two places, and why."""
    lines, shown = [], {}
    for model in taxonomy.models.values():
        for key, why in model.also:
            other = taxonomy.models[key]
            shown |= {model.key: model, other.key: other}
            lines.append(f"    {_node(model)} -. {_quote(why)} .- {_node(other)}")
    links = [line for model in shown.values() for line in _click(model, "")]
    names = ", ".join(model.title for model in shown.values())
    return _draw("LR", "Where the families meet", f"Dotted lines join {names}.", lines + links)


def _quote(text: str) -> str:
    return f'"{text}"'


def map_list(taxonomy: Taxonomy) -> str:
    """The map as nested Markdown lists, one for each section: for screens that hold no diagram."""

    def below(parent: str, depth: int) -> list[str]:
        lines = []
        for model in taxonomy.models.values():
            if model.parent == parent:
                # Brackets make a link of what is built; what is planned keeps the same place.
                name = f"[{model.title}]({model.key}.md){{ .{model.family} }}"
                if not model.built:
                    name = f'<span class="{model.family} planned">{model.title}</span>'
                lines += [f"{'    ' * depth}- {name}", *below(model.key, depth + 1)]
        return lines

    lines = []
    for section, title in taxonomy.sections.items():
        lines += [f"- [{title}]({section}/index.md)", *below(section, 1)]
    return "\n".join(lines) + "\n"


def tree_diagram(taxonomy: Taxonomy, section: str) -> str:
    """One section's tree, for its index page."""
    models = taxonomy.of(section)
    lines = [f'    {section}["{taxonomy.sections[section]}"]:::section']
    lines += [f"    {m.parent.replace('/', '_')} --> {_node(m)}" for m in models]
    lines += [line for m in models for line in _click(m, section)]
    names = ", ".join(m.title for m in models)
    return _draw(
        "LR",
        f"{taxonomy.sections[section]}: the models of this section",
        f"The tree of {names}. Dashed boxes are planned.",
        lines,
    )


def here_diagram(taxonomy: Taxonomy, model: Model) -> str:
    """Where a page is: its section, its parent, itself, its children and its overlaps."""
    section, lines, shown = model.section, [], {}
    lines.append(f'    {section}["{taxonomy.sections[section]}"]:::section')
    above = model
    while above.parent in taxonomy.models:
        above = taxonomy.models[above.parent]
        shown[above.key] = above
    shown[model.key] = model
    shown |= {m.key: m for m in taxonomy.models.values() if m.parent == model.key}
    for m in shown.values():
        lines.append(f"    {m.parent.replace('/', '_')} --> {_node(m, model.key)}")
    for one, other, why in _overlaps(taxonomy, model):
        shown[other.key] = other
        lines.append(f"    {one.node} -. {_quote(why)} .- {_node(other)}")
    lines.append(f'    click {section} href "index.html"')
    lines += [line for m in shown.values() for line in _click(m, section, model.key)]
    return _draw(
        "LR",
        f"Where {model.title[0].lower() + model.title[1:]} stands",
        f"{model.title} in the section {taxonomy.sections[section]}, with what it is next to.",
        lines,
    )


def _overlaps(taxonomy: Taxonomy, model: Model) -> list[tuple[Model, Model, str]]:
    own = [(model, taxonomy.models[key], why) for key, why in model.also]
    others = [
        (model, m, why) for m in taxonomy.models.values() for key, why in m.also if key == model.key
    ]
    return own + others


# ---------------------------------------------------------------- cards and tables


def card(taxonomy: Taxonomy, model: Model, root: Path) -> str:
    """A page's card: what the model is, what it can do, what it costs, and where it stands."""
    run = read_json(root / "docs" / "outputs" / model.key / "run.json")
    count = run.get("metrics", {}).get("parameters")
    rows = [("Represents", model.represents), ("Can", ", ".join(model.can))]
    if model.likelihood != "absent" or model.family == "generative":
        rows.append(("Likelihood", model.likelihood))
    if model.sampling != "–":
        rows.append(("Draws", model.sampling))
    rows.append(("Data", model.data))
    if count:
        rows.append(("Parameters", f"{count:,}"))
    if run:
        rows.append(("Page runs in", f"{run['seconds']:g} s"))
    return (
        f'<dl class="card {model.family}">\n{_rows(rows)}\n</dl>\n\n'
        f"```mermaid\n{here_diagram(taxonomy, model)}```\n"
    )


def comparison_card(taxonomy: Taxonomy, page: Comparison, root: Path) -> str:
    """The card of a page that compares models: which, on what, at what cost."""
    run = read_json(root / "docs" / "outputs" / page.key / "run.json")
    models = [taxonomy.models[key] for key in page.compares]
    rows = [("Compares", " with ".join(m.title for m in models)), ("Data", page.data)]
    if run:
        rows.append(("Page runs in", f"{run['seconds']:g} s"))
    node = page.key.replace("/", "_")
    lines = [f'    {node}["{_label(page.title)}"]:::both_here']
    lines += [f"    {_node(m)} --> {node}" for m in models]
    lines += [line for m in models for line in _click(m, page.key.partition("/")[0])]
    diagram = _draw(
        "LR",
        "What this page compares",
        f"{' and '.join(m.title for m in models)}, side by side.",
        lines,
    )
    return f'<dl class="card both">\n{_rows(rows)}\n</dl>\n\n```mermaid\n{diagram}```\n'


def _rows(rows: list[tuple[str, object]]) -> str:
    return "\n".join(
        f"<div><dt>{name}</dt><dd>{html.escape(str(value))}</dd></div>" for name, value in rows
    )


def table(taxonomy: Taxonomy, section: str, root: Path) -> str:
    """A section's models side by side, as a Markdown table."""
    rows = [
        "| Model | Represents | Can | Likelihood | Draws | Page runs in |",
        "|---|---|---|---|---|---:|",
    ]
    for model in taxonomy.of(section):
        run = read_json(root / "docs" / "outputs" / model.key / "run.json")
        title = f"[{model.title}]({model.key.partition('/')[2]}.md)" if model.built else model.title
        seconds = f"{run['seconds']:g} s" if run else "planned" if not model.built else "–"
        likelihood = "–" if model.family == "discriminative" else model.likelihood
        what = model.represents.replace("|", "\\|")
        rows.append(
            f"| {title} | {what} | {', '.join(model.can)} | {likelihood} | "
            f"{model.sampling} | {seconds} |"
        )
    return "\n".join(rows) + "\n"


def claims_table(root: Path) -> str:
    """The settled claims: those whose page exists and has their row."""
    claims = yaml.safe_load((root / CLAIMS).read_text(encoding="utf-8"))
    rows = ["| Claim | Verdict | Why | Settled by |", "|---|---|---|---|"]
    for claim in claims:
        page = root / "docs" / f"{claim['settled_by']}.md"
        if not page.is_file():
            continue
        text = page.read_text(encoding="utf-8")
        if re.search(rf"^\|\s*{claim['id']}\b", text, re.M):
            title = re.search(r"^# (.+)$", text, re.M)[1]
            section, _, stem = claim["settled_by"].partition("/")
            link = f"{stem}.md" if section == "choosing" else f"../{claim['settled_by']}.md"
            rows.append(
                f"| {claim['id']} {claim['claim']} | **{claim['verdict']}** | "
                f"{claim['reason']} | [{title}]({link}#claims) |"
            )
    return "\n".join(rows) + "\n"


def generated(root: Path = ROOT) -> dict[str, str]:
    """Repository path → text of everything that follows from the taxonomy and the claims."""
    taxonomy = load(root)
    folder = "docs/outputs/taxonomy"
    files = {
        f"{folder}/map.mmd": map_diagram(taxonomy),
        f"{folder}/overlaps.mmd": overlaps_diagram(taxonomy),
        f"{folder}/map.txt": map_list(taxonomy),
        f"{folder}/claims_table.txt": claims_table(root),
    }
    for section in taxonomy.sections:
        files[f"{folder}/{section}.mmd"] = tree_diagram(taxonomy, section)
        files[f"{folder}/{section}_table.txt"] = table(taxonomy, section, root)
    for model in taxonomy.models.values():
        if model.built:
            files[f"docs/outputs/{model.key}/card.txt"] = card(taxonomy, model, root)
    for page in taxonomy.comparisons:
        if (root / "docs" / f"{page.key}.md").is_file():
            files[f"docs/outputs/{page.key}/card.txt"] = comparison_card(taxonomy, page, root)
    return files
