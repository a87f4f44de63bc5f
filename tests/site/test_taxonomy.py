"""The taxonomy and the claims: what they must hold, what follows, and how mistakes are reported."""

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from snippets.site import ROOT
from snippets.site.page import SECTIONS, page_files, page_key, read_page
from snippets.site.problems import PageError
from snippets.site.record import write
from snippets.site.register import CLAIMS, FILE, VERBS, VERDICTS, load, load_claims, settled
from snippets.site.rules import is_lesson
from snippets.site.taxonomy import (
    card,
    claims_table,
    generated,
    here_diagram,
    map_diagram,
    map_list,
    overlaps_diagram,
    table,
    tree_diagram,
)

MISSION = {
    "discriminative": "linear_regression logistic_regression support_vector_machines "
    "decision_trees random_forests neural_networks convolutional_networks object_detection "
    "bert_classifiers spam_filter fraud_detection",
    "generative": "naive_bayes gaussian_mixtures autoregressive normalizing_flows vae gan "
    "diffusion energy_based",
    "language_models": "tokenization n_grams gpt sampling fine_tuning instructions_and_agents",
    "foundation_models": "transfer scaling image_text",
    "self_supervised": "masked contrastive denoising semi_supervised",
    "domains": "text_to_image text_to_video text_to_3d music weather brain_recordings proteins",
}


@pytest.fixture(scope="module")
def taxonomy():
    return load()


@pytest.fixture(scope="module")
def texts():
    return generated()


# ---------------------------------------------------------------- what it holds


def test_every_model_of_the_mission_is_there(taxonomy):
    wanted = {f"{section}/{stem}" for section, stems in MISSION.items() for stem in stems.split()}
    assert wanted <= set(taxonomy.models)


def test_its_sections_are_those_of_the_site(taxonomy):
    assert tuple(taxonomy.sections) == SECTIONS


def test_a_model_is_built_exactly_when_its_page_exists(taxonomy):
    pages = {page_key(path) for path in page_files()}
    assert {m.key for m in taxonomy.models.values() if m.built} == pages & set(taxonomy.models)


def test_every_lesson_has_its_entry(taxonomy):
    lessons = {p.key for p in map(read_page, page_files()) if is_lesson(p)}
    assert lessons <= set(taxonomy.models)


def test_the_overlaps_of_the_mission_are_said(taxonomy):
    said = {frozenset((m.key, key)) for m in taxonomy.models.values() for key, _ in m.also}
    for one, other in (
        ("generative/energy_based", "discriminative/neural_networks"),
        ("language_models/as_classifier", "discriminative/bert_classifiers"),
        ("language_models/gpt", "generative/autoregressive"),
        ("discriminative/logistic_regression", "generative/naive_bayes"),
    ):
        assert frozenset((one, other)) in said
    gpt, labels = (
        taxonomy.models["language_models/gpt"],
        taxonomy.models["language_models/as_classifier"],
    )
    assert gpt.family == "generative" and labels.family == "discriminative"


def test_words_fit_their_boxes(taxonomy):
    """A box is as wide as the longest label, and the map as three of them."""
    for model in taxonomy.models.values():
        assert len(model.short or model.title) <= 20 or not taxonomy.column(model), model.key
        assert all(len(why) <= 26 for _, why in model.also), model.key


# ---------------------------------------------------------------- what follows from it


def links(text: str) -> dict[str, str]:
    return dict(re.findall(r'^\s*click (\w+) href "([^"]+)"', text, re.M))


def with_class(text: str, name: str) -> set[str]:
    lists = re.findall(rf"^\s*class (\S+) {name}$", text, re.M)
    return set(",".join(lists).split(",")) - {""}


def test_the_map_holds_everything_and_links_what_is_built(taxonomy):
    text = map_diagram(taxonomy)
    models = [m for m in taxonomy.models.values() if taxonomy.column(m)]
    assert all(f'{m.node}["' in text for m in models)
    assert {m.node: f"{m.key}.html" for m in models if m.built}.items() <= links(text).items()
    assert not {m.node for m in models if not m.built} & set(links(text))
    assert with_class(text, "planned") == {m.node for m in models if not m.built} | {"says_planned"}
    for section in MISSION:
        assert links(text)[section] == f"{section}/index.html"


def test_the_map_as_lists_holds_the_same(taxonomy):
    text = map_list(taxonomy)
    for model in taxonomy.models.values():
        if taxonomy.column(model):
            assert (f"]({model.key}.md)" in text) == model.built
            assert model.title in text
    depths = [len(line) - len(line.lstrip()) for line in text.splitlines()]
    assert all(after <= before + 4 for before, after in itertools.pairwise(depths))


def test_the_overlaps_stand_in_rows(taxonomy):
    text = overlaps_diagram(taxonomy)
    models = [m for m in taxonomy.models.values() if taxonomy.column(m)]
    pairs = [(m, key, why) for m in models for key, why in m.also]
    for n, (model, key, why) in enumerate(pairs):
        other = taxonomy.models[key]
        assert f'{model.node}_{n} -. "{why}" .- {other.node}_{n}\n' in text
        assert f"{model.title} and {other.title}: {why}." in text
    assert text.count(" -. ") == len(pairs) > 8
    assert links(text)["discriminative_logistic_regression_0"] == (
        "discriminative/logistic_regression.html"
    )


def test_every_link_of_every_diagram_leads_to_a_page(texts):
    count = 0
    for path, text in texts.items():
        front = Path(path).name in ("map.mmd", "overlaps.mmd")
        folder = "" if front else Path(path).stem
        if path.endswith("card.txt"):
            folder = path.split("/")[2]
        for href in links(text).values():
            count += 1
            page = (ROOT / "docs" / folder / href).with_suffix(".md").resolve()
            assert page.is_file(), f"{path} links to {href}"
    assert count > 10


def test_a_tree_shows_each_model_of_its_section_once(taxonomy):
    for section in taxonomy.sections.values():
        if section.column:
            text = tree_diagram(taxonomy, section)
            for model in taxonomy.of(section.key):
                assert text.count(f'{model.node}["') == 1
            for model in taxonomy.of(section.key):
                if model.parent:
                    parent = model.parent.replace("/", "_")
                    assert f"{parent} --- {model.node}" in text


def test_a_page_finds_itself_its_neighbours_and_its_overlaps(taxonomy):
    model = taxonomy.models["generative/naive_bayes"]
    text = here_diagram(taxonomy, model)
    assert with_class(text, "here") == {model.node}
    assert model.node not in links(text), "a page does not link to itself"
    assert links(text)["generative"] == "index.html"
    assert links(text)["discriminative_logistic_regression"] == (
        "../discriminative/logistic_regression.html"
    )
    for other in ("gaussian_mixtures", "autoregressive", "normalizing_flows"):
        assert links(text)[f"generative_{other}"] == f"{other}.html"
    assert "generative_gan" not in text, "another group"
    unwritten = replace(
        taxonomy,
        models=taxonomy.models
        | {
            key: replace(taxonomy.models[key], built=False)
            for key in ("generative/autoregressive",)
        },
    )
    text = here_diagram(unwritten, model)
    assert with_class(text, "planned") == {"generative_autoregressive"}


def test_diagrams_do_not_depend_on_what_is_built(taxonomy):
    """Only links and dashes change when a page is written: no layout, no other words."""
    models = {k: replace(m, built=not m.built) for k, m in taxonomy.models.items()}
    other = replace(taxonomy, models=models)
    for one, two in ((map_diagram(taxonomy), map_diagram(other)),):
        kept = [
            [line for line in text.splitlines() if not re.match(r"\s*(click|class|accDescr)", line)]
            for text in (one, two)
        ]
        assert kept[0] == kept[1]


def test_a_card_says_what_the_model_is_and_what_its_page_costs(taxonomy, site):
    model = taxonomy.models["generative/naive_bayes"]
    text = card(taxonomy, model, site.root)
    assert '<dl class="card generative">' in text
    assert "<dt>Represents</dt><dd>p(x, y)</dd>" in text
    assert "<dt>Can</dt><dd>classify, score, sample and fill in</dd>" in text
    assert "<dt>Parameters</dt><dd>–</dd>" in text and "<dt>Page runs in</dt><dd>–</dd>" in text
    write(
        site.root / "docs/outputs/generative/naive_bayes/run.json",
        '{"seconds": 9.37, "metrics": {"parameters": 1290}}',
    )
    text = card(taxonomy, model, site.root)
    assert "<dd>1,290</dd>" in text and "<dd>9.4 s</dd>" in text


def test_a_comparison_and_what_it_compares_find_each_other(taxonomy):
    page = taxonomy.models["choosing/data_efficiency"]
    assert "<dt>Compares</dt><dd>Naive Bayes and Logistic regression</dd>" in card(taxonomy, page)
    here = here_diagram(taxonomy, page)
    assert links(here)["generative_naive_bayes"] == "../generative/naive_bayes.html"
    there = here_diagram(taxonomy, taxonomy.models["generative/naive_bayes"])
    assert links(there)["choosing_data_efficiency"] == "../choosing/data_efficiency.html"


def test_a_card_is_safe_html(taxonomy):
    model = replace(taxonomy.models["generative/vae"], represents="p(x) < p(y) & so on")
    assert "p(x) &lt; p(y) &amp; so on" in card(taxonomy, model)


def test_tables_hold_every_model_of_a_section_in_equal_columns(taxonomy):
    for section in taxonomy.sections.values():
        rows = table(taxonomy, section).splitlines()
        assert len(rows) == 2 + len(taxonomy.of(section.key))
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    gan = replace(taxonomy.models["generative/gan"], built=False)
    other = replace(taxonomy, models={**taxonomy.models, gan.key: gan})
    text = table(other, other.sections["generative"])
    assert "[Naive Bayes](naive_bayes.md)" in text
    assert re.search(r"^\| Generative adversarial networks \|.*\| planned \|$", text, re.M)
    assert "Likelihood" not in table(taxonomy, taxonomy.sections["discriminative"])


def test_what_is_generated_is_the_same_each_time(texts):
    assert generated() == texts
    assert all(text.endswith("\n") and "\r" not in text for text in texts.values())


# ---------------------------------------------------------------- claims


def test_all_claims_of_the_sources_are_there():
    claims = load_claims(ROOT, load())
    assert [claim.id for claim in claims] == [f"C{n:02}" for n in range(1, 90)]
    assert {claim.verdict for claim in claims} == set(VERDICTS)
    for claim in claims:
        assert claim.reason.endswith(".") and len(claim.reason) < 160, claim.id
    assert len({claim.claim for claim in claims}) == len({c.reason for c in claims}) == 89


def test_pages_and_register_agree_on_verdicts():
    register = {claim.id: claim.verdict for claim in load_claims()}
    for path in page_files():
        rows = re.findall(r"^\|\s*(C\d\d)\b[^|]*\|\s*\**([\w ]+?)\**\s*\|", path.read_text(), re.M)
        for name, verdict in rows:
            assert register[name] == verdict, f"{path.name}: {name}"


def test_a_claim_is_shown_once_its_page_has_the_row(site):
    assert "| C10 A line needs less data. | **wrong** | It depends. |" in claims_table(site.root)
    assert "[A line](../discriminative/line.md#claims)" in claims_table(site.root)
    site.replace("docs/discriminative/line.md", "| C10 A line", "| A line")
    assert not settled(load_claims(site.root)[0], site.root)
    assert "C10" not in claims_table(site.root)
    assert "0 of 1 claims" in claims_table(site.root)


# ---------------------------------------------------------------- mistakes


@pytest.fixture
def mistake(tmp_path):
    """Replace one text of a file and return the Problem that reading it raises, and its line."""

    def make(file, read, old, new):
        (tmp_path / "snippets").mkdir()
        for name in (FILE, CLAIMS):
            shutil.copy(ROOT / name, tmp_path / name)
        text = (tmp_path / file).read_text()
        assert old in text
        (tmp_path / file).write_text(text.replace(old, new, 1))
        with pytest.raises(PageError) as caught:
            read(tmp_path)
        problem = caught.value.problem
        assert problem.file == file and "\n" not in str(problem)
        lines = [*(tmp_path / file).read_text().splitlines(), ""]
        return problem, lines[problem.line - 1]

    return make


VAE = "  - key: generative/vae\n"


@pytest.mark.parametrize(
    ("old", "new", "message", "mend", "line"),
    [
        ("can: [classify, score,", "can: [clasify,", "ability 'clasify'", "'classify'", "can:"),
        ("parent: discriminative/decision_trees", "parent: discriminative/decision_tree",
         "model 'discriminative/decision_tree'", "'discriminative/decision_trees'", "parent:"),
        ("likelihood: bounded", "likelihood: bound", "'bound'", "'bounded'", "likelihood"),
        ("family: generative", "family: generat", "'generat'", "'generative'", "family:"),
        ("group: Trees", "group: Tree", "group of its section 'Tree'", "'Trees'", "group:"),
        (VAE, "  - key: generative/gan\n", "listed twice", "keep one", "key: generative/gan"),
        (VAE, "  - key: generativ/vae\n", "'generativ'", "'generative'", "key: generativ/vae"),
        (VAE, "  - key: generative\n", "is not section/page", "as in", "key: generative"),
        ("    synonyms: [VAE", "    synonims: [VAE", "'synonims'", "'synonyms'", "synonims:"),
        ('    represents: "p(x, y)"\n', "", "has no represents", "represents:", "key: generative"),
        ("    sampling: one pass\n", "", "nothing says how", "sampling:", "can:"),
        ("    likelihood: exact\n", "", "its likelihood is not given", "exact", "can:"),
        ("    group: Trees\n", "", "neither parent nor group", "Trees", "/decision_trees"),
        ("    group: Trees\n", "    parent: discriminative/random_forests\n", "its own ancestor",
         "parent", "key: discriminative/"),
        ("can: [regress]", "can: regress", "not a list of words", "[one, two]", "can: regress"),
        ("    title: Music\n", "    title: Music\n    title: Tunes\n", "title is written twice",
         "this line", "title: Tunes"),
        ("    title: Music\n", "    title: [Music\n", "no YAML", "mend this line", ""),
        ("why: with a caption", "because: with a caption", "'because'", "why", "because"),
        ("key: domains/text_to_image, why", "key: domains/text_to_images, why",
         "model 'domains/text_to_images'", "'domains/text_to_image'", "text_to_images"),
    ],
)  # fmt: skip
def test_mistakes_of_the_taxonomy_are_named_with_line_and_mend(
    mistake, old, new, message, mend, line
):
    problem, there = mistake(FILE, load, old, new)
    assert message in problem.message and mend in problem.mend
    assert line in there


@pytest.mark.parametrize(
    ("old", "new", "message", "mend", "line"),
    [
        ("verdict: wrong", "verdict: false", "verdict False", "wrong", "verdict"),
        ('verdict: "true"', "verdict: true", "yes or no", "quotes", "verdict: true"),
        ("id: C07", "id: C06", "listed twice", "keep one", "id: C06"),
        ("id: C07", "id: C7", "not C and two digits", "C07", "id: C7"),
        ("settled_by: generative/energy_based", "settled_by: generative/energy_baised",
         "'generative/energy_baised'", "'generative/energy_based'", "energy_baised"),
        ("  reason:", "  because:", "'because'", "'reason'", "because:"),
    ],
)  # fmt: skip
def test_mistakes_of_the_claims_are_named_with_line_and_mend(
    mistake, old, new, message, mend, line
):
    problem, there = mistake(CLAIMS, lambda root: load_claims(root, load(root)), old, new)
    assert message in problem.message and mend in problem.mend
    assert line in there


def test_every_ability_has_a_verb_of_its_own():
    assert len(set(VERBS.values())) == len(VERBS)
