"""Read and check `snippets/taxonomy.yml` and `snippets/claims.yml`: every mistake has its line.

Whether a page exists is never written in them: a model is built when its page is there, a claim is
settled when its page has its row.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from snippets.site import ROOT
from snippets.site.problems import PageError, Problem

FILE = "snippets/taxonomy.yml"
CLAIMS = "snippets/claims.yml"
# What a model can do → the verb that its module must have.
VERBS = {
    "classify": "predict_proba",
    "regress": "predict",
    "detect": "detect",
    "score": "log_prob",
    "sample": "sample",
    "encode": "encode",
    "fill in": "impute",
    "denoise": "denoise",
}
# Verbs that come with another one: what is encoded may also be decoded.
COMPANIONS = {"decode": "encode", "reconstruct": "encode"}
FAMILIES = ("discriminative", "generative", "both")
LIKELIHOODS = ("exact", "bounded", "absent")
VERDICTS = ("true", "true with a caveat", "disputed", "wrong", "outdated", "opinion")


@dataclass(frozen=True)
class Section:
    """A section of the site; `column` is its place on the map, 0 for none."""

    key: str
    title: str
    groups: tuple[str, ...] = ()
    column: int = 0


@dataclass(frozen=True)
class Model:
    """One entry. `built` when its page exists; `also` are its overlaps, (key, why)."""

    key: str
    title: str
    family: str
    represents: str
    can: tuple[str, ...]
    data: str
    synonyms: tuple[str, ...]
    short: str = ""
    parent: str = ""
    group: str = ""
    likelihood: str = ""
    sampling: str = ""
    compares: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()
    built: bool = False
    line: int = 0

    @property
    def section(self) -> str:
        return self.key.partition("/")[0]

    @property
    def stem(self) -> str:
        return self.key.partition("/")[2]

    @property
    def node(self) -> str:
        """Its name inside a diagram."""
        return self.key.replace("/", "_")

    @property
    def verbs(self) -> tuple[str, ...]:
        """The functions that its module must have."""
        return tuple(VERBS[ability] for ability in self.can)


@dataclass(frozen=True)
class Claim:
    """A claim in our words and what is held of it; `settled` when its page has its row."""

    id: str
    claim: str
    verdict: str
    reason: str
    settled_by: str
    sources: tuple[str, ...] = ()
    line: int = 0


@dataclass(frozen=True)
class Taxonomy:
    """Sections and models, in the order of the file."""

    sections: dict[str, Section]
    models: dict[str, Model]

    def of(self, section: str) -> list[Model]:
        return [model for model in self.models.values() if model.section == section]

    def column(self, model: Model) -> int:
        """Its section's place on the map, 0 for none."""
        return self.sections[model.section].column

    def children(self, key: str) -> list[Model]:
        return [model for model in self.models.values() if model.parent == key]

    def overlaps(self, model: Model) -> list[tuple[Model, str]]:
        """Models that share something with this one, and what; said by either of the two."""
        said = [(self.models[key], why) for key, why in model.also]
        said += [(self.models[key], "compared here") for key in model.compares]
        heard = [(m, why) for m in self.models.values() for key, why in m.also if key == model.key]
        compared = [(m, "compared there") for m in self.models.values() if model.key in m.compares]
        return said + heard + [(m, why) for m, why in compared if m.built]


# ---------------------------------------------------------------- reading


class _Entry(dict):
    """A mapping of the file that remembers the line of each of its fields, and its own."""

    line: int
    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    """Safe, with lines; a field that is written twice is a mistake."""


def _entry(loader: _Loader, node: yaml.MappingNode) -> _Entry:
    entry = _Entry()
    entry.line, entry.lines = node.start_mark.line + 1, {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in entry:
            mark = key_node.start_mark
            raise yaml.MarkedYAMLError(problem=f"{key} is written twice", problem_mark=mark)
        entry[key] = loader.construct_object(value_node, deep=True)
        entry.lines[key] = key_node.start_mark.line + 1
    return entry


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _entry)


class _Reader:
    """Turns entries of one file into dataclasses, and fails with file, line and mend."""

    def __init__(self, root: Path, file: str):
        self.root, self.file = root, file
        try:
            text = (root / file).read_text(encoding="utf-8")
            self.data = yaml.load(text, _Loader)
        except FileNotFoundError:
            self.fail(0, "there is no such file", "restore it")
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            self.fail(line, f"this is no YAML: {error.problem}", "mend this line or the one above")

    def fail(self, line: int, message: str, mend: str):
        raise PageError(Problem(self.file, line, message, mend))

    def entries(self, data, what: str) -> list[_Entry]:
        if not isinstance(data, list) or not all(isinstance(entry, _Entry) for entry in data):
            self.fail(1, f"expected a list of {what}", f"write each {what} as `- key: …`")
        return data

    def fields(self, entry: _Entry, kind: str, required: tuple, optional: tuple = ()) -> None:
        """Every required field is there and no unknown one."""
        name = entry.get("key") or entry.get("id") or f"this {kind}"
        for field in entry:
            if field not in (*required, *optional):
                self.fail(
                    entry.lines[field],
                    f"{name} has an unknown field, {field!r}",
                    nearest(field, [*required, *optional]),
                )
        for field in required:
            if entry.get(field) in (None, "", []):
                self.fail(entry.line, f"{name} has no {field}", f"add `{field}: …`")

    def one_of(self, entry: _Entry, field: str, value, known: Iterable[str], what: str) -> None:
        if value not in known:
            self.fail(entry.lines[field], f"unknown {what} {value!r}", nearest(str(value), known))

    def words(self, entry: _Entry, field: str) -> tuple[str, ...]:
        """A list of words; a bare word would be read as a list of letters."""
        value = entry.get(field, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            self.fail(
                entry.lines[field],
                f"{field} is {value!r}, not a list of words",
                f"write `{field}: [one, two]`",
            )
        return tuple(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """A mend that proposes the known name next to the one that was written."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1, 0.4)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"


def load(root: Path = ROOT) -> Taxonomy:
    """Read and check the taxonomy; PageError says the first mistake with its line and mend."""
    reader = _Reader(root, FILE)
    top = (
        reader.data
        if isinstance(reader.data, _Entry)
        else reader.fail(
            1, "expected sections and models", "begin with `sections:`, then `models:`"
        )
    )
    reader.fields(top, "taxonomy", ("sections", "models"))
    sections: dict[str, Section] = {}
    for entry in reader.entries(top["sections"], "section"):
        reader.fields(entry, "section", ("key", "title"), ("groups", "column"))
        _new(reader, entry, "key", sections)
        sections[entry["key"]] = Section(
            entry["key"], entry["title"], reader.words(entry, "groups"), entry.get("column", 0)
        )
    models: dict[str, Model] = {}
    entries = reader.entries(top["models"], "model")
    keys = [entry.get("key") for entry in entries]
    for entry in entries:
        _new(reader, entry, "key", models)
        model = _model(reader, entry, sections, keys)
        models[model.key] = model
    _no_circles(reader, models)
    return Taxonomy(sections, models)


REQUIRED = ("key", "title", "family", "represents", "can", "data", "synonyms")
OPTIONAL = ("short", "parent", "group", "likelihood", "sampling", "compares", "also")


def _new(reader: _Reader, entry: _Entry, field: str, known: dict) -> None:
    name = entry.get(field)
    if name in known:
        reader.fail(entry.lines[field], f"{name} is listed twice", "keep one of the two")


def _model(reader: _Reader, entry: _Entry, sections: dict[str, Section], keys: list) -> Model:
    reader.fields(entry, "model", REQUIRED, OPTIONAL)
    key = entry["key"]
    section, _, stem = key.partition("/")
    if not re.fullmatch(r"[a-z0-9_]+", stem):
        reader.fail(
            entry.lines["key"],
            f"the key {key!r} is not section/page",
            "write it as in discriminative/logistic_regression",
        )
    reader.one_of(entry, "key", section, sections, "section")
    reader.one_of(entry, "family", entry["family"], FAMILIES, "family")
    for ability in reader.words(entry, "can"):
        reader.one_of(entry, "can", ability, VERBS, "ability")
    for field, known, what in (
        ("likelihood", LIKELIHOODS, "likelihood"),
        ("parent", keys, "model"),
        ("group", sections[section].groups, "group of its section"),
    ):
        if field in entry:
            reader.one_of(entry, field, entry[field], known, what)
    _sensible(reader, entry, sections[section])
    also = []
    for link in reader.entries(entry.get("also", []), "overlap"):
        reader.fields(link, "overlap", ("key", "why"))
        reader.one_of(link, "key", link["key"], keys, "model")
        also.append((link["key"], link["why"]))
    fields = {field: entry[field] for field in (*REQUIRED, *OPTIONAL) if field in entry}
    fields |= {field: reader.words(entry, field) for field in ("can", "synonyms", "compares")}
    for other in fields["compares"]:
        reader.one_of(entry, "compares", other, keys, "model")
    built = (reader.root / "docs" / f"{key}.md").is_file()
    return Model(**{**fields, "also": tuple(also)}, built=built, line=entry.line)


def _sensible(reader: _Reader, entry: _Entry, section: Section) -> None:
    """What fields say of each other."""
    if "parent" in entry and "group" in entry:
        reader.fail(
            entry.lines["group"],
            f"{entry['key']} has a parent and a group",
            "leave out the group, it is that of the parent",
        )
    if section.groups and not {"parent", "group"} & set(entry):
        reader.fail(
            entry.line,
            f"{entry['key']} has neither parent nor group",
            f"add `group:`, one of {', '.join(section.groups)}",
        )
    if "score" in entry["can"] and entry.get("likelihood") not in ("exact", "bounded"):
        reader.fail(
            entry.lines["can"],
            f"{entry['key']} scores, but its likelihood is {entry.get('likelihood', 'not given')}",
            "write `likelihood: exact` or `bounded`, or leave out score",
        )
    if "sample" in entry["can"] and not entry.get("sampling"):
        reader.fail(
            entry.lines["can"], f"{entry['key']} samples, but nothing says how", "add `sampling: …`"
        )


def _no_circles(reader: _Reader, models: dict[str, Model]) -> None:
    for model in models.values():
        seen, above = {model.key}, model.parent
        while above:
            if above in seen:
                reader.fail(model.line, f"{model.key} is its own ancestor", "mend its parent")
            seen.add(above)
            above = models[above].parent


def load_claims(root: Path = ROOT, taxonomy: Taxonomy | None = None) -> list[Claim]:
    """Read and check the claim register."""
    reader = _Reader(root, CLAIMS)
    required, claims = ("id", "claim", "verdict", "reason", "settled_by"), {}
    for entry in reader.entries(reader.data, "claim"):
        reader.fields(entry, "claim", required, ("sources",))
        _new(reader, entry, "id", claims)
        if not re.fullmatch(r"C\d\d", str(entry["id"])):
            reader.fail(
                entry.lines["id"],
                f"the id {entry['id']!r} is not C and two digits",
                "write it as C07",
            )
        if entry["verdict"] is True:
            reader.fail(
                entry.lines["verdict"],
                "YAML reads this verdict as yes or no",
                'write it in quotes: "true"',
            )
        reader.one_of(entry, "verdict", entry["verdict"], VERDICTS, "verdict")
        page = entry["settled_by"]
        if taxonomy and not (root / "docs" / f"{page}.md").is_file():
            reader.one_of(entry, "settled_by", page, taxonomy.models, "page, built or planned,")
        claims[entry["id"]] = Claim(
            *(entry[field] for field in required), reader.words(entry, "sources"), entry.line
        )
    return list(claims.values())


def settled(claim: Claim, root: Path = ROOT) -> bool:
    """Its page exists and has its row in a table."""
    page = root / "docs" / f"{claim.settled_by}.md"
    return page.is_file() and bool(
        re.search(rf"^\|\s*{claim.id}\b", page.read_text(encoding="utf-8"), re.M)
    )
