"""Naive Bayes: equal to scikit-learn, and everything that Bayes' rule promises."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import multivariate_normal, norm
from sklearn.naive_bayes import GaussianNB

from snippets.generative import naive_bayes
from snippets.generative.naive_bayes import (
    NaiveBayes,
    conditional_fill,
    correlation_below,
    evidence,
    full_proba,
    impute,
    log_joint,
    log_prob,
    predict_proba,
    sample,
    study,
    train,
)
from snippets.shared.digits import hold_out, load_split
from snippets.shared.metrics import accuracy, log_loss

FLOOR = 0.01


@pytest.fixture(scope="module")
def split():
    return load_split(seed=0)


@pytest.fixture(scope="module")
def model(split):
    return train(split.x_train, split.y_train, floor=FLOOR)


@pytest.fixture(scope="module")
def library(split):
    """scikit-learn's model with the same floor, which it takes relative to the largest variance."""
    relative = FLOOR / split.x_train.var(axis=0).max()
    return GaussianNB(var_smoothing=relative).fit(split.x_train, split.y_train)


def small_model(seed: int, *, pixels: int, classes: int = 3) -> NaiveBayes:
    """Well inside [0, 1], so that cutting to the range changes nothing."""
    rng = np.random.default_rng(seed)
    prior = rng.uniform(0.2, 1, classes)
    shape = classes, pixels
    return NaiveBayes(
        prior / prior.sum(), rng.uniform(0.4, 0.6, shape), rng.uniform(0.03, 0.08, shape) ** 2
    )


def numbers(low, high, size):
    return st.lists(st.floats(low, high), min_size=size, max_size=size).map(np.array)


# ---------------------------------------------------------------- oracle


def test_parameters_equal_scikit_learns(model, library):
    np.testing.assert_allclose(model.prior, library.class_prior_)
    np.testing.assert_allclose(model.mean, library.theta_, atol=1e-12)
    np.testing.assert_allclose(model.variance, library.var_, rtol=1e-9)


def test_probabilities_equal_scikit_learns(model, library, split):
    ours, theirs = predict_proba(model, split.x_test), library.predict_proba(split.x_test)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    # Tiny probabilities too, where a sum in place of a log-sum-exp would underflow.
    np.testing.assert_allclose(
        log_joint(model, split.x_test) - log_prob(model, split.x_test)[:, None],
        library.predict_log_proba(split.x_test),
        atol=1e-6,
    )


def test_evidence_is_the_log_of_scipys_density(model, split):
    image = split.x_test[3]
    expected = norm.logpdf(image, model.mean, np.sqrt(model.variance))
    np.testing.assert_allclose(evidence(model, image[None])[0], expected)


def test_worked_example():
    """Two images of one pixel per class: every parameter by hand."""
    model = train([[0.0], [0.2], [0.6], [1.0]], [0, 0, 1, 1], floor=0.01)
    np.testing.assert_allclose(model.prior, [0.5, 0.5])
    np.testing.assert_allclose(model.mean.ravel(), [0.1, 0.8])
    np.testing.assert_allclose(model.variance.ravel(), [0.02, 0.05])


# ---------------------------------------------------------------- what Bayes' rule promises


@given(numbers(0, 1, 5), st.integers(0, 20))
def test_rows_sum_to_one(image, seed):
    p = predict_proba(small_model(seed, pixels=5), image[None])
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1)


@pytest.mark.parametrize("pixels", [1, 2])
def test_density_integrates_to_one(pixels):
    """Midpoint rule on [0, 1] per pixel; the model's mass lies inside."""
    model = small_model(1, pixels=pixels)
    middle = (np.arange(400) + 0.5) / 400
    grid = np.stack(np.meshgrid(*[middle] * pixels), axis=-1).reshape(-1, pixels)
    assert np.exp(log_prob(model, grid)).mean() == pytest.approx(1, abs=1e-4)


def test_log_prob_is_the_log_of_the_mixture():
    model, x = small_model(2, pixels=2), np.array([[0.5, 0.45]])
    density = norm.pdf(x, model.mean, np.sqrt(model.variance)).prod(axis=1)
    assert log_prob(model, x)[0] == pytest.approx(np.log(model.prior @ density))


def test_prior_multiplies_the_odds():
    model = small_model(3, pixels=4)
    x = np.random.default_rng(0).uniform(0.4, 0.6, (20, 4))
    flat = predict_proba(model._replace(prior=np.full(3, 1 / 3)), x)
    expected = flat * [0.7, 0.2, 0.1]
    skewed = predict_proba(model._replace(prior=np.array([0.7, 0.2, 0.1])), x)
    np.testing.assert_allclose(skewed, expected / expected.sum(axis=1, keepdims=True))


def test_prior_is_counted_not_assumed():
    model = train(np.full((4, 2), 0.5), [0, 1, 1, 1])
    np.testing.assert_allclose(model.prior, [0.25, 0.75])
    # Pixels that are the same in every class leave the prior as the answer.
    np.testing.assert_allclose(predict_proba(model, [[0.1, 0.9]]), [[0.25, 0.75]])


def test_a_copy_of_every_pixel_squares_the_likelihood_ratio(split):
    x, y = split.x_train[:300], split.y_train[:300]
    once = train(x, y)
    twice = train(np.hstack([x, x]), y)
    image = split.x_test[:20]
    votes = evidence(once, image).sum(axis=2)
    doubled = evidence(twice, np.hstack([image, image])).sum(axis=2)
    np.testing.assert_allclose(doubled, 2 * votes)
    flat = np.full(10, 0.1)
    p = predict_proba(once._replace(prior=flat), image)
    p_twice = predict_proba(twice._replace(prior=flat), np.hstack([image, image]))
    np.testing.assert_allclose(p_twice, p**2 / (p**2).sum(axis=1, keepdims=True), atol=1e-12)


def test_equal_variances_make_it_linear():
    """With one variance per pixel, shared by the classes, the log odds are a weighted sum."""
    model = small_model(4, pixels=6)
    model = model._replace(variance=np.repeat(model.variance[:1], 3, axis=0))
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (2, 1, 6))
    joint = log_joint(model, np.vstack([a, b, (a + b) / 2]))
    odds = joint[:, 0] - joint[:, 1]
    assert odds[2] == pytest.approx((odds[0] + odds[1]) / 2)


# ---------------------------------------------------------------- hidden pixels


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(0, 20))
def test_hiding_a_pixel_integrates_it_out(hidden, seed):
    model = small_model(seed, pixels=3)
    image = np.random.default_rng(seed).uniform(0.4, 0.6, 3)
    missing = np.arange(3) == hidden
    middle = (np.arange(2000) + 0.5) / 2000
    grid = np.tile(image, (2000, 1))
    grid[:, hidden] = middle
    joint = np.exp(log_joint(model, grid)).mean(axis=0)  # the integral over the hidden pixel
    np.testing.assert_allclose(
        predict_proba(model, image[None], missing[None])[0], joint / joint.sum(), rtol=1e-5
    )
    assert log_prob(model, image[None], missing[None])[0] == pytest.approx(np.log(joint.sum()))


def test_what_a_hidden_pixel_holds_is_never_read(model, split):
    x = split.x_test[:30]
    missing = np.random.default_rng(0).random(x.shape) < 0.5
    expected = predict_proba(model, x, missing)
    for junk in (np.nan, -7.0, 16.0):
        holed = np.where(missing, junk, x)
        np.testing.assert_array_equal(predict_proba(model, holed, missing), expected)
        assert np.isfinite(log_prob(model, holed, missing)).all()
        np.testing.assert_array_equal(impute(model, holed, missing), impute(model, x, missing))


def test_all_hidden_leaves_the_prior(model):
    nothing = np.full((1, 64), np.nan)
    everything = np.ones((1, 64), bool)
    np.testing.assert_allclose(predict_proba(model, nothing, everything)[0], model.prior)
    np.testing.assert_allclose(log_prob(model, nothing, everything), 0, atol=1e-12)
    np.testing.assert_allclose(impute(model, nothing, everything)[0], model.prior @ model.mean)


def test_impute_keeps_what_is_seen_and_takes_the_posterior_mean(model, split):
    x = split.x_test[:30]
    missing = np.arange(64) >= 32
    missing = np.tile(missing, (30, 1))
    filled = impute(model, x, missing)
    np.testing.assert_array_equal(filled[~missing], x[~missing])
    expected = np.einsum("nk,kp->np", predict_proba(model, x, missing), model.mean)
    np.testing.assert_allclose(filled[missing], expected[missing])


def test_filling_from_the_class_beats_the_plain_mean(model, split):
    missing = np.random.default_rng(0).random(split.x_test.shape) < 0.5
    truth = split.x_test[missing]

    def error(filled):
        return np.sqrt(np.mean((filled[missing] - truth) ** 2))

    plain = np.broadcast_to(split.x_train.mean(axis=0), split.x_test.shape)
    ours = error(impute(model, split.x_test, missing))
    fair = error(conditional_fill(split, split.x_test, missing))
    assert fair < ours < 0.85 * error(plain)


# ---------------------------------------------------------------- drawing


def test_draws_have_the_models_mean_and_variance():
    model = small_model(5, pixels=4)
    labels = np.repeat([2, 0], 20_000)
    drawn = sample(model, labels, seed=0)
    for label in (0, 2):
        own = drawn[labels == label]
        np.testing.assert_allclose(own.mean(axis=0), model.mean[label], atol=0.003)
        np.testing.assert_allclose(own.var(axis=0), model.variance[label], rtol=0.05)
    # Drawn alone: no pixel knows of another.
    assert np.abs(np.corrcoef(drawn[labels == 0].T) - np.eye(4)).max() < 0.03


def test_draws_are_images_and_follow_the_seed(model):
    labels = np.arange(10).repeat(5)
    drawn = sample(model, labels, seed=1)
    assert drawn.shape == (50, 64)
    assert drawn.min() >= 0 and drawn.max() <= 1
    np.testing.assert_array_equal(drawn, sample(model, labels, seed=1))
    assert not np.array_equal(drawn, sample(model, labels, seed=2))


def test_draws_are_recognised_but_speckled(model, split):
    drawn = sample(model, split.y_test, seed=0)
    assert accuracy(predict_proba(model, drawn), split.y_test) > 0.97
    centre = model.mean[split.y_test]
    assert correlation_below(split.x_test, centre) > 0.35
    assert abs(correlation_below(drawn, centre)) < 0.03


def test_correlation_below_looks_down_not_sideways():
    stripes = np.random.default_rng(0).random((200, 1, 8)).repeat(8, axis=1).reshape(200, 64)
    assert correlation_below(stripes, np.zeros(64)) == pytest.approx(1)
    turned = stripes.reshape(200, 8, 8).transpose(0, 2, 1).reshape(200, 64)
    assert abs(correlation_below(turned, np.full(64, 0.5))) < 0.1


# ---------------------------------------------------------------- the baselines


def test_full_gaussian_is_bayes_rule_on_scipys_densities(split):
    x, missing = split.x_test[:20], np.random.default_rng(0).random((20, 64)) < 0.5
    joint = np.zeros((20, 10))
    for label in range(10):
        group = split.x_train[split.y_train == label]
        mean, cov = group.mean(axis=0), np.cov(group.T) + 0.01 * np.eye(64)
        for row, seen in enumerate(~missing):
            density = multivariate_normal(mean[seen], cov[np.ix_(seen, seen)])
            joint[row, label] = density.logpdf(x[row, seen]) + np.log(len(group))
    expected = softmax(joint, axis=1)
    np.testing.assert_allclose(full_proba(split, 0.01, x, missing), expected, atol=1e-8)


def test_full_gaussian_without_correlations_is_naive_bayes(split):
    """A ridge so large that only the diagonal counts leaves the two in step."""
    x, missing = split.x_test[:40], np.random.default_rng(0).random((40, 64)) < 0.5
    naive = train(split.x_train, split.y_train, floor=50)
    for hidden in (np.zeros((40, 64), bool), missing):
        np.testing.assert_allclose(
            full_proba(split, 50, x, hidden), predict_proba(naive, x, hidden), atol=0.01
        )


def test_conditional_fill_equals_regression(split):
    """One hidden pixel, no ridge to speak of: the conditional mean is least squares."""
    x, missing = split.x_test[:10], np.tile(np.arange(64) == 28, (10, 1))
    seen = np.column_stack([np.ones(len(split.x_train)), split.x_train[:, np.arange(64) != 28]])
    slope = np.linalg.lstsq(seen, split.x_train[:, 28], rcond=None)[0]
    expected = np.column_stack([np.ones(10), x[:, np.arange(64) != 28]]) @ slope
    filled = conditional_fill(split, x, missing, ridge=1e-8)
    np.testing.assert_allclose(filled[:, 28], expected, atol=1e-3)
    np.testing.assert_array_equal(filled[~missing], x[~missing])


def test_settings_are_chosen_on_images_not_trained_on(split, monkeypatch):
    """A candidate that knows its training images by heart must not be chosen."""

    def contenders(part):
        known = {image.tobytes(): label for image, label in zip(part.x_train, part.y_train)}

        def parrot(x):
            return np.eye(10)[[known.get(image.tobytes(), 0) for image in x]]

        return {"one": [parrot, partial(predict_proba, train(part.x_train, part.y_train))]}

    monkeypatch.setattr(naive_bayes, "contenders", contenders)
    result = naive_bayes.compare_whole(split, split.x_test, split.y_test, seed=0)
    assert result["one"]["accuracy"] > 0.88


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(64), [0], "expected a batch of images"),
        (np.full((2, 3), 16.0), [0, 1], r"ink in \[0, 1\]"),
        (np.full((2, 3), np.nan), [0, 1], r"ink in \[0, 1\]"),
        (np.zeros((2, 3)), [0, 2], "none unused"),
        (np.zeros((2, 3)), [1, 2], "none unused"),
        (np.zeros((3, 3)), [0, 1], "a label per image"),
    ],
)
def test_train_says_what_is_wrong(x, y, message):
    with pytest.raises(ValueError, match=message):
        train(x, y)


def test_predict_says_what_is_wrong(model):
    image = np.full((1, 64), 0.5)
    for bad, message in (
        (np.zeros((1, 784)), "images of 64 pixels, got 784"),
        (image * 20, r"ink in \[0, 1\]"),
        (image * np.nan, "marked missing"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_proba(model, bad)
    for mask in (np.zeros((1, 63), bool), np.zeros((1, 64))):
        with pytest.raises(ValueError, match=r"bool, shape \(1, 64\)"):
            predict_proba(model, image, mask)


def test_without_a_floor_a_blank_pixel_is_refused(split):
    bare = train(split.x_train, split.y_train, floor=0)
    with pytest.raises(ValueError, match="floor > 0"):
        log_prob(bare, split.x_test)
    sample(bare, [3])  # drawing needs no density


@pytest.mark.parametrize("labels", [[10], [-1], [0.5]])
def test_sample_says_what_is_wrong(model, labels):
    with pytest.raises(ValueError, match="labels 0 to 9"):
        sample(model, labels)


# ---------------------------------------------------------------- bars


def test_floor_is_best_on_validation_and_reaches_the_bar(split, model):
    part = hold_out(split.x_train, split.y_train)

    def score(floor):
        tried = train(part.x_train, part.y_train, floor=floor)
        return accuracy(predict_proba(tried, part.x_test), part.y_test)

    floors = [1e-9, 1e-4, 1e-3, 1e-2, 1e-1]
    assert max(floors, key=score) == FLOOR
    p = predict_proba(model, split.x_test)
    assert accuracy(p, split.y_test) >= 0.88
    bare = train(split.x_train, split.y_train, floor=1e-9)
    assert accuracy(predict_proba(bare, split.x_test), split.y_test) < 0.88
    # Overconfident: dividing every vote by five more than halves the log loss.
    fifth = p**0.2 / (p**0.2).sum(axis=1, keepdims=True)
    assert log_loss(p, split.y_test) > 2 * log_loss(fifth, split.y_test)


@pytest.mark.parametrize("seed", range(3))
def test_half_the_pixels_hidden(seed):
    split = load_split(seed=seed)
    model = train(split.x_train, split.y_train)
    missing = np.random.default_rng(seed).random(split.x_test.shape) < 0.5
    assert accuracy(predict_proba(model, split.x_test, missing), split.y_test) >= 0.82


@pytest.mark.bar
def test_full_gaussian_embarrasses_it(split):
    x, y = split.x_test, split.y_test
    assert accuracy(full_proba(split, 0.01, x), y) >= 0.978
    missing = np.random.default_rng(0).random(x.shape) < 0.5
    assert accuracy(full_proba(split, 0.01, x, missing), y) >= 0.93


@pytest.mark.bar
def test_study_runs_small(capsys):
    result = study(seeds=1, images=40)
    assert set(result) == {"whole", "hidden", "draws"}
    assert result["whole"]["naive_bayes"]["accuracy"] > 0.8
    assert result["whole"]["naive_bayes"]["accuracy_spread"] == 0
    assert result["draws"]["full_gaussian"]["correlation"] > 0.2
    # Nothing hidden: filling in changes nothing.
    whole = result["hidden"]["random_0"]
    assert whole["lr_mean"] == whole["lr_cond"]
    assert "full gaussian" in capsys.readouterr().out
