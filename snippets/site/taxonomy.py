"""What follows from the taxonomy: diagrams, cards and tables.

`generated(root)` gives the text of every file that `record` writes from `snippets/taxonomy.yml`,
`snippets/claims.yml`, the pages that exist and their recorded runs; nothing in it depends on the
day or the machine.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from html import escape
from pathlib import Path

from snippets.site import ROOT
from snippets.site.record import read_json
from snippets.site.register import (
    FAMILIES,
    VERBS,
    Claim,
    Model,
    Section,
    Taxonomy,
    load,
    load_claims,
    settled,
)

__all__ = ["VERBS", "Claim", "Model", "Taxonomy", "generated", "load", "load_claims"]
FOLDER = "docs/outputs/taxonomy"


# ---------------------------------------------------------------- diagrams


def _label(text: str) -> str:
    """Words over one or two lines of much the same length."""
    words = text.split()
    if len(text) <= 12 or len(words) < 2:
        return text
    halves = [(" ".join(words[:n]), " ".join(words[n:])) for n in range(1, len(words))]
    return "<br>".join(min(halves, key=lambda half: max(map(len, half))))


def _box(model: Model) -> str:
    return f'{model.node}["{model.short or model.title}"]'


def _href(model: Model, section: str) -> str:
    """Relative address of a page, from a page of `section` ("" is the front page)."""
    if model.section == section:
        return f"{model.stem}.html"
    return f"{'../' if section else ''}{model.key}.html"


def _clicks(models: Iterable[Model], section: str, but: str = "") -> list[str]:
    linked = [model for model in models if model.built and model.key != but]
    return [f'click {model.node} href "{_href(model, section)}"' for model in linked]


def _classes(models: Iterable[Model], here: str = "") -> list[str]:
    """Colours by family, planned ones dashed; the style sheet knows the classes."""
    models = list(models)
    members = {
        **{family: [m.node for m in models if m.family == family] for family in FAMILIES},
        "planned": [m.node for m in models if not m.built],
        "here": [m.node for m in models if m.key == here],
    }
    lines = [f"class {','.join(nodes)} {name}" for name, nodes in members.items() if nodes]
    return [*lines, *["classDef planned stroke-dasharray: 4 3"] * bool(members["planned"])]


def _flowchart(title: str, description: str, lines: Iterable[str]) -> str:
    head = [f"accTitle: {title}", f"accDescr: {description}"]
    return "flowchart LR\n" + "".join(f"    {line}\n" for line in [*head, *lines])


def _listing(names: Iterable[str]) -> str:
    names = list(names)
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"


def _count(models: Iterable[Model]) -> str:
    models = list(models)
    built = sum(model.built for model in models)
    if built == len(models):
        return f"all {built} written"
    return f"{built or 'none'} of {len(models)} written, the others planned and dashed"


def _group(key: str, title: str, members: list[Model]) -> list[str]:
    """A titled group of boxes; those that build on another of them hang below it."""
    branches = [
        f"{m.parent.replace('/', '_')} --- {m.node}"
        for m in members
        if m.parent in {other.key for other in members}
    ]
    return [f'subgraph {key}["{title}"]', *(f"    {_box(m)}" for m in members), "end", *branches]


LEGEND = (
    'subgraph legend["How to read it"]',
    '    says_discriminative["discriminative"]',
    '    says_generative["generative"]',
    '    says_both["either, or both"]',
    '    says_planned["dashed: planned"]',
    "end",
    *(f"class says_{family} {family}" for family in FAMILIES),
    "class says_planned planned",
)


def map_diagram(taxonomy: Taxonomy) -> str:
    """Everything at once: sections as groups in columns, overlaps dotted."""
    on_map = [section for section in taxonomy.sections.values() if section.column]
    models = [model for section in on_map for model in taxonomy.of(section.key)]
    columns = [[s.key for s in on_map if s.column == n] for n in sorted({s.column for s in on_map})]
    shortest = min(columns, key=lambda keys: sum(len(taxonomy.of(key)) + 1 for key in keys))
    shortest.append("legend")
    lines = [f"%% columns: {' | '.join(' '.join(column) for column in columns)}"]
    for section in on_map:
        lines += _group(section.key, section.title, taxonomy.of(section.key))
    lines += LEGEND
    for model in models:
        for key, why in model.also:
            ends = sorted((model, taxonomy.models[key]), key=taxonomy.column)
            # A line across a third column would join nothing clearly.
            far = taxonomy.column(ends[1]) - taxonomy.column(ends[0]) > 1
            if not far and ends[0].section != ends[1].section:
                lines.append(f'{ends[0].node} -. "{_label(why)}" .- {ends[1].node}')
    lines += [f'click {s.key} href "{s.key}/index.html"' for s in on_map]
    return _flowchart(
        "The map of models",
        f"{len(on_map)} sections: {_listing(s.title for s in on_map)}. Of their models, "
        f"{_count(models)}. Dotted lines join models of different sections that belong together.",
        [*lines, *_clicks(models, ""), *_classes(models)],
    )


def overlaps_diagram(taxonomy: Taxonomy) -> str:
    """The models that belong to two places, pair by pair, and why."""
    on_map = [model for model in taxonomy.models.values() if taxonomy.column(model)]
    pairs = [(m, taxonomy.models[key], why) for m in on_map for key, why in m.also]
    sides: tuple[list[Model], list[Model]] = ([], [])
    lines, said = [], []
    for n, (one, other, why) in enumerate(pairs):
        # A box for each row: some models stand in several.
        ends = [replace(one, key=f"{one.key}_{n}"), replace(other, key=f"{other.key}_{n}")]
        lines.append(f'{ends[0].node} -. "{why}" .- {ends[1].node}')
        lines += [
            f'click {e.node} href "{m.key}.html"' for e, m in zip(ends, (one, other)) if m.built
        ]
        said.append(f"{one.title} and {other.title}: {why}.")
        for side, end in zip(sides, ends):
            side.append(end)
    groups = [*_group("one", "A model", sides[0]), *_group("other", "and its relative", sides[1])]
    lines = ["%% columns: one | other", *groups, *lines, *_classes([*sides[0], *sides[1]])]
    return _flowchart("Where the families meet", " ".join(said), lines)


def map_list(taxonomy: Taxonomy) -> str:
    """The map as nested Markdown lists, one for each section: for screens that hold no diagram."""

    def item(model: Model, depth: int) -> list[str]:
        name = f"[{model.title}]({model.key}.md){{ .{model.family} }}"
        if not model.built:
            name = f'<span class="{model.family} planned">{escape(model.title)}</span>'
        below = [line for child in taxonomy.children(model.key) for line in item(child, depth + 1)]
        return [f"{'    ' * depth}- {name}", *below]

    lines = []
    for section in taxonomy.sections.values():
        if section.column:
            lines.append(f"- [{section.title}]({section.key}/index.md)")
            tops = [model for model in taxonomy.of(section.key) if not model.parent]
            lines += [line for model in tops for line in item(model, 1)]
    return "\n".join(lines) + "\n"


def tree_diagram(taxonomy: Taxonomy, section: Section) -> str:
    """One section, for its index page: its groups side by side, or its one group and overlaps."""
    models = taxonomy.of(section.key)
    name = f"{section.title}: the models of this section"
    if not section.groups:
        said = f"{_listing(m.title for m in models)}: {_count(models)}."
        return _with_overlaps(taxonomy, section.title, models, name, said)
    groups = []
    for n, title in enumerate(section.groups):
        members = [model for model in models if _group_of(taxonomy, model) == title]
        groups += [(f"{section.key}_{n}", title, members)] if members else []
    lines = [f"%% columns: {' | '.join(' '.join(column) for column in _balanced(groups))}"]
    for key, title, members in groups:
        lines += _group(key, title, members)
    said = [f"{title}: {_listing(m.title for m in members)}." for _, title, members in groups]
    said.append(f"Of these, {_count(models)}.")
    return _flowchart(
        name, " ".join(said), [*lines, *_clicks(models, section.key), *_classes(models)]
    )


def _group_of(taxonomy: Taxonomy, model: Model) -> str:
    while model.parent:
        model = taxonomy.models[model.parent]
    return model.group


def _balanced(groups: list[tuple[str, str, list[Model]]], columns: int = 3) -> list[list[str]]:
    """Groups over at most three columns, in order, so that the tallest column is low."""
    sizes = [len(members) + 1 for *_, members in groups]
    keys = [key for key, *_ in groups]
    inner = itertools.combinations(range(1, len(keys)), min(columns, len(keys)) - 1)
    cuts = [list(itertools.pairwise((0, *cut, len(keys)))) for cut in inner]
    best = min(cuts, key=lambda cut: max(sum(sizes[a:b]) for a, b in cut))
    return [keys[a:b] for a, b in best]


def here_diagram(taxonomy: Taxonomy, model: Model) -> str:
    """Where a page stands: its section and group, the models beside it, and its overlaps."""
    section = taxonomy.sections[model.section]
    group = _group_of(taxonomy, model)
    beside = [m for m in taxonomy.of(section.key) if _group_of(taxonomy, m) == group]
    if not section.column:  # questions and practice: only what can be read
        beside = [m for m in beside if m.built]
    title = f"{section.title} ›<br>{group}" if group else section.title
    others = _listing(m.title for m in beside if m.key != model.key)
    description = f"{model.title} in {section.title}{f', {group.lower()}' if group else ''}"
    description += f", beside {others}." if others else "."
    name = f"Where this page stands: {model.title}"
    return _with_overlaps(taxonomy, title, beside, name, description, here=model.key)


def _with_overlaps(
    taxonomy: Taxonomy, title: str, models: list[Model], name: str, said: str, here: str = ""
) -> str:
    """A group of models and, in a second column, those of elsewhere that share something."""
    section = models[0].section
    inside = {m.key for m in models}
    shown, lines = {}, []
    for model in models:
        for other, why in taxonomy.overlaps(model):
            if other.key not in inside and here in ("", model.key):
                shown[other.key] = other
                lines.append(f'{model.node} -. "{_label(why)}" .- {other.node}')
    groups = _group(section, title, models)
    if shown:
        groups += _group("related", "Related", list(shown.values()))
        said += f" Related: {_listing(m.title for m in shown.values())}."
    both = [*models, *shown.values()]
    lines = [f"%% columns: {section}{' | related' * bool(shown)}", *groups, *lines]
    if here:
        lines.append(f'click {section} href "index.html"')
    return _flowchart(name, said, [*lines, *_clicks(both, section, here), *_classes(both, here)])


# ---------------------------------------------------------------- cards and tables


def _run(root: Path, model: Model) -> dict:
    return read_json(root / "docs" / "outputs" / model.key / "run.json") if model.built else {}


def _seconds(run: dict) -> str:
    return f"{run['seconds']:.2g} s" if run else "–"


def card(taxonomy: Taxonomy, model: Model, root: Path = ROOT) -> str:
    """What a page's model is, what it can do and what it costs; and where it stands."""
    run = _run(root, model)
    count = run.get("metrics", {}).get("parameters")
    rows = {
        "Compares": _listing(taxonomy.models[key].title for key in model.compares),
        "Represents": model.represents,
        "Family": "either" if model.family == "both" else model.family,
        "Can": _listing(model.can) if model.can else "–",
        "Likelihood": model.likelihood,
        "Draws": model.sampling,
        "Data": model.data,
        # Not every page counts them; before the first run nobody knows.
        "Parameters": f"{count:,.0f}" if count else "" if run else "–",
        "Page runs in": _seconds(run),
        "Also called": ", ".join(model.synonyms),
    }
    body = "\n".join(
        f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in rows.items() if value
    )
    here = here_diagram(taxonomy, model)
    return f'<dl class="card {model.family}">\n{body}\n</dl>\n\n```mermaid\n{here}```\n'


def table(taxonomy: Taxonomy, section: Section, root: Path = ROOT) -> str:
    """A section's models side by side, as a Markdown table for its index page."""
    rows = [
        ("Model", "Represents", "Can", "Likelihood", "Draws", "Page runs in"),
        ("---", "---", "---", "---", "---", "---:"),
    ]
    for model in taxonomy.of(section.key):
        rows.append(
            (
                f"[{model.title}]({model.stem}.md)" if model.built else model.title,
                model.represents,
                ", ".join(model.can) or "–",
                model.likelihood or "–",
                model.sampling or "–",
                _seconds(_run(root, model)) if model.built else "planned",
            )
        )
    # A column that says nothing of any model is left out.
    kept = [n for n in range(len(rows[0])) if any(row[n] != "–" for row in rows[2:])]
    return _markdown_table([[row[n] for n in kept] for row in rows])


def _markdown_table(rows: Iterable[Iterable[str]]) -> str:
    safe = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in safe)


def claims_table(root: Path = ROOT, taxonomy: Taxonomy | None = None) -> str:
    """The settled claims as a Markdown table for docs/choosing/claims.md, and how many are open."""
    claims = load_claims(root, taxonomy)
    done = [claim for claim in claims if settled(claim, root)]
    rows = [("Claim", "Verdict", "Because", "Settled by"), ("---", "---", "---", "---")]
    for claim in done:
        text = (root / "docs" / f"{claim.settled_by}.md").read_text(encoding="utf-8")
        title = re.search(r"^# (.+)$", text, re.M)
        section, _, stem = claim.settled_by.partition("/")
        link = f"{stem}.md" if section == "choosing" else f"../{claim.settled_by}.md"
        rows.append(
            (
                f"{claim.id} {claim.claim}",
                f"**{claim.verdict}**",
                claim.reason,
                f"[{title[1] if title else claim.settled_by}]({link}#claims)",
            )
        )
    return (_markdown_table(rows) if done else "No claim is settled yet.\n") + (
        f"\n{len(done)} of {len(claims)} claims are settled; the others wait for their page.\n"
    )


def generated(root: Path = ROOT) -> dict[str, str]:
    """Repository path → text of everything that follows from the taxonomy and the claims."""
    taxonomy = load(root)
    files = {
        f"{FOLDER}/map.mmd": map_diagram(taxonomy),
        f"{FOLDER}/map.txt": map_list(taxonomy),
        f"{FOLDER}/overlaps.mmd": overlaps_diagram(taxonomy),
        f"{FOLDER}/claims_table.txt": claims_table(root, taxonomy),
    }
    for section in taxonomy.sections.values():
        if section.column:
            files[f"{FOLDER}/{section.key}.mmd"] = tree_diagram(taxonomy, section)
            files[f"{FOLDER}/{section.key}_table.txt"] = table(taxonomy, section, root)
    for model in taxonomy.models.values():
        if model.built:
            files[f"docs/outputs/{model.key}/card.txt"] = card(taxonomy, model, root)
    return files
