"""Support vector machines: equal to scikit-learn, and what an optimum with a margin promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics.pairwise import linear_kernel, polynomial_kernel, rbf_kernel
from sklearn.svm import SVC

from snippets.discriminative.support_vector_machines import (
    calibrate,
    choose,
    claims,
    contenders,
    left_out,
    linear,
    platt,
    predict_proba,
    quadratic,
    rbf,
    scores,
    solve,
    study,
    three_readings,
    train,
)
from snippets.shared import digits, metrics


def sides(n=60, features=3, gap=0.0, seed=0):
    """Two clouds, more on one side than on the other; `gap` pushes them apart."""
    rng = np.random.default_rng(seed)
    side = np.where(np.arange(n) % 3 == 0, 1, -1)
    return rng.normal(size=(n, features)) + side[:, None] * (0.5 + gap), side


def classes(n=90, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[y], y


@pytest.fixture(scope="module")
def calibrated():
    x, y = classes()
    return calibrate(train(x, y, c=1.0, gamma=0.3), x, y)


# ---------------------------------------------------------------- oracle


@pytest.mark.parametrize("c", [0.1, 1.0, 100.0])
def test_equals_scikit_learn(c):
    x, side = sides()
    strength, bias = solve(rbf(x, x, gamma=0.5), side, c=c, gap=1e-6)
    oracle = SVC(C=c, gamma=0.5, tol=1e-7).fit(x, side)
    dense = np.zeros(len(x))
    dense[oracle.support_] = oracle.dual_coef_[0]
    np.testing.assert_allclose(strength, dense, atol=1e-4 * c)
    assert bias == pytest.approx(oracle.intercept_[0], abs=1e-4)


def test_each_class_against_the_rest_equals_scikit_learn():
    x, y = classes()
    model = train(x, y, c=2.0, gamma=0.3)
    for label in range(3):
        oracle = SVC(C=2.0, gamma=0.3, tol=1e-6).fit(x, y == label)
        np.testing.assert_allclose(
            scores(model, x)[:, label], oracle.decision_function(x), atol=5e-3
        )


def test_kernels_equal_scikit_learns():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_allclose(linear(a, b), linear_kernel(a, b))
    np.testing.assert_allclose(rbf(a, b[:4], gamma=0.7), rbf_kernel(a, b[:4], gamma=0.7))
    theirs = polynomial_kernel(a, b, degree=2, gamma=0.7, coef0=1)
    np.testing.assert_allclose(quadratic(a, b, gamma=0.7), theirs)


def test_the_primal_has_no_better_line():
    """Another road: the hinge loss itself, slid down without any dual."""
    x, side = sides(n=30, features=2)
    strength, bias = solve(x @ x.T, side, c=0.5, gap=1e-8)

    def loss(theta):
        hinge = np.maximum(0, 1 - side * (x @ theta[:2] + theta[2])).sum()
        return (theta[:2] ** 2).sum() / 2 + 0.5 * hinge

    found = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"maxiter": 4000}).fun
    assert loss(np.append(strength @ x, bias)) <= found + 1e-4


def test_platt_equals_scikit_learns():
    x, y = classes()
    hit = y == 1
    machine = SVC(gamma=0.3).fit(x, hit)
    theirs = CalibratedClassifierCV(FrozenEstimator(machine), method="sigmoid").fit(x, hit)
    slope, offset = platt(machine.decision_function(x), hit)
    ours = expit(slope * machine.decision_function(x) + offset)
    np.testing.assert_allclose(ours, theirs.predict_proba(x)[:, 1], atol=1e-4)


# ---------------------------------------------------------------- what an optimum promises


def test_outside_the_margin_no_strength_inside_all_of_it():
    """The conditions of Karush, Kuhn and Tucker."""
    x, side = sides()
    k = rbf(x, x, gamma=0.5)
    strength, bias = solve(k, side, c=2.0, gap=1e-7)
    room = side * (k @ strength + bias)
    alpha = strength * side
    assert (alpha >= 0).all() and (alpha <= 2.0).all()
    assert strength.sum() == pytest.approx(0, abs=1e-9)
    assert (alpha[room > 1 + 1e-5] == 0).all()
    np.testing.assert_allclose(alpha[room < 1 - 1e-5], 2.0)
    assert (room < 1 - 1e-5).any() and (room > 1 + 1e-5).any()


def test_with_a_gap_the_margin_is_the_distance_of_the_clouds():
    x = np.array([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0], [9.0, 5.0]])
    side = np.array([-1, -1, 1, 1])
    strength, bias = solve(x @ x.T, side, c=1e6, gap=1e-9)
    w = strength @ x
    assert 2 / np.linalg.norm(w) == pytest.approx(3.0)
    np.testing.assert_allclose(w * 3 / 2, [1, 0], atol=1e-6)
    assert bias == pytest.approx(-1)
    assert strength[3] == 0


def test_images_without_strength_can_be_thrown_away():
    x, y = classes()
    model = train(x, y, c=1.0, gamma=0.3)
    assert 0 < len(model.images) < len(x)
    rows = (x[:, None] == model.images).all(axis=2).any(axis=1)
    again = train(x[rows], y[rows], c=1.0, gamma=0.3)
    np.testing.assert_allclose(scores(again, x), scores(model, x), atol=0.02)


def test_far_away_every_input_gets_the_biases():
    """The failure that the page shows: no bump reaches there."""
    x, y = classes()
    model = train(x, y)
    np.testing.assert_allclose(scores(model, 1e3 + x[:5]), np.tile(model.bias, (5, 1)))


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_scale_is_gamma_and_a_shift_is_nothing(scale, shift):
    x, y = classes(n=45)
    plain = scores(train(x, y, c=1.0, gamma=0.3), x)
    other = train(scale * x + shift, y, c=1.0, gamma=0.3 / scale**2)
    np.testing.assert_allclose(scores(other, scale * x + shift), plain, atol=0.02)


def test_a_quadratic_kernel_is_six_features():
    x, _ = sides(features=2)
    one, two = x.T
    root = 2**0.5
    phi = np.stack([one**0, root * one, root * two, one**2, two**2, root * one * two], axis=1)
    np.testing.assert_allclose(quadratic(x, x), phi @ phi.T)


# ---------------------------------------------------------------- probabilities


def test_no_probability_until_one_is_fitted():
    x, y = classes()
    with pytest.raises(ValueError, match="scores are no probabilities"):
        predict_proba(train(x, y), x)


def test_probabilities_are_claims_over_their_sum(calibrated):
    x, _ = classes(seed=1)
    alone, p = claims(calibrated, x), predict_proba(calibrated, x)
    for label in range(3):
        z = calibrated.slope[label] * scores(calibrated, x)[:, label] + calibrated.offset[label]
        np.testing.assert_allclose(alone[:, label], 1 / (1 + np.exp(-z)))
    np.testing.assert_allclose(p, alone / alone.sum(axis=1)[:, None])
    assert (calibrated.slope > 0).all()


def test_platt_finds_the_curve_that_made_the_labels():
    rng = np.random.default_rng(0)
    score = rng.normal(size=20_000)
    hit = rng.random(20_000) < expit(2.5 * score - 1)
    np.testing.assert_allclose(platt(score, hit), [2.5, -1], atol=0.1)


def test_platt_stays_finite_behind_a_clean_gap():
    slope, offset = platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert 0.5 < slope < 5
    assert offset == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(expit(slope * np.array([-1.5, 1.5])), [0.25, 0.75], atol=0.05)


def test_scores_for_calibration_come_from_machines_that_did_not_see_the_image():
    """Labels that are noise: a machine that saw them knows them, one that did not cannot."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(80, 6)), rng.permutation(np.arange(80) % 2)
    model = train(x, y, c=100.0, gamma=2.0)
    assert metrics.accuracy(scores(model, x), y) == 1
    assert metrics.accuracy(left_out(model, x, y), y) < 0.7


def test_left_out_machines_have_the_settings_of_the_model():
    x, y = classes(n=40)
    for kernel, gamma in ((linear, 1.0), (rbf, 3.0)):
        model = train(x, y, c=0.3, gamma=gamma, kernel=kernel)
        found = left_out(model, x, y, folds=4, seed=1)
        part = np.array_split(np.random.default_rng(1).permutation(40), 4)[2]
        rest = np.setdiff1d(np.arange(40), part)
        again = train(x[rest], y[rest], c=0.3, gamma=gamma, kernel=kernel)
        np.testing.assert_allclose(found[part], scores(again, x[part]), atol=0.01)


# ---------------------------------------------------------------- bad input


def test_bad_input_is_named():
    x, y = classes()
    model = train(x, y)
    with pytest.raises(ValueError, match="expected images of 4 pixels, got 784"):
        scores(model, np.zeros((1, 784)))
    with pytest.raises(ValueError, match="got NaN"):
        scores(model, np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match="expected 90 labels"):
        train(x, y[:-1])
    with pytest.raises(ValueError, match="each at least once"):
        train(x, 2 * y)
    with pytest.raises(ValueError, match="c > 0 and gamma > 0"):
        train(x, y, gamma=0.0)
    with pytest.raises(ValueError, match="expected no NaN"):
        train(np.where(x > 2, np.nan, x), y)
    with pytest.raises(RuntimeError, match="still move after 3 steps"):
        solve(x @ x.T, np.where(y == 0, 1, -1), c=1.0, steps=3)


# ---------------------------------------------------------------- the study


def test_settings_are_chosen_on_images_that_were_not_trained_on():
    """Half of the labels are noise: judged on images that it has seen, k = 1 would be perfect."""
    x, y, _, _ = digits.load_split()
    rng = np.random.default_rng(0)
    half = np.where(rng.random(600) < 0.5, y[:600], rng.integers(10, size=600))
    neighbours = contenders()["nearest neighbours"][0]
    assert choose(neighbours, [{"k": 1}, {"k": 15}], x[:600], half) == {"k": 15}


def test_every_contender_answers_each_image_alone():
    x, y, new, _ = digits.load_split()
    for name, (fit, candidates) in contenders().items():
        answer = fit(x[:300], y[:300], **candidates[0])
        np.testing.assert_allclose(answer(new[:3]), answer(new[:40])[:3], atol=1e-6, err_msg=name)


def test_three_readings_of_the_same_scores():
    split = digits.Split(*(part[:200] for part in digits.load_split()))
    rows = three_readings(split, c=10, gamma=0.25)
    model = train(*split[:2], c=10, gamma=0.25)
    p = predict_proba(calibrate(model, *split[:2]), split.x_test)
    assert rows[2, 0] == pytest.approx(metrics.log_loss(p, split.y_test))
    raw = expit(scores(model, split.x_test))
    raw /= raw.sum(axis=1, keepdims=True)
    assert rows[0, 0] == pytest.approx(metrics.log_loss(raw, split.y_test))
    assert rows[0, 0] > rows[1:, 0].max()


@pytest.mark.bar
def test_study_runs_at_a_tiny_size(capsys):
    result = study(seeds=1, folds=2)
    assert "parts of the file" in capsys.readouterr().out
    assert result["SVM_RBF"]["accuracy"] > result["SVM_linear"]["accuracy"]
    assert result["squashed_score"]["log_loss"] > 1


# ---------------------------------------------------------------- bars


@pytest.mark.bar
def test_digits():
    fit, candidates = contenders()["SVM, RBF"]
    right, loss = [], []
    for seed in range(3):
        split = digits.load_split(seed=seed)
        model = train(*split[:2], **choose(fit, candidates, *split[:2]))
        p = predict_proba(calibrate(model, *split[:2]), split.x_test)
        right.append(metrics.accuracy(scores(model, split.x_test), split.y_test))
        loss.append(metrics.log_loss(p, split.y_test))
    assert np.mean(right) >= 0.983
    assert np.mean(loss) <= 0.08


@pytest.mark.bar
def test_nobody_claims_nonsense_and_votes_do():
    """The failure that the page shows; if it goes away, the page must change."""
    split = digits.load_split()
    model = calibrate(train(*split[:2]), *split[:2])
    assert claims(model, 1 - split.x_test).sum(axis=1).max() < 0.5
    votes = CalibratedClassifierCV(SVC(C=10, gamma=0.25), ensemble=False).fit(*split[:2])
    assert votes.predict_proba(1 - split.x_test).max(axis=1).mean() > 0.9
