"""Each model can do what the taxonomy says it can, through the same verbs, and no more.

A module is held to its entry as soon as it exists, its page may follow. One that cannot be trained
by `train(x)` or `train(x, y)` on a few digits gets a line in ADAPTERS. What learns from text is
trained by `train(text)`; verbs then take and give strings.
"""

import ast
import importlib
import inspect

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression

from snippets.shared import prose
from snippets.shared.digits import load_split
from snippets.site import ROOT
from snippets.site.register import COMPANIONS, VERBS, load

MODELS = {
    key: model
    for key, model in load().models.items()
    if (ROOT / "snippets" / f"{key}.py").is_file()
}
# What follows `model` in each verb; names in brackets may be left out.
SIGNATURES = {
    "predict_proba": ["x|texts", "[missing]"],
    "predict": ["x"],
    "detect": ["x"],
    "log_prob": ["x|texts", "[missing]"],
    "sample": ["n|labels"],
    "encode": ["x|text"],
    "decode": ["z|tokens"],
    "reconstruct": ["x"],
    "impute": ["x", "missing"],
    "denoise": ["x"],
}
# Key → how to train it quickly, if not by train(x[, y]).
ADAPTERS = {
    "choosing/data_efficiency": lambda module, x, y: module.train_generative(x, y),
    # Pixels that are blank in all 300 images leave least squares without a single answer.
    "discriminative/linear_regression": lambda module, x, y: module.train(x, y, ridge=1.0),
    # Scores until a second model is fitted to them.
    "discriminative/support_vector_machines": lambda module, x, y: module.calibrate(
        module.train(x, y), x, y
    ),
    "discriminative/object_detection": lambda module, x, y: module.train(
        module.strew(x, y, n=200, noise=0), steps=60
    ),
    "language_models/as_classifier": lambda module, text: train_active(module, text),
    # Reads lines of a prompt, a tab and an answer.
    "language_models/instructions_and_agents": lambda module, text: module.train(
        module.lines(n=60), steps=40
    ),
    # Trains on random functions; the digits come as examples in its prompt.
    "language_models/in_context_learning": lambda module, x, y: module.learn(
        module.train(steps=80), four_numbers()(x[:8]), (y[:8] - 4.5) / 2.9
    ),
}
# Key → how an image is shown to a model of another kind of row.
VIEWS = {"language_models/in_context_learning": lambda x: four_numbers()(x)}
# A module that trains nothing → the one whose models it uses.
TRAINED_BY = {"language_models/sampling": "language_models/gpt"}
# Verb → its message for three rows of 784 numbers, if its input is no row of 64.
WRONG_SIZE = {"detect": r"expected canvases \(n, height, width\), got shape \(3, 784\)"}


def four_numbers():
    """From images to four numbers that go with their labels, of variance one."""
    split = load_split()
    fitted = PLSRegression(n_components=4).fit(split.x_train, split.y_train)
    return lambda x: fitted.transform(x) / fitted.x_scores_.std(axis=0)


def able(ability: str, *, text: bool = False):
    """Parametrise over the keys of the models of images, or of text, that can do this."""
    keys = [key for key, model in MODELS.items() if ability in model.can and reads(model) == text]
    return pytest.mark.parametrize("key", keys)


def reads(model) -> bool:
    """Does it learn from text?"""
    return model.section == "language_models" and key_of_training(model) in ("text", "texts")


def key_of_training(model) -> str:
    """The name of what the module's `train` takes first."""
    train = getattr(module_of(TRAINED_BY.get(model.key, model.key)), "train", lambda: None)
    return next(iter(inspect.signature(train).parameters), "")


def module_of(key: str):
    return importlib.import_module("snippets." + key.replace("/", "."))


@pytest.fixture(scope="module")
def images():
    """Images, labels and new images; few, because it is not quality that is tested here."""
    split = load_split()
    return split.x_train[:300], split.y_train[:300], split.x_test[:50]


@pytest.fixture(scope="module")
def trained(images):
    """Key → its module and a model that saw 300 digits, made when asked for."""
    x, y, _ = images
    made = {}

    def get(key: str):
        if key not in made:
            module = module_of(key)
            made[key] = module, ADAPTERS.get(key, train)(module, x, y)
        return made[key]

    return get


def train_active(module, text):
    """Labels: does a paragraph do without "is"?"""
    lines = text.splitlines()
    sides = [[t for t in lines if (" is " not in t) == side][:40] for side in (False, True)]
    return module.train(sides[0] + sides[1], np.repeat([0, 1], list(map(len, sides))), steps=40)


def train(module, x, y):
    parameters = list(inspect.signature(module.train).parameters)
    few = {
        name: 50 for name in ("steps", "epochs") if name in parameters and "torch" in vars(module)
    }
    return module.train(x, y, **few) if parameters[1] == "y" else module.train(x, **few)


# ---------------------------------------------------------------- verbs


@pytest.mark.parametrize("key", MODELS)
def test_there_is_a_verb_for_each_ability_and_no_other(key):
    source = (ROOT / "snippets" / f"{key}.py").read_text(encoding="utf-8")
    functions = {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    verbs = set(MODELS[key].verbs)
    allowed = verbs | {companion for companion, verb in COMPANIONS.items() if verb in verbs}
    assert key in TRAINED_BY or any(name.startswith("train") for name in functions)
    assert verbs <= functions, "the taxonomy says that it can"
    assert functions & set(SIGNATURES) <= allowed, "the taxonomy does not say that it can"


@pytest.mark.parametrize("key", MODELS)
def test_verbs_take_the_same_arguments_everywhere(key):
    module = module_of(key)
    for verb, names in SIGNATURES.items():
        if verb not in vars(module):
            continue
        parameters = list(inspect.signature(getattr(module, verb)).parameters.values())
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional[0].name == "model", verb
        rest = positional[1:]
        for parameter, name in zip(rest, names):
            assert parameter.name in name.strip("[]").split("|"), verb
            optional = parameter.default is not inspect.Parameter.empty
            assert optional == name.startswith("["), f"{verb}({parameter.name})"
        required = [name for name in names if not name.startswith("[")]
        assert len(required) <= len(rest) <= len(names), verb
        if verb == "sample":
            seed = inspect.signature(module.sample).parameters["seed"]
            assert seed.kind is seed.KEYWORD_ONLY and seed.default == 0


def test_every_ability_has_a_signature():
    assert {*VERBS.values(), *COMPANIONS} == set(SIGNATURES)


# ---------------------------------------------------------------- what they return


@able("classify")
def test_probabilities_are_some_and_sum_to_one(key, trained, images):
    module, model = trained(key)
    p = module.predict_proba(model, images[2])
    assert p.shape == (50, 10)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert (p.argmax(axis=1) == load_split().y_test[:50]).mean() > 0.5, "it learned nothing"


@able("regress")
def test_a_number_for_each_image_that_follows_the_labels(key, trained, images):
    module, model = trained(key)
    answer = module.predict(model, VIEWS.get(key, np.asarray)(images[2]))
    assert answer.shape == (50,)
    assert np.isfinite(answer).all()
    assert np.corrcoef(answer, load_split().y_test[:50])[0, 1] > 0.3, "it learned nothing"


@able("detect")
def test_finds_are_boxes_with_labels_surest_first(key, trained):
    module, model = trained(key)
    scenes = module.strew(*load_split()[2:], n=40)
    found = module.detect(model, scenes.x, threshold=0.05)
    assert len(found) == 40
    for boxes, labels, scores in found:
        assert boxes.shape == (len(labels), 4) and scores.shape == (len(labels),)
        assert np.isfinite(boxes).all()
        assert set(labels) <= set(range(10))
        assert (scores >= 0.05).all() and (scores <= 1).all() and (np.diff(scores) <= 0).all()
    assert module.mean_ap(found, scenes.truth) > 0.05, "it learned nothing"


@able("score")
def test_scores_are_finite_and_prefer_images_to_noise(key, trained, images):
    module, model = trained(key)
    scores = np.asarray(module.log_prob(model, images[2]))
    noise = np.random.default_rng(0).integers(0, 17, images[2].shape) / 16
    assert scores.shape == (50,)
    assert np.isfinite(scores).all()
    assert scores.mean() > np.asarray(module.log_prob(model, noise)).mean()


def test_an_exact_density_integrates_to_one():
    """Naive Bayes of one pixel, narrow enough that [0, 1] holds all of it."""
    module = module_of("generative/naive_bayes")
    x = np.array([[0.4], [0.42], [0.6], [0.62]])
    model = module.train(x, np.array([0, 0, 1, 1]), floor=0.001)
    grid = np.linspace(0, 1, 2001)[:, None]
    density = np.exp(module.log_prob(model, grid))
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-4)


@able("sample")
def test_draws_have_the_shape_and_range_of_images_and_follow_the_seed(key, trained):
    module, model = trained(key)
    wanted = list(inspect.signature(module.sample).parameters)[1]
    what = 30 if wanted == "n" else np.arange(30) % 10
    drawn = module.sample(model, what, seed=1)
    assert drawn.shape == (30, 64)
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert drawn.std(axis=0).max() > 0, "all the same"
    np.testing.assert_array_equal(drawn, module.sample(model, what, seed=1))
    assert (drawn != module.sample(model, what, seed=2)).any()


@able("encode")
def test_codes_are_shorter_than_images_and_lead_back(key, trained, images):
    module, model = trained(key)
    z = module.encode(model, images[2])
    assert z.ndim == 2 and len(z) == 50 and z.shape[1] <= 64
    assert np.isfinite(z).all() and z.std(axis=0).max() > 0
    np.testing.assert_array_equal(z, module.encode(model, images[2]))
    if "decode" in vars(module):
        back = module.decode(model, z)
        assert back.shape == (50, 64) and back.min() >= 0 and back.max() <= 1


@able("fill in")
def test_filling_in_leaves_what_is_seen_and_ignores_what_is_hidden(key, trained, images):
    module, model = trained(key)
    x = images[2].copy()
    missing = np.random.default_rng(0).random(x.shape) < 0.5
    filled = module.impute(model, x, missing)
    np.testing.assert_array_equal(filled[~missing], x[~missing])
    assert filled.min() >= 0 and filled.max() <= 1
    x[missing] = np.nan
    np.testing.assert_allclose(module.impute(model, x, missing), filled)


@pytest.mark.parametrize(
    "key", [k for k, m in MODELS.items() if m.section not in ("choosing", "language_models")]
)
def test_images_of_the_wrong_size_get_one_clear_line(key, trained):
    module, model = trained(key)
    wrong = np.zeros((3, 784))
    for verb in set(MODELS[key].verbs) - {"sample"}:
        extra = (np.zeros(wrong.shape, bool),) if verb == "impute" else ()
        message = WRONG_SIZE.get(verb, r"expected \w+ of 64 \w+, got 784")
        with pytest.raises(ValueError, match=message):
            getattr(module, verb)(model, wrong, *extra)


# ---------------------------------------------------------------- text


@pytest.fixture(scope="module")
def read():
    """Key → its module and a model that read 40,000 letters, made when asked for."""
    text = prose.text_of(prose.load().train)[:40_000]
    made = {}

    def get(key: str):
        if key not in made:
            module = module_of(TRAINED_BY.get(key, key))
            parameters = inspect.signature(module.train).parameters
            few = {"steps": 30} if "steps" in parameters else {}
            make = ADAPTERS.get(key, lambda m, t: m.train(t, **few))
            made[key] = module_of(key), make(module, text)
        return made[key]

    return get


SENTENCES = ["Return the name of the file.", "If the value is None, the default is used."]


@able("score", text=True)
def test_log_probabilities_of_texts_prefer_prose_to_its_letters_shuffled(key, read):
    module, model = read(key)
    mixed = ["".join(np.random.default_rng(0).permutation(list(s))) for s in SENTENCES]
    scores, others = (np.asarray(module.log_prob(model, texts)) for texts in (SENTENCES, mixed))
    assert scores.shape == (2,) and np.isfinite(scores).all() and (scores < 0).all()
    assert (scores > others).all(), "it learned nothing"


@able("classify", text=True)
def test_probabilities_of_labels_of_texts_sum_to_one_and_follow_the_labels(key, read):
    module, model = read(key)
    p = module.predict_proba(model, SENTENCES)
    assert p.shape == (2, 2) and (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert p[0, 1] > p[1, 1], "it learned nothing"


@able("sample", text=True)
def test_drawn_texts_are_strings_that_follow_the_seed(key, read):
    module, model = read(key)
    drawn = module.sample(model, 3, seed=1)
    assert len(drawn) == 3 and all(isinstance(text, str) and text for text in drawn)
    assert drawn == module.sample(model, 3, seed=1) != module.sample(model, 3, seed=2)


@able("encode", text=True)
def test_tokens_lead_back_to_the_text(key, read):
    module, model = read(key)
    for text in (*SENTENCES, "", "naïve — 数 \n\t"):
        tokens = module.encode(model, text)
        assert all(int(token) == token for token in tokens)
        assert module.decode(model, tokens) == text
