"""Gaussian mixtures: equal to scikit-learn and scipy, and all that Gaussians promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal, norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from snippets.generative import gaussian_mixtures as gm
from snippets.generative.vae import posterior_mean
from snippets.shared import sample_quality
from snippets.shared.digits import load_split

SPLIT = load_split(seed=0)
FEW = SPLIT.x_train[:400], SPLIT.y_train[:400]
HALF = np.random.default_rng(0).random(SPLIT.x_test.shape) < 0.5


@pytest.fixture(scope="module")
def model():
    return gm.train(*FEW, components=2)


@pytest.fixture(scope="module")
def full():
    return gm.train(SPLIT.x_train, SPLIT.y_train)


def small(seed: int, *, d: int, k: int = 3, ridge: float = 0.0) -> gm.Mixture:
    """A random mixture whose components overlap; labels 0, 1, 1, ..."""
    rng = np.random.default_rng(seed)
    root = rng.normal(0, 0.5, (k, d, d))
    cov = root @ root.swapaxes(1, 2) + 0.1 * np.eye(d) + ridge * np.eye(d)
    label = np.minimum(np.arange(k), 1)
    return gm.Mixture(rng.dirichlet(np.ones(k)), rng.normal(0, 1, (k, d)), cov, label, ridge, None)


def oracle(model: gm.Mixture, x, *, keep=slice(None)) -> np.ndarray:
    """log p(x, k) by scipy, of the coordinates that are kept."""
    parts = [
        multivariate_normal(m[keep], c[keep][:, keep]).logpdf(x[:, keep])
        for m, c in zip(model.mean, model.covariance)
    ]
    return np.array(parts).reshape(len(parts), -1).T + np.log(model.weight)


# ---------------------------------------------------------------- the density


def test_log_joint_and_log_prob_equal_scipy():
    model, x = small(0, d=5), np.random.default_rng(1).normal(0, 1, (20, 5))
    np.testing.assert_allclose(gm.log_joint(model, x), oracle(model, x))
    expected = logsumexp(oracle(model, x), axis=1)
    np.testing.assert_allclose(gm.log_prob(model, x), expected)


@pytest.mark.parametrize("keep", [[0], [1, 3], [0, 2, 3, 4]])
def test_a_hidden_pixel_is_integrated_over(keep):
    model, x = small(0, d=5), np.random.default_rng(1).normal(0, 1, (20, 5))
    hidden = np.ones(x.shape, bool)
    hidden[:, keep] = False
    x[hidden] = np.nan
    np.testing.assert_allclose(gm.log_joint(model, x, hidden), oracle(model, x, keep=keep))


def test_rows_may_hide_different_pixels(model):
    x = SPLIT.x_test[:20]
    together = gm.log_joint(model, x, HALF[:20])
    alone = [gm.log_joint(model, x[[i]], HALF[[i]])[0] for i in range(20)]
    np.testing.assert_allclose(together, alone)


def test_of_nothing_seen_the_probability_is_one_and_the_classes_have_their_prior(model):
    hidden = np.ones((2, 64), bool)
    np.testing.assert_allclose(gm.log_prob(model, SPLIT.x_test[:2], hidden), 0, atol=1e-12)
    prior = np.bincount(FEW[1]) / 400
    p = gm.predict_proba(model, SPLIT.x_test[:2], hidden)
    np.testing.assert_allclose(p, [prior, prior])


@pytest.mark.parametrize("seed", range(3))
def test_the_density_integrates_to_one(seed):
    grid = np.linspace(-9, 9, 601)
    line = np.exp(gm.log_prob(small(seed, d=1), grid[:, None]))
    assert np.trapezoid(line, grid) == pytest.approx(1, abs=1e-6)
    sheet = np.array(np.meshgrid(grid[::2], grid[::2])).reshape(2, -1).T
    total = np.exp(gm.log_prob(small(seed, d=2), sheet)).sum() * (grid[2] - grid[0]) ** 2
    assert total == pytest.approx(1, abs=1e-6)


def test_a_mixture_of_one_is_a_gaussian_and_so_is_one_of_equals():
    x = np.random.default_rng(0).normal(0, 1, (50, 3))
    one = gm.em(x, components=1, ridge=0.02)
    np.testing.assert_allclose(one.mean[0], x.mean(axis=0))
    np.testing.assert_allclose(one.covariance[0], np.cov(x.T, bias=True) + 0.02 * np.eye(3))
    equals = one._replace(
        weight=np.array([0.3, 0.7]),
        mean=np.repeat(one.mean, 2, axis=0),
        covariance=np.repeat(one.covariance, 2, axis=0),
    )
    expected = multivariate_normal(one.mean[0], one.covariance[0]).logpdf(x)
    np.testing.assert_allclose(gm.log_prob(one, x), expected)
    np.testing.assert_allclose(gm.log_prob(equals, x), expected)


# ---------------------------------------------------------------- EM


@pytest.mark.parametrize("steps", [2, 3, 7])
@pytest.mark.filterwarnings("ignore", category=ConvergenceWarning)
def test_every_turn_equals_scikit_learns(steps):
    x = SPLIT.x_train[SPLIT.y_train < 2][:, 20:26]
    ours = gm.em(x, components=3, ridge=0.005, steps=steps, seed=4)
    library = GaussianMixture(3, reg_covar=0.005, max_iter=steps - 1, tol=0, random_state=4)
    library.fit(x)  # it begins with the M step, too, and does not count it
    np.testing.assert_allclose(ours.weight, library.weights_, rtol=1e-8)
    np.testing.assert_allclose(ours.mean, library.means_, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours.covariance, library.covariances_, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(gm.log_prob(ours, x), library.score_samples(x), rtol=1e-8)
    shares = softmax(gm.log_joint(ours, x), axis=1)
    np.testing.assert_allclose(shares, library.predict_proba(x), atol=1e-8)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_em_never_lowers_the_likelihood(seed, components, d):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (80, d)) + 3 * rng.integers(0, 3, (80, 1))
    history = gm.em(x, components=components, ridge=0, steps=15, seed=seed).history
    assert (np.diff(history) >= -1e-9).all()


def test_em_climbs_where_k_means_is_wrong():
    """Two long parallel strands: k-means cuts across them, EM finds them."""
    rng = np.random.default_rng(0)
    strand = np.repeat([0, 1], 200)
    x = np.column_stack([rng.normal(0, 4, 400), 2 * strand + rng.normal(0, 0.3, 400)])
    model = gm.em(x, components=2, ridge=0, steps=100)
    group = gm.log_joint(model, x).argmax(axis=1)
    assert max((group == strand).mean(), (group != strand).mean()) > 0.98
    assert model.history[-1] > model.history[0] + 0.3


def test_history_is_the_mean_log_density_after_each_turn():
    x = SPLIT.x_train[SPLIT.y_train == 3]
    for steps in (1, 3):
        fit = gm.em(x, components=3, steps=steps)
        assert len(fit.history) == steps
        assert fit.history[-1] == pytest.approx(gm.log_prob(fit, x).mean())


def test_m_step_counts_by_hand():
    x, share = np.array([[0.0], [2.0], [4.0]]), np.array([[1.0, 0], [0.5, 0.5], [0, 1.0]])
    fit = gm.m_step(x, share, 0.1)
    np.testing.assert_allclose(fit.weight, [0.5, 0.5])
    np.testing.assert_allclose(fit.mean[:, 0], [2 / 3, 10 / 3])
    np.testing.assert_allclose(fit.covariance[:, 0, 0], [8 / 9 + 0.1] * 2)


def test_an_empty_component_stays_finite():
    fit = gm.m_step(np.ones((4, 2)), np.eye(2)[[0, 0, 0, 0]], 0.1)
    assert all(np.isfinite(part).all() for part in fit[:3])


def test_training_repeats_and_the_seed_matters():
    first, again, other = (gm.train(*FEW, components=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.mean, again.mean)
    assert not np.array_equal(first.mean, other.mean)


def test_components_of_a_class_weigh_as_much_as_the_class(model):
    assert model.weight.sum() == pytest.approx(1)
    for label in range(10):
        share = model.weight[model.label == label].sum()
        assert share == pytest.approx((FEW[1] == label).mean())
    only = FEW[0][FEW[1] == 4]
    alone = gm.em(only, components=2)
    np.testing.assert_allclose(model.mean[model.label == 4], alone.mean)
    expected = np.average(
        [gm.em(FEW[0][FEW[1] == k], components=2).history for k in range(10)],
        axis=0,
        weights=np.bincount(FEW[1]),
    )
    np.testing.assert_allclose(model.history, expected)


# ---------------------------------------------------------------- what goes wrong without a ridge


def test_without_a_ridge_a_class_of_digits_is_singular():
    with pytest.raises(ValueError, match="larger ridge"):
        gm.train(*FEW, components=1, ridge=0)


def test_a_component_on_one_point_makes_the_likelihood_grow_without_limit():
    x = np.array([[0.0, 0], [1, 0], [0, 1], [9, 9]])
    heights = []
    for ridge in 10.0 ** -np.arange(2, 9):
        model = gm.em(x, components=2, ridge=ridge)
        assert sorted(np.round(4 * model.weight)) == [1, 3]
        heights.append(gm.log_prob(model, x[3:])[0])
    # A tenth of the ridge is a tenth of the volume in two dimensions.
    np.testing.assert_allclose(np.diff(heights), np.log(10), rtol=1e-6)


# ---------------------------------------------------------------- labels


def test_classes_add_up_their_components():
    model, x = small(2, d=4, k=3), np.random.default_rng(0).random((30, 4))
    p = np.exp(oracle(model, x))
    expected = np.column_stack([p[:, 0], p[:, 1] + p[:, 2]]) / p.sum(axis=1, keepdims=True)
    got = gm.predict_proba(model, x)
    np.testing.assert_allclose(got, expected)
    np.testing.assert_allclose(got.sum(axis=1), 1)


def test_a_hidden_pixel_cannot_change_the_answer(model):
    x, other = SPLIT.x_test[:30], SPLIT.x_test[30:60]
    changed = np.where(HALF[:30], other, x)
    for verb in (gm.predict_proba, gm.log_prob):
        np.testing.assert_array_equal(
            verb(model, x, HALF[:30]), verb(model, changed, HALF[:30])
        )  # fmt: skip


# ---------------------------------------------------------------- draws


def test_draws_have_the_moments_of_their_component():
    model, rng = small(3, d=3, ridge=0.3), np.random.default_rng(0)
    for keep, taken in ((True, 0), (False, 0.3)):
        x = gm.draw(model, np.full(40_000, 1), rng, keep_ridge=keep)
        np.testing.assert_allclose(x.mean(axis=0), model.mean[1], atol=0.03)
        expected = model.covariance[1] - taken * np.eye(3)
        np.testing.assert_allclose(np.cov(x.T), expected, atol=0.05)


def test_draws_come_from_the_class_asked_for_in_its_shares():
    centre = np.array([[0.1], [0.5], [0.9]])
    weight, cov = np.array([0.5, 0.1, 0.4]), np.full((3, 1, 1), 1e-6)
    model = gm.Mixture(weight, centre, cov, np.array([0, 1, 1]), 0.0, None)
    x = gm.sample(model, np.tile([0, 1], 4000))[:, 0]
    assert np.abs(x[::2] - 0.1).max() < 0.01
    assert (x[1::2] > 0.7).mean() == pytest.approx(0.8, abs=0.02)
    assert (x[1::2] > 0.4).all()


def test_without_the_ridge_blank_pixels_stay_blank(model):
    blank = (FEW[0] == 0).all(axis=0)
    assert blank.sum() >= 3
    clean = gm.sample(model, FEW[1])[:, blank]
    assert np.abs(clean).max() < 1e-6
    grain = gm.sample(model, FEW[1], keep_ridge=True)[:, blank]
    assert grain[grain > 0].std() > 0.03


def test_draws_follow_the_seed_and_are_images(model):
    x = gm.sample(model, FEW[1], seed=1)
    assert x.shape == (400, 64) and x.min() >= 0 and x.max() <= 1
    np.testing.assert_array_equal(x, gm.sample(model, FEW[1], seed=1))
    assert not np.array_equal(x, gm.sample(model, FEW[1], seed=2))
    assert len(np.unique(x, axis=0)) == 400


# ---------------------------------------------------------------- filling in


def test_conditioning_one_gaussian_is_the_closed_form_of_two_dimensions():
    rho, sx, sy = 0.8, 0.5, 0.2
    cov = np.array([[sx**2, rho * sx * sy], [rho * sx * sy, sy**2]])
    model = gm.Mixture(np.ones(1), np.array([[0.3, 0.6]]), cov[None], np.zeros(1, int), 0, None)
    answer = gm.condition(model, np.array([0.7, np.nan]), np.array([False, True]))
    assert answer.mean[0, 0] == pytest.approx(0.6 + rho * sy / sx * 0.4)
    assert answer.covariance[0, 0, 0] == pytest.approx(sy**2 * (1 - rho**2))


@pytest.mark.parametrize("seed", range(4))
def test_conditioning_equals_slicing_the_joint_density(seed):
    """On a fine grid: p(hidden | seen) is the joint, renormalised along the seen value."""
    model, grid = small(seed, d=2), np.linspace(-9, 9, 4001)
    image, hidden = np.array([0.4, np.nan]), np.array([False, True])
    line = np.exp(gm.log_prob(model, np.column_stack([np.full(4001, 0.4), grid])))
    line /= line.sum()
    mean = line @ grid
    spread = np.sqrt(line @ (grid - mean) ** 2)
    answer = gm.condition(model, image, hidden)
    got = gm.moments(answer)
    assert answer.weight.sum() == pytest.approx(1)
    np.testing.assert_allclose([got[0][0], got[1][0]], [mean, spread], rtol=1e-6)
    density = np.exp(gm.log_prob(answer, grid[:, None])) * (grid[1] - grid[0])
    np.testing.assert_allclose(density, line, atol=1e-9)


def test_two_hidden_pixels_keep_their_covariance():
    model = small(5, d=4, k=1)
    hidden = np.array([True, False, True, False])
    image = np.array([np.nan, 0.2, np.nan, -0.4])
    answer = gm.condition(model, image, hidden)
    precision = np.linalg.inv(model.covariance[0])  # another road: the inverse's own block
    expected = np.linalg.inv(precision[np.ix_(hidden, hidden)])
    np.testing.assert_allclose(answer.covariance[0], expected)
    gap = image[~hidden] - model.mean[0, ~hidden]
    shift = -expected @ precision[np.ix_(hidden, ~hidden)] @ gap
    np.testing.assert_allclose(answer.mean[0], model.mean[0, hidden] + shift)


def test_spread_is_that_of_draws():
    model, rng = small(6, d=3), np.random.default_rng(0)
    k = rng.choice(3, 60_000, p=model.weight)
    mean, spread = gm.moments(model)
    x = gm.draw(model, k, rng)
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(x.std(axis=0), spread, rtol=0.02)


def test_filling_in_leaves_what_is_seen_and_has_no_spread_there(model):
    x, hidden = SPLIT.x_test[:20], HALF[:20].copy()
    hidden[0] = False
    filled, spread = gm.fill_in(model, np.where(hidden, np.nan, x), hidden)
    np.testing.assert_array_equal(filled[~hidden], x[~hidden])
    assert (spread[~hidden] == 0).all() and (spread[hidden] > 0).all()
    assert filled.min() >= 0 and filled.max() <= 1
    np.testing.assert_array_equal(gm.impute(model, x, hidden), filled)


def test_with_nothing_seen_the_mean_of_all_is_filled_in(model):
    filled = gm.impute(model, np.full((1, 64), np.nan), np.ones((1, 64), bool))
    np.testing.assert_allclose(filled[0], FEW[0].mean(axis=0), atol=1e-9)


# ---------------------------------------------------------------- cleaning


def test_one_gaussian_a_class_cleans_as_the_autoencoders_rival_does():
    y = SPLIT.x_test[:50] + 0.3 * np.random.default_rng(0).standard_normal((50, 64))
    model = gm.train(*FEW, components=1, ridge=0.005)
    groups = [FEW[0][FEW[1] == k] for k in range(10)]
    expected = posterior_mean(y, groups, sigma=0.3)
    np.testing.assert_allclose(gm.denoise(model, y, sigma=0.3), expected, atol=1e-8)


def test_cleaning_is_the_posterior_mean_by_numerical_integration():
    model, grid = small(7, d=1), np.linspace(-9, 9, 4001)
    prior = np.exp(gm.log_prob(model, grid[:, None]))
    for y in (-1.0, 0.3, 2.0):
        weight = prior * norm(grid, 0.4).pdf(y)
        expected = weight @ grid / weight.sum()
        got = gm.denoise(model, np.array([[y]]), sigma=0.4)[0, 0]
        assert got == pytest.approx(expected, rel=1e-6)


def test_without_noise_nothing_is_taken_out(model):
    x = SPLIT.x_test[:5]
    np.testing.assert_allclose(gm.denoise(model, x, sigma=1e-6), x, atol=1e-6)


# ---------------------------------------------------------------- the probability of an image


def test_the_bound_lies_below_the_integral_over_the_cell_and_near_it():
    cov = np.array([[[0.03**2]]])
    model = gm.Mixture(np.ones(1), np.array([[0.5]]), cov, np.zeros(1, int), 0, None)
    x = np.arange(7, 10)[:, None] / 16
    edges = norm(0.5, 0.03).cdf(np.hstack([x - 1 / 32, x + 1 / 32]))
    exact = np.log(edges[:, 1] - edges[:, 0])
    bound = gm.log_mass(model, x, draws=1000)
    assert bound.mean() < exact.mean() - 0.05
    # The mean of log N over a cell of width 1/16 has a closed form.
    height = norm(0.5, 0.03).logpdf(x[:, 0]) - 1 / (12 * 16**2) / (2 * 0.03**2)
    np.testing.assert_allclose(bound, height - np.log(16), atol=0.2)


def test_bounds_of_all_images_sum_to_less_than_one():
    model = small(8, d=2)
    model = model._replace(mean=0.5 + 0.1 * model.mean, covariance=0.01 * model.covariance)
    x = np.array(np.meshgrid(*[np.arange(-16, 33) / 16] * 2)).reshape(2, -1).T
    total = np.exp(gm.log_mass(model, x, draws=50)).sum()
    assert 0.7 < total <= 1


def test_the_bound_follows_its_seed(model):
    x = SPLIT.x_test[:5]
    first = gm.log_mass(model, x, draws=2)
    np.testing.assert_array_equal(first, gm.log_mass(model, x, draws=2))
    assert (first != gm.log_mass(model, x, draws=2, seed=1)).all()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (SPLIT.x_test[:3, :63], "expected images of 64 pixels, got 63"),
        (SPLIT.x_test[0], "pass image\\[None\\]"),
        (np.full((2, 64), np.nan), "mark NaN"),
    ],
)
def test_bad_images_are_refused_in_words(model, x, message):
    for verb in (gm.predict_proba, gm.log_prob, gm.denoise):
        with pytest.raises(ValueError, match=message):
            verb(model, x)
    with pytest.raises(ValueError, match=message):
        gm.impute(model, x, np.zeros(x.shape, bool))


def test_other_bad_input_is_refused_in_words(model):
    x, y = FEW
    with pytest.raises(ValueError, match="divide by 16"):
        gm.train(16 * x, y)
    with pytest.raises(ValueError, match="divide by 16"):
        gm.predict_proba(model, 16 * x[:3])
    with pytest.raises(ValueError, match="divide by 16"):
        gm.impute(model, 16 * x[:3], HALF[:3])
    with pytest.raises(ValueError, match="400 labels"):
        gm.train(x, y[:-1])
    with pytest.raises(ValueError, match="expected labels 0 to 9"):
        gm.sample(model, np.array([3, 10]))
    with pytest.raises(ValueError, match="1 to 5 components"):
        gm.em(x[:5], components=6)
    for missing in (HALF[:2], HALF[:3].astype(int)):
        with pytest.raises(ValueError, match=r"missing to be bool, shape \(3, 64\)"):
            gm.log_prob(model, x[:3], missing)


# ---------------------------------------------------------------- bars and the study


def test_labels_with_all_and_with_half_of_the_pixels(full):
    x, y = SPLIT.x_test, SPLIT.y_test
    single = gm.train(SPLIT.x_train, SPLIT.y_train, components=1)
    assert (gm.predict_proba(single, x).argmax(axis=1) == y).mean() >= 0.978
    assert (gm.predict_proba(full, x).argmax(axis=1) == y).mean() >= 0.98
    assert (gm.predict_proba(full, x, HALF).argmax(axis=1) == y).mean() >= 0.93
    assert (gm.predict_proba(single, x, HALF).argmax(axis=1) == y).mean() >= 0.93


def test_cleaned_images_are_nearer_than_the_wiener_filters(full):
    y = SPLIT.x_test + 0.3 * np.random.default_rng(1).standard_normal(SPLIT.x_test.shape)
    error = ((gm.denoise(full, y, sigma=0.3) - SPLIT.x_test) ** 2).mean()
    wiener = ((posterior_mean(y, [SPLIT.x_train], sigma=0.3) - SPLIT.x_test) ** 2).mean()
    assert error < 0.017 < wiener


def test_intervals_hold_what_they_promise(full):
    x, hidden = SPLIT.x_test[:120], HALF[:120]
    filled, spread = gm.fill_in(full, x, hidden)
    gap = np.abs(filled - x)[hidden]
    assert 0.87 < (gap < 1.645 * spread[hidden]).mean() < 0.97
    assert (gap**2).mean() < 0.025


@pytest.mark.bar
def test_draws_are_as_good_as_a_networks(full):
    labels = np.arange(720) % 10
    found = sample_quality.assess(gm.sample(full, labels), labels=labels)
    assert found["fd"] < 0.75 and found["auc"] < 0.85  # 0.5 and 0.78 with 1,440 draws
    assert found["precision"] > 0.93 and found["recall"] > 0.85 and found["tstr"] > 0.95
    assert found["copying"] > 0.9
    grainy = gm.sample(full, labels[:360], keep_ridge=True)
    assert sample_quality.two_sample_auc(sample_quality.rounded(grainy), SPLIT.x_test) > 0.99


@pytest.mark.bar
def test_groups_without_labels_agree_with_the_labels():
    found = gm.grouped(SPLIT, 0)
    assert found["mixture"] > 0.55 and found["k_means"] > 0.55


@pytest.mark.bar
def test_study_prints_its_table_at_a_tiny_size(capsys):
    table = gm.study(seeds=1, splits=1, images=360)
    printed = capsys.readouterr().out
    assert "mixture of 4" in printed and "±" in printed and "grouped" in printed
    assert {"fd", "fd_sd", "auc", "bits", "seconds", "draw_seconds", "parameters"} <= set(
        table["contest"]
    )
    assert table["contest"]["parameters"] == 40 * (1 + 64 + 65 * 32)
    assert table["draws"]["copies"]["copying"] == 0
