"""Each built model can do what the taxonomy says it can, through the same verbs, and no more."""

import ast
import importlib
import inspect

import numpy as np
import pytest

from snippets.shared.digits import load_split
from snippets.site.taxonomy import VERBS, load

BUILT = [model for model in load().models.values() if model.built]
ABILITIES = [(model, ability) for model in BUILT for ability in model.can]


@pytest.fixture(scope="module")
def trained():
    """Key → its module and a model trained on 200 digits, made when asked for."""
    split, made = load_split(), {}

    def get(key: str):
        if key not in made:
            module = importlib.import_module("snippets." + key.replace("/", "."))
            # The classical ones are trained in a blink, the deep ones a little.
            options = {"steps": 50} if "torch" in vars(module) else {}
            x, y = split.x_train[:200], split.y_train[:200]
            names = list(inspect.signature(module.train).parameters)
            data = (x, y) if names[1] in ("y", "labels") else (x,)
            made[key] = module, module.train(*data, **options)
        return made[key]

    return get


def ids(pair):
    return f"{pair[0].key}-{pair[1]}"


@pytest.mark.parametrize("model", BUILT, ids=lambda m: m.key)
def test_there_is_a_verb_for_each_ability_and_no_other(model):
    module = importlib.import_module("snippets." + model.key.replace("/", "."))
    tree = ast.parse(inspect.getsource(module))
    here = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    verbs = {VERBS[ability] for ability in model.can}
    assert "train" in here
    assert here & set(VERBS.values()) == verbs


@pytest.mark.parametrize("pair", [p for p in ABILITIES if p[1] == "classify"], ids=ids)
def test_classify(pair, trained):
    module, model = trained(pair[0].key)
    p = module.predict_proba(model, load_split().x_test[:50])
    assert p.shape == (50, 10)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("pair", [p for p in ABILITIES if p[1] == "score"], ids=ids)
def test_score(pair, trained):
    module, model = trained(pair[0].key)
    images = load_split().x_test[:20]
    scores = np.asarray(module.log_prob(model, images))
    noise = np.random.default_rng(0).integers(0, 17, images.shape) / 16
    assert scores.shape == (20,)
    assert np.isfinite(scores).all()
    assert scores.mean() > np.asarray(module.log_prob(model, noise)).mean()


@pytest.mark.parametrize("pair", [p for p in ABILITIES if p[1] == "sample"], ids=ids)
def test_sample(pair, trained):
    module, model = trained(pair[0].key)
    second = list(inspect.signature(module.sample).parameters)[1]
    what = 30 if second == "n" else np.arange(30) % 10
    drawn = module.sample(model, what, seed=1)
    assert drawn.shape == (30, 64)
    assert drawn.min() >= 0 and drawn.max() <= 1
    np.testing.assert_array_equal(drawn, module.sample(model, what, seed=1))
    assert (drawn != module.sample(model, what, seed=2)).any()


@pytest.mark.parametrize("pair", [p for p in ABILITIES if p[1] == "encode"], ids=ids)
def test_encode(pair, trained):
    module, model = trained(pair[0].key)
    z = module.encode(model, load_split().x_test[:20])
    assert z.ndim == 2 and len(z) == 20 and z.shape[1] < 64
    assert np.isfinite(z).all() and z.std(axis=0).max() > 0


@pytest.mark.parametrize("pair", [p for p in ABILITIES if p[1] == "fill in"], ids=ids)
def test_fill_in(pair, trained):
    module, model = trained(pair[0].key)
    images = load_split().x_test[:20].copy()
    missing = np.random.default_rng(0).random(images.shape) < 0.5
    filled = module.impute(model, images, missing)
    np.testing.assert_array_equal(filled[~missing], images[~missing])
    assert filled.min() >= 0 and filled.max() <= 1
    # What stood in the hidden pixels must not matter.
    images[missing] = 0.123
    np.testing.assert_allclose(module.impute(model, images, missing), filled)


@pytest.mark.parametrize("pair", [p for p in ABILITIES if p[1] != "sample"], ids=ids)
def test_images_of_the_wrong_size_get_one_clear_line(pair, trained):
    module, model = trained(pair[0].key)
    verb = getattr(module, VERBS[pair[1]])
    wrong = np.zeros((3, 784))
    extra = (np.zeros((3, 784), bool),) if pair[1] == "fill in" else ()
    with pytest.raises(ValueError, match="expected images of 64 pixels, got 784"):
        verb(model, wrong, *extra)
