"""The taxonomy: what it must contain, what follows from it, and how its mistakes are reported."""

import shutil

import pytest

from snippets.site import ROOT
from snippets.site.page import page_files, page_key
from snippets.site.problems import PageError
from snippets.site.taxonomy import (
    FILE,
    card,
    claims_table,
    generated,
    here_diagram,
    load,
    map_diagram,
    overlaps_diagram,
    table,
    tree_diagram,
)

MISSION = set(
    """
    linear_regression logistic_regression support_vector_machines decision_trees
    random_forests neural_networks convolutional_networks object_detection bert_classifiers
    naive_bayes gaussian_mixtures autoregressive normalizing_flows vae gan diffusion
    energy_based n_grams gpt fine_tuning preference_tuning agents transfer scaling image_text
    masked contrastive denoising semi_supervised text_to_image text_to_video text_to_3d music
    weather brain_recordings proteins
    """.split()  # noqa: SIM905
)


@pytest.fixture
def taxonomy():
    return load()


def test_every_model_of_the_mission_is_there(taxonomy):
    assert MISSION <= {key.partition("/")[2] for key in taxonomy.models}


def test_every_lesson_of_a_model_section_is_in_it(taxonomy):
    pages = {page_key(path) for path in page_files()}
    lessons = {
        key
        for key in pages
        if key.partition("/")[0] in taxonomy.sections and not key.endswith("/index")
    }
    assert lessons <= set(taxonomy.models)
    assert {m.key for m in taxonomy.models.values() if m.built} == lessons


def test_the_overlaps_are_shown(taxonomy):
    overlaps = {(m.key, key) for m in taxonomy.models.values() for key, _ in m.also}
    assert ("generative/energy_based", "discriminative/neural_networks") in overlaps
    assert ("language_models/as_classifier", "discriminative/bert_classifiers") in overlaps
    assert ("language_models/gpt", "generative/autoregressive") in overlaps
    text = overlaps_diagram(taxonomy)
    for model, other in overlaps:
        assert any(
            model.replace("/", "_") in line and other.replace("/", "_") in line and "-." in line
            for line in text.splitlines()
        )


def test_built_models_are_linked_and_planned_ones_are_dashed(taxonomy):
    text = map_diagram(taxonomy)
    for model in taxonomy.models.values():
        linked = f'click {model.node} href "{model.key}.html"' in text
        planned = f'{model.node}["' in text and "planned" in next(
            line for line in text.splitlines() if f'~~~ {model.node}["' in line
        )
        assert (linked, planned) == (model.built, not model.built)


def test_links_are_relative_to_the_page_that_shows_them(taxonomy):
    vae = taxonomy.models["generative/vae"]
    here = here_diagram(taxonomy, taxonomy.models["generative/naive_bayes"])
    assert 'href "../discriminative/logistic_regression.html"' in here
    assert 'href "naive_bayes.html"' not in here
    assert 'href "vae.html"' in tree_diagram(taxonomy, "generative")
    assert ":::generative_here" in here_diagram(taxonomy, vae)


def test_a_card_says_what_the_model_is_and_what_its_page_costs(taxonomy):
    text = card(taxonomy, taxonomy.models["generative/naive_bayes"], ROOT)
    for word in ("p(x, y)", "classify, score, sample, fill in", "exact", "Page runs in"):
        assert word in text


def test_tables_hold_every_model_of_a_section(taxonomy):
    text = table(taxonomy, "generative", ROOT)
    assert text.count("\n") == 2 + len(taxonomy.of("generative"))
    assert "[Naive Bayes](naive_bayes.md)" in text and "planned" in text
    assert "p(x \\| y)" not in text or "|" in text


def test_claims_appear_once_their_page_has_the_row(site):
    text = claims_table(site.root)
    assert "| C10 A line needs less data. | **wrong** |" in text
    site.replace("docs/discriminative/line.md", "| C10 A line", "| A line")
    assert "C10" not in claims_table(site.root)


def test_what_is_generated_is_the_same_each_time():
    assert generated(ROOT) == generated(ROOT)


@pytest.fixture
def broken(tmp_path):
    """A copy of the taxonomy in which one text is replaced; returns the error of loading it."""

    def load_broken(old, new):
        (tmp_path / "snippets").mkdir()
        shutil.copy(ROOT / FILE, tmp_path / FILE)
        text = (tmp_path / FILE).read_text()
        assert old in text
        (tmp_path / FILE).write_text(text.replace(old, new, 1))
        with pytest.raises(PageError) as caught:
            load(tmp_path)
        problem = caught.value.problem
        return problem, (tmp_path / FILE).read_text().splitlines()[problem.line - 1]

    return load_broken


@pytest.mark.parametrize(
    ("old", "new", "message", "mend", "key"),
    [
        (
            "can: [classify, score, sample, fill in]",
            "can: [clasify]",
            "unknown ability, 'clasify'",
            "'classify'",
            "generative/naive_bayes",
        ),
        (
            "parent: discriminative/decision_trees",
            "parent: discriminative/decision_tree",
            "unknown model",
            "discriminative/decision_trees",
            "discriminative/random_forests",
        ),
        (
            "likelihood: bounded",
            "likelihood: bound",
            "unknown likelihood",
            "'bounded'",
            "generative/vae",
        ),
        (
            "key: generative/vae\n",
            "key: generative/gan\n",
            "listed twice",
            "keep one",
            "generative/gan",
        ),
        (
            "key: generative/vae\n",
            "key: generativ/vae\n",
            "in no section",
            "'generative'",
            "generativ/vae",
        ),
        (
            "    synonyms: [VAE",
            "    synonims: [VAE",
            "unknown field 'synonims'",
            "'synonyms'",
            "generative/vae",
        ),
        (
            "    represents: p(x, y)\n",
            "",
            "has no represents",
            "represents:",
            "generative/naive_bayes",
        ),
    ],
)
def test_mistakes_are_named_with_their_line(broken, old, new, message, mend, key):
    problem, line = broken(old, new)
    assert message in problem.message and mend in problem.mend
    assert key in line
