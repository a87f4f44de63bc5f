"""Logistic regression: equal to scikit-learn, and what its mathematics promises."""

import clouds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from snippets.discriminative.logistic_regression import (
    Model,
    chosen,
    contenders,
    leak,
    log_proba,
    loss_and_gradient,
    predict_proba,
    steepest_curvature,
    study,
    train,
)
from snippets.shared import digits, metrics


def blobs(n=60, pixels=5, classes=3, seed=0):
    """Small overlapping classes; the features have different scales."""
    x, y = clouds.blobs(n, pixels, classes, seed)
    return x * np.arange(1, pixels + 1), y


def some_model(pixels=5, classes=3, seed=1):
    rng = np.random.default_rng(seed)
    return Model(rng.normal(size=(pixels, classes)), rng.normal(size=classes))


# ---------------------------------------------------------------- oracle


@pytest.mark.parametrize("c", [0.1, 10.0])
def test_equals_scikit_learn(c):
    x, y = blobs()
    model = train(x, y, c=c, flat=1e-9)
    oracle = LogisticRegression(C=c, tol=1e-10, max_iter=9999).fit(x, y)
    np.testing.assert_allclose(model.weights.T, oracle.coef_, atol=1e-4)
    # The softmax does not see a shift that all biases share.
    shift = model.bias - model.bias.mean() - (oracle.intercept_ - oracle.intercept_.mean())
    np.testing.assert_allclose(shift, 0, atol=1e-4)
    np.testing.assert_allclose(predict_proba(model, x), oracle.predict_proba(x), atol=1e-5)


def test_two_classes_are_the_sigmoid_of_the_difference():
    model = some_model(classes=2)
    x, _ = blobs()
    s = x @ (model.weights[:, 1] - model.weights[:, 0]) + model.bias[1] - model.bias[0]
    np.testing.assert_allclose(predict_proba(model, x)[:, 1], 1 / (1 + np.exp(-s)), rtol=1e-9)


def test_loss_is_log_loss_and_a_penalty_on_the_weights_alone():
    (x, y), model = blobs(), some_model()
    loss, _ = loss_and_gradient(model, x, y, c=0.7)
    penalty = np.sum(model.weights**2) / (2 * 0.7 * len(x))
    assert loss == pytest.approx(log_loss(y, predict_proba(model, x)) + penalty, rel=1e-9)


# ---------------------------------------------------------------- invariants


def test_gradient_is_the_slope_of_the_loss():
    (x, y), model = blobs(n=12), some_model()
    theta = np.vstack([model.weights, model.bias])

    def loss(theta):
        return loss_and_gradient(Model(theta[:-1], theta[-1]), x, y, c=0.3)[0]

    slope = np.zeros_like(theta)
    for place in np.ndindex(theta.shape):
        step = np.zeros_like(theta)
        step[place] = 1e-6
        slope[place] = (loss(theta + step) - loss(theta - step)) / 2e-6
    gradient = np.vstack(loss_and_gradient(model, x, y, c=0.3)[1])
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_no_weights_curve_the_loss_more_than_the_ceiling():
    (x, y), ceiling = blobs(), steepest_curvature(blobs()[0], c=0.5)
    rng = np.random.default_rng(2)
    for scale in (0.0, 0.01, 0.1, 1.0):
        start, step = scale * rng.normal(size=(6, 3)), 1e-4 * rng.normal(size=(6, 3))
        moved = (
            loss_and_gradient(Model(t[:-1], t[-1]), x, y, c=0.5)[1] for t in (start, start + step)
        )
        before, after = (np.vstack(g) for g in moved)
        assert (step * (after - before)).sum() <= (step * (ceiling @ step)).sum() * 1.001


def test_at_the_minimum_probabilities_add_up_to_the_class_counts():
    x, y = blobs(n=50)  # 17, 17 and 16 of each class
    total = predict_proba(train(x, y, flat=1e-9), x).sum(axis=0)
    np.testing.assert_allclose(total, np.bincount(y), atol=1e-5)


def test_weights_of_all_classes_cancel():
    """The penalty leaves no room for a weight that all classes share."""
    weights = train(*blobs(), c=1.0, flat=1e-9).weights
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-5)


def test_scaling_pixels_is_scaling_the_penalty():
    x, y = blobs()
    plain, scaled = train(x, y, c=2.0, flat=1e-9), train(16 * x, y, c=2.0 / 256, flat=1e-9)
    np.testing.assert_allclose(plain.weights, 16 * scaled.weights, atol=1e-4)


def test_a_weaker_penalty_fits_closer_with_larger_weights():
    x, y = blobs()
    models = [train(x, y, c=c) for c in (0.01, 0.1, 1.0, 10.0)]
    sizes = [np.abs(m.weights).sum() for m in models]
    losses = [metrics.log_loss(predict_proba(m, x), y) for m in models]
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)


@settings(max_examples=40, deadline=None)
@given(shift=st.floats(-1e3, 1e3), scale=st.floats(0, 1e6), seed=st.integers(0, 99))
def test_probabilities_are_probabilities_whatever_the_scores(shift, scale, seed):
    model, x = some_model(seed=seed), scale * blobs(n=6, seed=seed)[0]
    p = predict_proba(model, x)
    assert np.isfinite(p).all() and (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)
    shifted = Model(model.weights, model.bias + shift)
    np.testing.assert_allclose(predict_proba(shifted, x), p, atol=1e-6)


def test_log_probabilities_survive_where_probabilities_are_zero():
    model = Model(np.array([[1e4, 0.0]]), np.zeros(2))
    np.testing.assert_allclose(log_proba(model, [[1.0]]), [[0.0, -1e4]])


def test_far_away_it_is_certain():
    model, rng = some_model(), np.random.default_rng(0)
    direction = rng.normal(size=(20, 5))
    top = [predict_proba(model, t * direction).max(axis=1).mean() for t in (1, 10, 1e4)]
    assert top == sorted(top) and top[-1] > 0.999


def test_training_leaves_its_input_alone():
    x, y = blobs()
    before = x.copy(), y.copy()
    train(x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


# ---------------------------------------------------------------- bad input


def test_bad_images_are_named():
    model = some_model(pixels=64)
    with pytest.raises(ValueError, match="expected images of 64 pixels, got 784"):
        predict_proba(model, np.zeros((1, 784)))
    with pytest.raises(ValueError, match="expected a batch of images"):
        predict_proba(model, np.zeros(64))
    with pytest.raises(ValueError, match="got NaN: fill in missing pixels"):
        predict_proba(model, np.full((1, 64), np.nan))


def test_bad_training_data_is_named():
    x, y = blobs()
    with pytest.raises(ValueError, match="expected 60 labels"):
        train(x, y[:-1])
    with pytest.raises(ValueError, match="each at least once"):
        train(x, 2 * y)
    with pytest.raises(ValueError, match="got NaN"):
        train(np.where(x > 2, np.nan, x), y)
    with pytest.raises(RuntimeError, match="not flat after 3 steps"):
        train(x, y, steps=3)


# ---------------------------------------------------------------- the study


def test_smoothed_votes_are_counts():
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    votes = contenders(x, np.array([0, 0, 1, 1, 1, 1]))["nearest neighbours"][3]  # k = 3
    np.testing.assert_allclose(votes(np.array([[0.0]])), [[2.01 / 3.02, 1.01 / 3.02]])


def test_settings_are_chosen_without_the_images_to_answer():
    x, y, new, _ = digits.load_split()
    few = chosen("logistic regression", x[:400], y[:400], new[:5])
    many = chosen("logistic regression", x[:400], y[:400], new)
    np.testing.assert_allclose(few, many[:5])


def test_settings_are_chosen_on_images_that_were_not_trained_on():
    """Labels that are noise deserve many extra votes; judged on seen images, none would win."""
    x, _, new, _ = digits.load_split()
    y = np.random.default_rng(0).permutation(np.arange(600) % 10)
    p = chosen("nearest neighbours", x[:600], y, new[:9])
    candidates = contenders(x[:600], y)["nearest neighbours"]
    np.testing.assert_allclose(p, candidates[2](new[:9]))  # k = 1, extra = 0.1


def test_leak_counts_neighbours_in_the_file():
    line = np.arange(50.0)[:, None]
    near, chance = leak(line, window=1)
    assert near == 1 and chance == pytest.approx(2 * 49 / (50 * 49))


@pytest.mark.bar
def test_study_runs_at_a_tiny_size(capsys):
    result = study(seeds=2, folds=2)
    assert "nearest neighbours" in capsys.readouterr().out
    assert result["most_common_class"]["accuracy"] < 0.12
    assert result["logistic_regression"]["ece"] < 0.05
    assert result["near"] > 3 * result["near_by_chance"]


# ---------------------------------------------------------------- bars


@pytest.fixture(scope="module")
def trained():
    splits = [digits.load_split(seed=seed) for seed in range(5)]
    return splits, [train(s.x_train, s.y_train, flat=1e-5) for s in splits]


@pytest.mark.bar
def test_digits(trained):
    p = [predict_proba(model, split.x_test) for split, model in zip(*trained)]
    truth = [split.y_test for split in trained[0]]
    assert np.mean([metrics.accuracy(q, y) for q, y in zip(p, truth)]) >= 0.955
    assert metrics.log_loss(np.vstack(p), np.concatenate(truth)) <= 0.13
    assert metrics.expected_calibration_error(np.vstack(p), np.concatenate(truth)) <= 0.03


@pytest.mark.bar
def test_sure_of_inverted_digits_and_wrong(trained):
    """The failure that the page shows; if it goes away, the page must change."""
    split, model = trained[0][0], trained[1][0]
    p = predict_proba(model, 1 - split.x_test)
    assert p.max(axis=1).mean() > 0.8
    assert metrics.accuracy(p, split.y_test) < 0.1
