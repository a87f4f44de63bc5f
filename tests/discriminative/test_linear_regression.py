"""Linear regression: equal to scikit-learn, and what least squares promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import t as student
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge

from snippets.discriminative.linear_regression import (
    bent,
    chance_above,
    choose_ridge,
    contenders,
    coverage,
    interval,
    leverage,
    load_split,
    powers,
    predict,
    redraw,
    rmse,
    solve_normal,
    solve_qr,
    standardise,
    study,
    train,
)


def rows(n=60, features=4, noise=1.0, seed=0):
    """Correlated columns on different scales, y in other units."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)) @ rng.normal(size=(features, features))
    x = x * 10.0 ** np.arange(features) + 5
    y = 3 + (x / x.std(axis=0)).sum(axis=1) + noise * rng.normal(size=n)
    return x, y


# ---------------------------------------------------------------- oracle


def test_equals_scikit_learn():
    x, y = rows()
    model, oracle = train(x, y), LinearRegression().fit(x, y)
    np.testing.assert_allclose(model.weights / model.scale, oracle.coef_, rtol=1e-9)
    np.testing.assert_allclose(predict(model, x[:7]), oracle.predict(x[:7]), rtol=1e-9)


@pytest.mark.parametrize("ridge", [0.5, 50.0])
def test_ridge_equals_scikit_learns_on_standardised_columns(ridge):
    x, y = rows()
    model, oracle = train(x, y, ridge=ridge), Ridge(alpha=ridge)
    oracle.fit((x - x.mean(axis=0)) / x.std(axis=0), y)
    np.testing.assert_allclose(model.weights, oracle.coef_, rtol=1e-9)
    assert model.bias == pytest.approx(oracle.intercept_)


@pytest.mark.parametrize("ridge", [0.0, 3.0])
def test_no_other_weights_have_a_smaller_loss(ridge):
    """An optimiser that knows nothing of linear algebra ends at the same place."""
    x, y = rows(n=20, features=2)
    model = train(x, y, ridge=ridge)
    z = standardise(model, x)

    def loss(theta):
        return ((y - z @ theta[:2] - theta[2]) ** 2).sum() + ridge * (theta[:2] ** 2).sum()

    best = minimize(loss, np.zeros(3), tol=1e-10).x
    np.testing.assert_allclose([*model.weights, model.bias], best, atol=1e-4)


def test_both_solvers_agree_and_only_one_survives_a_repeated_column():
    x, y = rows()
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for ridge in (0.0, 2.0):
        weights, triangle = solve_qr(z, y, ridge=ridge)
        np.testing.assert_allclose(weights, solve_normal(z, y, ridge=ridge), rtol=1e-8)
        gram = z.T @ z + ridge * np.eye(4)
        np.testing.assert_allclose(triangle.T @ triangle, gram, atol=1e-9)
    twice = np.column_stack([z, z[:, 0] + 1e-8 * np.random.default_rng(1).normal(size=60)])
    known = twice.sum(axis=1)
    assert np.abs(solve_qr(twice, known)[0] - 1).max() < 1e-4
    assert np.abs(solve_normal(twice, known) - 1).max() > 1e-2


def test_leverage_is_the_diagonal_of_the_hat_matrix():
    x, y = rows(n=12, features=3)
    model = train(x, y)
    with_one = np.column_stack([np.ones(12), x])
    hat = with_one @ np.linalg.pinv(with_one)
    np.testing.assert_allclose(leverage(model, x), np.diag(hat), rtol=1e-6)
    assert model.freedom == pytest.approx(12 - 3 - 1)
    assert model.noise**2 == pytest.approx(((y - hat @ y) ** 2).sum() / 8)


def test_leaving_a_row_out_needs_no_refit():
    """The leave-one-out error is the residual over 1 - h: a second oracle for the leverage."""
    x, y = rows(n=15, features=2)
    model = train(x, y)
    short = (y - predict(model, x)) / (1 - leverage(model, x))
    for i in range(15):
        rest = np.arange(15) != i
        assert y[i] - predict(train(x[rest], y[rest]), x[[i]])[0] == pytest.approx(short[i])


def test_interval_is_the_textbooks_for_one_column():
    x, y = rows(n=10, features=1)
    new = np.array([[x.max() + 3.0]])
    slope, start = np.polyfit(x[:, 0], y, 1)
    s2 = ((y - slope * x[:, 0] - start) ** 2).sum() / 8
    gap = (new[0, 0] - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    half = student.ppf(0.975, 8) * np.sqrt(s2 * (1 + 1 / 10 + gap))
    middle = slope * new[0, 0] + start
    found = interval(train(x, y), new, level=0.95)
    np.testing.assert_allclose(found, [[middle - half, middle + half]], rtol=1e-9)


# ---------------------------------------------------------------- invariants


def test_residuals_are_at_right_angles_to_every_column_and_add_up_to_zero():
    x, y = rows()
    model = train(x, y)
    residual = y - predict(model, x)
    np.testing.assert_allclose(standardise(model, x).T @ residual, 0, atol=1e-8)
    assert residual.sum() == pytest.approx(0, abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3), ridge=st.sampled_from([0.0, 4.0]))
def test_units_do_not_matter(scale, shift, ridge):
    x, y = rows()
    plain = interval(train(x, y, ridge=ridge), x)
    other = interval(train(scale * x + shift, y, ridge=ridge), scale * x + shift)
    np.testing.assert_allclose(other, plain, rtol=1e-6, atol=1e-6)


def test_intervals_hold_as_often_as_they_say():
    """The promise of the formula, where its assumptions are true: new rows, new noise."""
    inside = []
    for seed in range(300):
        x, y = rows(n=24, features=3, seed=seed)  # few rows, so that t and leverage matter
        low, high = interval(train(x[:12], y[:12]), x[12:], level=0.8).T
        inside.append(((low <= y[12:]) & (y[12:] <= high)).mean())
    assert np.mean(inside) == pytest.approx(0.8, abs=0.02)


def test_the_interval_widens_away_from_the_rows_and_with_the_level():
    x, y = rows()
    model, way = train(x, y), x.mean(axis=0) + np.outer([0, 1, 5, 50], x.std(axis=0))
    widths = np.diff(interval(model, way))[:, 0]
    assert (np.diff(widths) > 0).all()
    assert leverage(model, x.mean(axis=0)[None])[0] == pytest.approx(1 / 60)
    assert np.diff(interval(model, x, level=0.99)).min() > np.diff(interval(model, x)).max() * 1.3


def test_chances_and_intervals_are_one_distribution():
    x, y = rows()
    model = train(x, y)
    low, high = interval(model, x[:5], level=0.9).T
    for limit, chance in ((low, 0.95), (predict(model, x[:5]), 0.5), (high, 0.05)):
        found = [chance_above(model, x[[i]], limit[i])[0] for i in range(5)]
        np.testing.assert_allclose(found, chance)


def test_a_stronger_ridge_shrinks_the_weights_and_fits_less_closely():
    x, y = rows()
    models = [train(x, y, ridge=r) for r in (0.0, 1.0, 10.0, 100.0, 1e9)]
    sizes = [(m.weights**2).sum() for m in models]
    errors = [rmse(predict(m, x), y) for m in models]
    freedoms = [m.freedom for m in models]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 1e-9
    assert errors == sorted(errors) and errors[-1] == pytest.approx(y.std())
    assert freedoms == sorted(freedoms) and freedoms[-1] == pytest.approx(59)


def test_powers_are_columns():
    np.testing.assert_array_equal(powers(np.array([2.0, 3.0]), 3), [[2, 4, 8], [3, 9, 27]])


def test_training_leaves_its_input_alone():
    x, y = rows()
    before = x.copy(), y.copy()
    train(x, y, ridge=1.0)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


# ---------------------------------------------------------------- bad input


def test_bad_input_is_named():
    x, y = rows()
    model = train(x, y)
    with pytest.raises(ValueError, match="expected rows of 4 numbers, got 7"):
        predict(model, np.zeros((2, 7)))
    with pytest.raises(ValueError, match=r"expected shape \(n, 4\), got \(4,\)"):
        predict(model, x[0])
    with pytest.raises(ValueError, match="got NaN: fill in"):
        predict(model, np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match=r"got \(60, 4\) and \(59,\)"):
        train(x, y[:-1])
    with pytest.raises(ValueError, match="got NaN: fill in"):
        train(x, np.where(y > 2, np.nan, y))
    with pytest.raises(ValueError, match="expected ridge >= 0, got -1"):
        train(x, y, ridge=-1)
    with pytest.raises(ValueError, match="5 columns, but only 4 of them"):
        train(np.column_stack([x, x[:, 0] + x[:, 1]]), y)
    with pytest.raises(ValueError, match="5 rows leave nothing"):
        train(x[:5], y[:5])


def test_a_blank_column_is_forgiven_with_a_ridge():
    x, y = rows()
    blank = np.column_stack([x, np.full(60, 7.0)])
    model = train(blank, y, ridge=1.0)
    assert model.weights[-1] == 0
    np.testing.assert_allclose(predict(model, blank), predict(train(x, y, ridge=1.0), x))


# ---------------------------------------------------------------- data, choices, study


def test_every_patient_is_once_on_one_side_in_clinical_units():
    split = load_split(seed=3)
    x, y = load_diabetes(return_X_y=True, scaled=False)
    assert split.x_train.shape == (342, 10) and split.x_test.shape == (100, 10)
    both = np.column_stack(
        [np.vstack([split.x_train, split.x_test]), [*split.y_train, *split.y_test]]
    )
    key = np.lexsort(both.T)
    whole = np.column_stack([x, y])
    np.testing.assert_array_equal(both[key], whole[np.lexsort(whole.T)])
    assert (load_split(seed=4).y_test != split.y_test).any()
    assert not np.isin(bent(seed=1).x_test[:, 0], bent(seed=1).x_train[:, 0]).any()


def test_the_ridge_is_chosen_on_rows_that_were_left_out():
    """On its own rows the weakest penalty always wins; y that is noise wants the strongest."""
    x, noise = np.split(np.random.default_rng(0).normal(size=(40, 16)), [15], axis=1)
    assert choose_ridge(x, noise[:, 0], [1e-3, 1.0, 1e4]) == 1e4
    x, y = rows(n=40, noise=0.01)
    assert choose_ridge(x, y, [1e-3, 1.0, 1e4]) == 1e-3


def test_redraws_differ_follow_the_seed_and_use_the_ridge():
    x, y = rows()
    found = redraw(x, y, rows=30, times=4, ridge=0.0, seed=1)
    assert found.shape == (4, 4) and (found.std(axis=0) > 0).all()
    np.testing.assert_array_equal(found, redraw(x, y, rows=30, times=4, ridge=0.0, seed=1))
    assert (found != redraw(x, y, rows=30, times=4, ridge=0.0, seed=2)).any()
    tight = redraw(x, y, rows=30, times=4, ridge=1e6, seed=1)
    assert np.abs(tight).max() < 0.01


@pytest.mark.parametrize("name", ["mean", "BMI alone", "least squares", "ridge"])
def test_contenders_answer_each_row_alone(name):
    """An answer that changes with the other rows to be answered has seen them."""
    x, y, new, _ = load_split()
    answer = contenders()[name]
    np.testing.assert_allclose(answer(x, y, new[:5]), answer(x, y, new)[:5])


def test_coverage_counts_all_and_by_thirds():
    split = load_split()
    shares = coverage(split, level=0.5)
    low, high = interval(train(*split[:2]), split.x_test, level=0.5).T
    assert shares[0] == ((low <= split.y_test) & (split.y_test <= high)).mean()
    assert shares[0] == pytest.approx((34 * shares[1] + 33 * shares[2] + 33 * shares[3]) / 100)
    assert coverage(split, level=1 - 1e-9).min() == 1


@pytest.mark.bar
def test_study_runs_at_a_tiny_size(capsys):
    result = study(seeds=2, bends=1, intervals=5)
    assert "boosted trees" in capsys.readouterr().out
    assert result["least_squares"]["gap"] == 0
    assert result["boosted_trees"]["bent"] > result["least_squares"]["bent"]
    assert result["mean"]["gap"] > 10


# ---------------------------------------------------------------- bars


@pytest.mark.bar
def test_patients():
    splits = [load_split(seed=seed) for seed in range(20)]
    errors = [rmse(predict(train(*s[:2]), s.x_test), s.y_test) for s in splits]
    inside = np.array([coverage(s) for s in splits])
    assert np.mean(errors) <= 56
    assert inside[:, 0].mean() == pytest.approx(0.9, abs=0.02)
    assert inside[:, 1].mean() > inside[:, 3].mean() + 0.05, "the page says that it is uneven"


@pytest.mark.bar
def test_weights_flip_and_a_ridge_calms_them():
    """The failure that the page shows; if it goes away, the page must change."""
    split = load_split()
    loose, calm = (redraw(*split[:2], rows=100, times=300, ridge=r)[:, 5] for r in (0.0, 10.0))
    assert 0.2 < (loose < 0).mean() < 0.5
    assert calm.std() < loose.std() / 4
