"""The comparison is fair (same rows, no leak), and the two fits are what they say they are."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from snippets.choosing import data_efficiency as de

GAP, FEATURES = 0.7, 20


@pytest.fixture
def rows():
    """Three overlapping classes in four features of unlike scale and share."""
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1, 2], [30, 50, 20])
    return rng.normal(size=(100, 4)) * [1, 2, 0.5, 1] + np.eye(3, 4)[y], y


# ---------------------------------------------------------------- the two fits


def test_the_generative_posterior_is_bayes_rule_on_normal_densities(rows):
    x, y = rows
    model = de.train_generative(x, y, floor=0.02)
    spread = np.sqrt(sum(len(x[y == k]) * x[y == k].var(0) for k in range(3)) / 100 + 0.02)
    joint = np.column_stack(
        [(y == k).mean() * stats.norm.pdf(x, x[y == k].mean(0), spread).prod(1) for k in range(3)]
    )
    expected = joint / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(de.predict_proba(model, x), expected, atol=1e-12)


def test_the_generative_logit_is_linear_with_the_derived_slope(rows):
    x, y = rows
    model = de.train_generative(x, y, floor=0)
    log_p = np.log(de.predict_proba(model, x))
    within = np.mean([(v - x[y == k].mean(0)) ** 2 for v, k in zip(x, y)], axis=0)
    slope = (x[y == 1].mean(0) - x[y == 0].mean(0)) / within
    step = np.log(de.predict_proba(model, x + np.eye(4)[2])) - log_p
    np.testing.assert_allclose(step[:, 1] - step[:, 0], slope[2], atol=1e-9)


class Diagonal(BaseEstimator):
    def fit(self, x):
        self.covariance_ = np.diag(x.var(0))
        return self


def test_the_generative_fit_is_discriminant_analysis_with_a_diagonal_covariance(rows):
    x, y = rows
    oracle = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Diagonal()).fit(x, y)
    p = de.predict_proba(de.train_generative(x, y, floor=0), x)
    np.testing.assert_allclose(p, oracle.predict_proba(x), atol=1e-10)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [0.5, np.inf])
def test_the_discriminative_fit_is_scikit_learns(rows, classes, c):
    x, y = (v[rows[1] < classes] for v in rows)
    oracle = LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(x, y)
    model = de.train_discriminative(x, y, c=c, tol=1e-8)
    np.testing.assert_allclose(de.predict_proba(model, x), oracle.predict_proba(x), atol=1e-9)
    assert model.weights.shape == (4, classes)


def test_the_unpenalised_fit_has_no_slope_left(rows):
    """At the maximum of the likelihood the errors are orthogonal to every feature and to 1."""
    x, y = rows
    error = de.predict_proba(de.train_discriminative(x, y, tol=1e-8), x) - np.eye(3)[y]
    assert np.abs(x.T @ error / 100).max() < 1e-5
    assert np.abs(error.mean(0)).max() < 1e-5


def test_both_fits_return_the_same_kind_of_model(rows):
    a, b = de.train_generative(*rows), de.train_discriminative(*rows)
    assert type(a) is type(b) is de.Linear
    assert a.weights.shape == b.weights.shape == (4, 3)
    assert a.bias.shape == b.bias.shape == (3,)


def test_the_floor_keeps_a_feature_that_agrees_by_chance_from_deciding_alone():
    x = np.array([[1.0, 0.2], [1.0, -1.4], [-1.0, 1.5], [-1.0, -0.3]])
    model = de.train_generative(x, [1, 1, 0, 0])
    assert np.isfinite(model.weights).all()
    assert model.weights[0, 1] == pytest.approx(1 / 0.01)


@pytest.mark.parametrize("name", ["naive_bayes", "logistic", "logistic_c1", "gaussian_nb"])
def test_every_contender_gives_probabilities(rows, name):
    p = de.predict_proba(de.trainers()[name](*rows), rows[0])
    assert p.shape == (100, 3)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(1), 1)


def test_only_one_contender_is_penalised(rows):
    fits = de.trainers()
    size = {name: np.abs(fits[name](*rows).weights).sum() for name in ("logistic", "logistic_c1")}
    assert size["logistic_c1"] < size["logistic"]
    for name, fit in (("logistic", de.train_discriminative), ("naive_bayes", de.train_generative)):
        np.testing.assert_array_equal(fits[name](*rows).weights, fit(*rows).weights)


def test_without_a_penalty_separable_rows_give_weights_without_end():
    x, y = de.world(20, 0, seed=1)

    def size(**options):
        return np.linalg.norm(de.train_discriminative(x, y, **options).weights)

    sizes = [size(tol=tol) for tol in (1e-2, 1e-5, 1e-8)]
    held = [size(c=1, tol=tol) for tol in (1e-5, 1e-8)]
    assert sizes[1] > 1.5 * sizes[0] and sizes[2] > 1.3 * sizes[1]
    assert held[1] == pytest.approx(held[0], rel=0.01)


# ---------------------------------------------------------------- the draws


@given(st.lists(st.integers(0, 3), min_size=40, max_size=90), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_beginning_has_the_classes_in_proportion(labels, seed):
    y = np.array(labels)
    order = de.stratified_order(y, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(y)))
    for k in np.unique(y):
        have = np.cumsum(y[order] == k)
        share = (y == k).mean()
        off = np.abs(have - share * np.arange(1, len(y) + 1)).max()
        assert off < 1 + share * len(np.unique(y))


def test_balanced_classes_appear_equally_often_in_every_draw():
    x, y, sizes = de.tables()["iris"]
    for *_, y_train, _, _ in de.paired_draws(x, y, sizes, draws=5):
        assert len(set(np.bincount(y_train, minlength=3))) == 1


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "digits"])
def test_each_class_appears_in_every_training_set(name):
    x, y, sizes = de.tables()[name]
    for *_, y_train, _, y_test in de.paired_draws(x, y, sizes[:2] + sizes[-1:], draws=40):
        assert len(np.unique(y_train)) == len(np.unique(y)) == len(np.unique(y_test))


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
def test_each_class_has_two_rows_so_that_a_vote_can_be_held(name):
    x, y, sizes = de.tables()[name]
    for *_, y_train, _, _ in de.paired_draws(x[:, :2], y, (sizes[0], sizes[-1]), draws=60, seed=1):
        assert np.bincount(y_train).min() >= 2


def numbered(n=40):
    """Rows that can be recognised after scaling: the second feature is its row's number."""
    return np.column_stack([np.random.default_rng(0).normal(size=n), np.arange(n)]).astype(float)


def used(x_train, x_test):
    """The order of the row numbers, training first: scaling keeps it."""
    return np.argsort(np.argsort(np.concatenate([x_train[:, 1], x_test[:, 1]])))


def test_training_sets_are_nested_and_no_row_is_trained_and_tested_on():
    y = np.arange(40) % 2
    for draw in range(3):
        order = de.stratified_order(y, np.random.default_rng([0, draw]))
        got = [g for g in de.paired_draws(numbered(), y, (6, 10, 20), draws=3) if g[0] == draw]
        assert [g[1] for g in got] == [0, 1, 2]
        for (_, _, x_train, y_train, x_test, y_test), n in zip(got, (6, 10, 20)):
            assert len(x_train) == len(y_train) == n and len(x_test) == len(y_test) == 20
            rows = np.concatenate([order[:n], order[20:]])
            np.testing.assert_array_equal(used(x_train, x_test), np.argsort(np.argsort(rows)))
            np.testing.assert_array_equal(y_train, y[order[:n]])
            np.testing.assert_array_equal(y_test, y[order[20:]])


def test_draws_differ_from_one_another_and_repeat_with_the_seed(rows):
    def firsts(seed):
        return [d[2][0, 0] for d in de.paired_draws(*rows, (10,), draws=4, seed=seed)]

    assert len(set(firsts(0))) == 4
    assert firsts(0) == firsts(0) != firsts(1)


def test_nothing_of_the_test_rows_leaks_into_training(rows):
    x, y = rows
    order = de.stratified_order(y, np.random.default_rng([0, 0]))
    spoilt = x.copy()
    spoilt[order[10:]] *= 1000
    before, after = (next(de.paired_draws(v, y, (10, 50), draws=1)) for v in (x, spoilt))
    np.testing.assert_array_equal(before[2], after[2])


def test_both_parts_are_scaled_by_the_training_rows(rows):
    x, y = rows
    for _, _, x_train, _, x_test, _ in de.paired_draws(x, y, (10, 50), draws=2):
        np.testing.assert_allclose(x_train.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(x_train.std(0), 1)
        assert np.abs(x_test.mean(0)).max() > 1e-3
    order = de.stratified_order(y, np.random.default_rng([0, 0]))
    _, _, _, _, x_test, _ = next(de.paired_draws(x, y, (10, 50), draws=1))
    own = x[order[:10]]
    np.testing.assert_allclose(x_test * own.std(0) + own.mean(0), x[order[50:]])


def test_a_feature_that_never_varies_is_left_at_zero(rows):
    x = np.column_stack([rows[0], np.full(100, 7.0)])
    _, _, x_train, _, x_test, _ = next(de.paired_draws(x, rows[1], (10,), draws=1))
    assert not x_train[:, 4].any() and not x_test[:, 4].any()


def test_every_trainer_sees_the_same_rows(rows):
    seen = {"a": [], "b": []}

    def spy(name):
        def fit(x, y):
            seen[name].append((x.copy(), y.copy()))
            return de.train_generative(x, y)

        return fit

    curves = de.learning_curve(*rows, {n: spy(n) for n in seen}, (12, 30), draws=3)
    assert len(seen["a"]) == 6
    for a, b in zip(*seen.values()):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    np.testing.assert_array_equal(curves["a"], curves["b"])
    assert curves["a"].shape == (3, 2)


def test_a_curve_is_the_score_on_the_test_rows(rows):
    fits = {"nb": de.train_generative}
    curve = de.learning_curve(*rows, fits, (12, 30), draws=2, score=lambda p, y: float(len(y)))
    assert (curve["nb"] == 70).all()
    _, j, x, y, x_test, y_test = list(de.paired_draws(*rows, (12, 30), draws=2))[3]
    right = (de.predict_proba(de.train_generative(x, y), x_test).argmax(1) == y_test).mean()
    assert de.learning_curve(*rows, fits, (12, 30), draws=2)["nb"][1, j] == right


# ---------------------------------------------------------------- the comparison


def test_the_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.9, 0.02, 40), rng.normal(0.89, 0.03, 40)
    oracle = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose(de.interval(a - b), [(a - b).mean(), oracle.low, oracle.high])
    wide = de.interval(a - b, level=0.99)
    assert wide[1] < oracle.low and wide[2] > oracle.high


def test_the_interval_covers_the_truth_as_often_as_it_says():
    values = np.random.default_rng(1).normal(size=(8, 4000))
    _, low, high = de.interval(values)
    assert ((low < 0) & (high > 0)).mean() == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    "sizes, gap, expected",
    [
        ((1, 10, 1000), (3, 1, -1), 100),
        ((1, 10, 100, 1000), (3, -1, 2, -2), 100 * 10**0.5),
        ((1, 10, 100), (-1, 3, -1), 10 * 10**0.75),
        ((1, 10, 100), (1, -1, 1), np.inf),
        ((1, 10, 100), (-1, -2, -3), 0),
    ],
)
def test_the_crossing_is_where_the_gap_turns_negative_for_good(sizes, gap, expected):
    assert de.crossing(sizes, np.array(gap, dtype=float)) == pytest.approx(expected)


def test_the_drawing_shows_the_mean_gap_in_points_and_where_it_turns():
    gap = np.random.default_rng(0).normal(0.05, 0.01, (40, 3)) - [0, 0.05, 0.1]
    de.draw_gaps({"a": ((10, 20, 40), gap), "b": ((10, 20), np.abs(gap[:, :2]))})
    axes = de.plt.gca()
    lines = {tuple(np.round(line.get_ydata(), 9)) for line in axes.lines}
    assert tuple(np.round(100 * gap.mean(0), 9)) in lines
    assert {t.get_text() for t in axes.texts} == {"a", "b"}
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(100 * de.interval(gap)[1].min())
    rings = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    assert rings == [de.crossing((10, 20, 40), gap.mean(0))]
    de.plt.close("all")


# ---------------------------------------------------------------- the artificial world


@pytest.mark.parametrize("rho", [0.0, 0.4])
def test_the_world_keeps_each_feature_and_correlates_the_noise(rho):
    x, y = de.world(60_000, rho)
    noise = x - np.outer(y - 0.5, GAP * (np.arange(FEATURES) < 10))
    assert y.mean() == 0.5
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(noise.var(0), 1, atol=0.03)
    correlation = np.corrcoef(noise.T)[np.triu_indices(FEATURES, 1)]
    np.testing.assert_allclose(correlation, rho, atol=0.02)


def limits(rho):
    """Accuracy of the best linear rule, and of naive Bayes, when rows never end."""
    delta = GAP * (np.arange(FEATURES) < FEATURES / 2)
    noise = (1 - rho) * np.eye(FEATURES) + rho
    best = np.sqrt(delta @ np.linalg.solve(noise, delta)) / 2
    naive = delta @ delta / np.sqrt(delta @ noise @ delta) / 2
    return stats.norm.cdf(best), stats.norm.cdf(naive)


@pytest.mark.parametrize("rho", [0.0, 0.4])
def test_with_endless_rows_each_fit_reaches_its_own_limit(rho):
    x, y = de.world(50_000, rho)
    new, truth = de.world(50_000, rho, seed=1)
    for fit, limit in zip((de.train_discriminative, de.train_generative), limits(rho)):
        accuracy = (de.predict_proba(fit(x, y), new).argmax(1) == truth).mean()
        assert accuracy == pytest.approx(limit, abs=0.007)


def gaps(rho, sizes, draws=12):
    x, y = de.world(1500, rho)
    fits = {k: de.trainers()[k] for k in ("naive_bayes", "logistic")}
    curves = de.learning_curve(x, y, fits, sizes, draws=draws)
    return de.interval(curves["naive_bayes"] - curves["logistic"])


def test_naive_bayes_leads_on_few_rows_when_its_assumption_is_true():
    assert (gaps(0.0, (20, 40))[1] > 0).all()


def test_logistic_regression_leads_on_many_rows_when_it_is_not():
    assert gaps(0.4, (300,))[2] < -0.05


@pytest.mark.bar
def test_the_more_the_assumption_breaks_the_earlier_the_curves_cross():
    sizes = (10, 20, 40, 80, 160, 320, 640)
    where = [de.crossing(sizes, gaps(rho, sizes, draws=40)[0]) for rho in (0, 0.1, 0.2, 0.4)]
    assert where[0] == np.inf and where[3] == 0
    assert 160 > where[1] > 90 > where[2] > 40


# ---------------------------------------------------------------- rules and study


def test_the_vote_prefers_what_predicts_rows_it_was_not_trained_on():
    x, y = de.world(60, 0, gap=1.5)
    fits = {"wrong": lambda x, y: de.train_generative(x, 1 - y), "right": de.train_generative}
    vote = de.train_by_vote(x, y, fits)
    np.testing.assert_array_equal(vote.weights, de.train_generative(x, y).weights)
    by_heart = {"by_heart": lambda x, y: ByHeart(x, y), "right": de.train_generative}
    assert isinstance(de.train_by_vote(x, y, by_heart), de.Linear)


class ByHeart:
    """Right on every row that it has seen, and at chance on others."""

    def __init__(self, x, y):
        self.known = {row.tobytes(): label for row, label in zip(x, y)}

    def predict_proba(self, x):
        return np.eye(2)[[self.known.get(row.tobytes(), 0) for row in x]]


def test_the_rules_name_contenders():
    names = {*de.trainers(), "nearest", "vote"}
    for rule, pick in de.rules().items():
        assert {pick(n, d) for n in (6, 99, 100, 1000) for d in (4, 64)} <= names, rule
    thumb = de.rules()["naive Bayes below 100 rows"]
    assert (thumb(99, 4), thumb(100, 4)) == ("naive_bayes", "logistic")


def test_the_study_costs_a_rule_what_the_best_contender_gains(capsys):
    x, y, _ = de.tables()["iris"]
    result = de.study(draws=2, cells={"iris": (x, y, (12, 30))})
    cell = result["iris"]["n12"]
    fixed = ("naive_bayes", "logistic", "logistic_c1", "nearest")
    table = result["cost"]["logistic_always"]
    regrets = [100 * (max(c[k] for k in fixed) - c["logistic"]) for c in result["iris"].values()]
    assert {*cell} == {*fixed, "vote", "separable"}
    assert table == pytest.approx({"mean": np.mean(regrets), "worst": max(regrets)})
    assert "iris" in capsys.readouterr().out


@pytest.mark.bar
@pytest.mark.parametrize(
    "name, n, low, high",
    [
        ("iris", 6, 4, 15),
        ("breast_cancer", 300, -3.5, -1),
        ("digits", 1000, -7.5, -5),
        ("wine", 120, -3.5, -0.5),
    ],
)
def test_the_gaps_on_real_tables(name, n, low, high):
    x, y, _ = de.tables()[name]
    fits = {k: de.trainers()[k] for k in ("naive_bayes", "logistic")}
    curves = de.learning_curve(x, y, fits, (n,), draws=20)
    mean, below, above = 100 * de.interval(curves["naive_bayes"] - curves["logistic"])[:, 0]
    assert low < mean < high
    assert below > 0 or above < 0


@pytest.mark.parametrize("gap, share", [(50, 1), (0.1, 0)])
def test_rows_are_separable_when_a_linear_rule_gets_all_of_them_right(gap, share):
    x, y = de.world(120, 0, features=2, gap=gap)
    assert de.share_separable(x, y, (4, 60), 1, draws=3) == share


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("fit", [de.train_generative, de.train_discriminative])
@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda x, y: (x, y + 1), r"expected labels 0, 1, \.\.\. K-1.*got \[1 2 3\]"),
        (lambda x, y: (x, np.where(y == 1, 0, y)), r"got \[0 2\]"),
        (lambda x, y: (np.where(x > 2, np.nan, x), y), "NaN"),
        (lambda x, y: (x[:-1], y), "inconsistent numbers of samples"),
        (lambda x, y: (x[:, 0], y), "2D array"),
    ],
)
def test_bad_training_rows_are_named(rows, fit, spoil, message):
    with pytest.raises(ValueError, match=message):
        fit(*spoil(*rows))


def test_rows_of_another_width_are_named(rows):
    model = de.train_generative(*rows)
    with pytest.raises(ValueError, match="expected rows of 4 features, got 3"):
        de.predict_proba(model, rows[0][:, :3])
    with pytest.raises(ValueError, match="NaN"):
        de.predict_proba(model, np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match="2D array"):
        de.predict_proba(model, rows[0][0])


@pytest.mark.parametrize(
    "sizes, message",
    [
        ((10, 100), r"expected sizes of 1 to 99, got \(10, 100\)"),
        ((0, 10), "expected sizes"),
        ((2, 10), "2 rows do not hold every class"),
    ],
)
def test_sizes_that_make_no_fair_draw_are_named(rows, sizes, message):
    with pytest.raises(ValueError, match=message):
        list(de.paired_draws(*rows, sizes))


def test_a_vote_needs_two_rows_of_each_class(rows):
    with pytest.raises(ValueError, match="two rows of each class"):
        de.train_by_vote(rows[0][:81], rows[1][:81], de.trainers())


def test_verbs_take_what_every_page_takes():
    for fit in (de.train_generative, de.train_discriminative):
        assert list(inspect.signature(fit).parameters)[:2] == ["x", "y"]
