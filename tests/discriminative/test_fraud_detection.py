"""Fraud detection: equal to scikit-learn, honest about probabilities, and priced as promised."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve

from snippets.discriminative.fraud_detection import (
    average_precision,
    calibration_error,
    contenders,
    cost,
    draw_crowd,
    lowered,
    precision_recall,
    predict_proba,
    quality,
    rare,
    simulate,
    study,
    train,
    train_boosting,
    tumours,
    undo_weights,
)
from snippets.shared import plots


@pytest.fixture(scope="module")
def payments():
    return simulate(4000, share=0.05, seed=0)


def straight(n=40_000, seed=0):
    """A rare class whose log odds are truly a straight line: p is known."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    p = expit(x @ [1.5, -1.0] - 3.5)
    return x, (rng.random(n) < p).astype(int), p


# ---------------------------------------------------------------- data


def test_payments_are_as_the_page_says():
    data = simulate(20_000, seed=3)
    assert data.y.sum() == 260 and data.x.shape == (20_000, 7)
    np.testing.assert_array_equal(data.y, data.kind > 0)
    np.testing.assert_allclose(np.log(data.amount), data.x[:, 0])
    shares = np.bincount(data.kind, minlength=4)[1:] / 260
    np.testing.assert_allclose(shares, [0.35, 0.4, 0.25], atol=0.08)
    honest, test, spree, _ = (data.x[data.kind == k] for k in range(4))
    assert np.median(np.exp(test[:, 0])) < 4 < np.median(np.exp(honest[:, 0])) < 40
    assert np.median(np.exp(spree[:, 0])) > 120
    assert spree[:, 2].mean() > honest[:, 2].mean() + 3
    assert test[:, 3].mean() > 2 > honest[:, 3].mean()
    assert test[:, 6].min() == 1 and set(data.x[:, 6]) == {0, 1}
    assert (data.x[:, 1] >= 0).all() and (data.x[:, 1] < 24).all()


def test_payments_follow_the_seed():
    first, again, other = (simulate(500, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.x, again.x)
    assert (first.x != other.x).any()


def test_tumours_are_thinned_and_no_row_is_on_both_sides():
    x, benign = load_breast_cancer(return_X_y=True)
    split = tumours(seed=4)
    assert split.y_train.sum() == 20 and split.y_test.sum() == 10
    assert len(split.y_train) + len(split.y_test) == 357 + 30
    where = {row.tobytes(): int(label) for row, label in zip(x, benign)}
    seen = [row.tobytes() for row in np.vstack([split.x_train, split.x_test])]
    assert len(set(seen)) == len(seen)
    labels = np.append(split.y_train, split.y_test)
    np.testing.assert_array_equal(labels, [1 - where[row] for row in seen])
    kept = []
    for seed in (4, 5):
        part = tumours(seed=seed)
        malignant = [part.x_train[part.y_train == 1], part.x_test[part.y_test == 1]]
        kept.append({row.tobytes() for row in np.vstack(malignant)})
    assert len(kept[0]) == 30 and len(kept[0] & kept[1]) < 15
    with pytest.raises(ValueError, match="expected 6 to 212 kept, got 300"):
        tumours(kept=300)


# ---------------------------------------------------------------- models


def test_training_is_on_standardised_features(payments):
    model = train(payments.x, payments.y, c=0.5)
    z = (payments.x - payments.x.mean(axis=0)) / payments.x.std(axis=0)
    oracle = LogisticRegression(C=0.5, max_iter=1000).fit(z, payments.y)
    np.testing.assert_allclose(predict_proba(model, payments.x), oracle.predict_proba(z), atol=1e-6)


def test_balanced_weights_are_those_of_repeated_rows():
    """A class of a quarter counts three times, scaled: so does repeating its rows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 2)), np.repeat([0, 0, 0, 1], 20)
    x[y == 1] += 1
    heavy = train(x, y, weights="balanced")
    z = heavy[0].transform(x)
    repeats = np.where(y == 1, 2.0, 2 / 3)
    oracle = LogisticRegression(max_iter=1000).fit(z, y, sample_weight=repeats)
    np.testing.assert_allclose(predict_proba(heavy, x), oracle.predict_proba(z), atol=1e-5)


def test_boosting_bends_where_a_straight_line_cannot(payments):
    """Tiny and huge amounts are fraud, middling ones are not."""
    new = simulate(4000, share=0.05, seed=1)
    bent, line = train_boosting(payments.x, payments.y), train(payments.x, payments.y)
    scores = [average_precision(rare(model, new.x), new.y) for model in (bent, line)]
    assert scores[0] > scores[1] + 0.1
    again = train_boosting(payments.x, payments.y)
    np.testing.assert_array_equal(rare(bent, new.x), rare(again, new.x))


def test_weights_reach_boosting(payments):
    plain, heavy = (train_boosting(payments.x, payments.y, weights=w) for w in (None, "balanced"))
    assert rare(heavy, payments.x).mean() > 2 * rare(plain, payments.x).mean()


def test_bad_input_is_named(payments):
    model = train(payments.x, payments.y)
    with pytest.raises(ValueError, match="expected rows of 7 columns, got 3"):
        predict_proba(model, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="expected a table of rows"):
        predict_proba(model, np.zeros(7))
    for fit in (train, train_boosting):
        with pytest.raises(ValueError, match="expected 4000 labels"):
            fit(payments.x, payments.y[:-1])
        with pytest.raises(ValueError, match="each at least once"):
            fit(payments.x, np.zeros(4000))
    with pytest.raises(ValueError, match="and some fraud"):
        precision_recall(np.ones(3), np.zeros(3))


# ---------------------------------------------------------------- ranking


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_precision_and_recall_are_scikit_learns(cases):
    p = np.array([score / 5 for score, _ in cases])
    y = np.array([fraud for _, fraud in cases], dtype=int)
    y[0] = 1
    precision, recall = precision_recall(p, y)
    theirs, depth, _ = precision_recall_curve(y, p)
    np.testing.assert_allclose(precision, theirs[:-1][::-1])
    np.testing.assert_allclose(recall, depth[:-1][::-1])
    assert average_precision(p, y) == pytest.approx(average_precision_score(y, p))


def test_average_precision_by_hand_and_of_a_lot():
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])) == (
        pytest.approx((1 + 2 / 3) / 2)
    )
    y = np.zeros(1000, int)
    y[:13] = 1
    assert average_precision(np.full(1000, 0.2), y) == pytest.approx(0.013)


def test_precision_is_that_of_the_formula_on_the_page():
    share, recall, false = 0.2, 0.75, 0.25
    p = np.concatenate([np.full(15, 0.9), np.full(5, 0.1), np.full(20, 0.9), np.full(60, 0.1)])
    y = np.repeat([1, 0], [20, 80])
    precision, _ = precision_recall(p, y)
    formula = share * recall / (share * recall + (1 - share) * false)
    assert precision[0] == pytest.approx(formula)


# ---------------------------------------------------------------- calibration


def test_calibration_error_by_hand():
    p, y = np.array([0.02, 0.04, 0.31, 0.39, 1.0]), np.array([0, 1, 0, 0, 1])
    assert calibration_error(p, y) == pytest.approx((abs(0.06 - 1) + 0.7 + 0) / 5)


def test_calibration_error_sees_what_the_top_class_hides():
    """p = .3 where one in a hundred is fraud; and base rates for all are perfectly calibrated."""
    y = np.zeros(1000, int)
    y[:10] = 1
    assert calibration_error(np.full(1000, 0.3), y) == pytest.approx(0.29)
    assert calibration_error(np.full(1000, 0.01), y) == pytest.approx(0)


@given(st.floats(1e-6, 0.999), st.floats(0.001, 0.5))
def test_undoing_divides_the_odds(p, share):
    undone = undo_weights(np.array([p]), share)[0]
    assert logit(undone) == pytest.approx(logit(p) - np.log((1 - share) / share), abs=1e-6)


def test_undone_weights_are_the_truth_where_the_line_is_straight():
    x, y, truth = straight()
    heavy = rare(train(x, y, weights="balanced"), x)
    assert calibration_error(heavy, y) > 0.1
    undone = undo_weights(heavy, y.mean())
    assert np.abs(undone - truth).mean() < 0.005
    assert calibration_error(undone, y) < 0.01
    assert np.isfinite(undo_weights(np.array([0.0, 1.0]), 0.01)).all()


def test_undoing_keeps_the_order():
    p = np.random.default_rng(0).random(50)
    np.testing.assert_array_equal(np.argsort(undo_weights(p, 0.02)), np.argsort(p))


# ---------------------------------------------------------------- price


def test_cost_by_hand():
    p, y = np.array([0.9, 0.1, 0.9, 0.1]), np.array([1, 1, 0, 0])
    assert cost(p, y, above=0.5) == 1000 * (2 * 3 + 120) / 4
    assert cost(p, y, above=0.5, missed=10, alarm=1) == 1000 * 12 / 4
    assert cost(p, y, above=1) == 1000 * 240 / 4


def test_with_true_probabilities_the_price_gives_the_threshold():
    _, y, p = straight(n=200_000)
    prices = {above: cost(p, y, above=above) for above in (0.003, 0.01, 3 / 120, 0.06, 0.5)}
    assert min(prices, key=prices.get) == 3 / 120


def test_quality_by_hand():
    p, y = np.array([0.9, 0.04, 0.01, 0.03]), np.array([1, 1, 0, 0])
    row = quality(p, y, above=3 / 120)
    assert (row["accuracy"], row["caught"], row["alarms"]) == (0.75, 1, 0.75)
    assert row["even"] == 1000 * (3 + 120) / 4 and row["priced"] == 1000 * 9 / 4
    assert row["ap"] == 1


# ---------------------------------------------------------------- contenders, study


def test_contenders_learn_from_the_training_part_alone(payments):
    new = simulate(1000, share=0.05, seed=1)
    rivals = contenders(payments.x, payments.y)
    p = {name: ask(new.x) for name, ask in rivals.items()}
    assert len(p) == 8 and all(len(q) == 1000 for q in p.values())
    np.testing.assert_allclose(p["never"], payments.y.mean())
    alone = rivals["class Gaussians"](new.x[:3])
    np.testing.assert_allclose(alone, p["class Gaussians"][:3])
    # Weights inflate; either repair brings the mean back to the share.
    assert p["balanced weights"].mean() > 0.2
    for name in ("weights + sigmoid", "undone weights", "logistic"):
        assert abs(p[name].mean() - new.y.mean()) < 0.02, name


def test_lowered_counts_draws():
    table = [[0, 0.5], [0, 0.7]]
    found = {"logistic": table, "balanced weights": [[0, 0.4], [0, 0.8]]}
    found |= {"boosting": table, "boosting, balanced": [[0, 0.1], [0, 0.1]]}
    assert lowered(found) == {"logistic": 1, "boosting": 2}


def test_the_crowd_counts():
    _, axes = plots.subplots()
    precision = draw_crowd(0.01, 0.8, 0.05, axes)
    dots = [len(cloud.get_offsets()) for cloud in plt.gca().collections]
    assert dots == [1000, 10, 8 + 50]  # 49.5 honest ones, rounded
    assert precision == 8 / 58
    fraud, rings = ({tuple(at) for at in c.get_offsets()} for c in plt.gca().collections[1:])
    assert len(fraud & rings) == 8


def test_study_runs_at_a_tiny_size(capsys):
    result = study(seeds=1, n=2000)
    assert "undone weights" in capsys.readouterr().out
    assert result["payments"]["never"]["accuracy"] == pytest.approx(0.987)
    assert result["tumours"]["never"]["caught"] == 1  # the share is above 1/40
    assert result["tumours"]["never"]["priced"] == pytest.approx(3000)


# ---------------------------------------------------------------- bars


@pytest.mark.bar
def test_tumours():
    rows = []
    for seed in range(10):
        split = tumours(seed=seed)
        p = rare(train(split.x_train, split.y_train), split.x_test)
        rows.append((average_precision(p, split.y_test), calibration_error(p, split.y_test)))
    ap, ece = np.mean(rows, axis=0)
    assert ap >= 0.95
    assert ece <= 0.02


@pytest.mark.bar
def test_weights_spoil_and_repairs_repair():
    """What the page says of 1.3 % fraud; if it goes away, the page must change."""
    past, new = simulate(seed=0), simulate(seed=1)
    rivals = contenders(past.x, past.y)
    row = {name: quality(ask(new.x), new.y, above=3 / 120) for name, ask in rivals.items()}
    assert row["balanced weights"]["ap"] < row["logistic"]["ap"] < row["boosting"]["ap"]
    assert row["boosting"]["ap"] >= 0.6
    assert row["balanced weights"]["ece"] > 0.2
    for name in ("logistic", "weights + sigmoid", "undone weights", "boosting"):
        assert row[name]["ece"] < 0.005, name
    assert row["balanced weights"]["priced"] > row["never"]["priced"] > row["logistic"]["priced"]
    assert row["logistic"]["accuracy"] - row["never"]["accuracy"] < 0.003
