"""Energy-based models: the walk, the two readings of logits, the training and the draws."""

import itertools

import numpy as np
import pytest
import torch

from snippets.generative import energy_based as ebm
from snippets.shared import digits, metrics, sample_quality

SPLIT = digits.load_split(seed=0)
SOME = SPLIT.x_test[:40]


@pytest.fixture(scope="module")
def short():
    """Trained for a second or two: no special case, and already of some use."""
    return ebm.train(SPLIT.x_train, SPLIT.y_train, steps=120, seed=3)


@pytest.fixture(scope="module")
def full():
    return ebm.train(SPLIT.x_train, SPLIT.y_train)


def untrained(seed=0, **settings):
    torch.manual_seed(seed)
    x = torch.tensor(SPLIT.x_train, dtype=torch.float32)
    return ebm.Classifier(x, 10, sigma=0.05, **settings)


def bowl(x):
    return (x**2).sum(dim=1) / 2


# ---------------------------------------------------------------- the walk


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_walk_on_a_gaussian_has_its_mean_and_variance(scale):
    torch.manual_seed(0)
    middle = torch.tensor([1.0, -2.0])
    x = ebm.walk(lambda x: bowl((x - middle) / scale), torch.zeros(10_000, 2),
                 steps=200, step=0.03 * scale**2)  # fmt: skip
    torch.testing.assert_close(x.mean(dim=0), middle, atol=0.05, rtol=0)
    torch.testing.assert_close(x.std(dim=0), torch.full((2,), scale), rtol=0.03, atol=0)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_the_bias_of_a_step_is_the_one_that_can_be_computed(step):
    """On a standard Gaussian x' = (1 - step) x + noise, so the variance is 1 / (1 - step / 2)."""
    torch.manual_seed(1)
    x = ebm.walk(bowl, torch.zeros(40_000, 1), steps=80, step=step)
    assert x.var().item() == pytest.approx(1 / (1 - step / 2), rel=0.03)


def test_a_step_above_two_over_the_curvature_runs_away():
    torch.manual_seed(0)
    far = ebm.walk(bowl, torch.zeros(10, 1), steps=200, step=2.2)
    assert far.abs().max() > 1e6


def test_a_long_walk_finds_the_shares_of_two_valleys():
    def valleys(x):
        return 3 * (x[:, 0] ** 2 - 1) ** 2 + x[:, 0] / 2

    torch.manual_seed(0)
    ticks = torch.linspace(-3, 3, 2001)
    mass = torch.exp(-valleys(ticks[:, None]))
    share = (mass[ticks < 0].sum() / mass.sum()).item()
    x = ebm.walk(valleys, torch.ones(4000, 1), steps=1500, step=0.02)
    assert (x < 0).float().mean().item() == pytest.approx(share, abs=0.03)


def test_the_slope_of_the_energy_matches_finite_differences():
    model, step = untrained().double(), 1e-5
    z, y = torch.randn(4, 64, dtype=torch.float64), torch.tensor([0, 3, 7, 9])
    for labels in (None, y):
        rise = ebm.slope(lambda z, labels=labels: ebm.energy(model, z, labels), z)
        for j in (0, 20, 63):
            nudge = torch.zeros(64, dtype=torch.float64)
            nudge[j] = step
            up, down = (ebm.energy(model, z + sign * nudge, labels) for sign in (1, -1))
            torch.testing.assert_close(rise[:, j], (up - down) / (2 * step), rtol=1e-5, atol=1e-7)


def test_walking_asks_no_slope_of_the_weights():
    model = untrained()
    z = ebm.walk(lambda z: ebm.energy(model, z), torch.randn(3, 64), steps=2, step=0.03)
    assert not z.requires_grad
    assert all(weights.grad is None for weights in model.parameters())


# ---------------------------------------------------------------- two readings of logits


def test_energies_of_the_classes_add_up_and_bayes_rule_gives_softmax():
    model, z = untrained(), torch.randn(5, 64)
    joint = torch.stack([ebm.energy(model, z, torch.full((5,), y)) for y in range(10)], dim=1)
    total = ebm.energy(model, z)
    torch.testing.assert_close(torch.exp(-joint).sum(dim=1), torch.exp(-total))
    torch.testing.assert_close(torch.exp(total[:, None] - joint), model(z).softmax(dim=1))


def test_a_term_that_all_logits_share_moves_the_density_and_not_the_classes():
    model = untrained()
    p, e = ebm.predict_proba(model, SOME), ebm.energies(model, SOME)
    model.bowl = 3.0
    z = model.whiten(torch.tensor(SOME, dtype=torch.float32))
    np.testing.assert_allclose(ebm.predict_proba(model, SOME), p, atol=1e-4)
    np.testing.assert_allclose(ebm.energies(model, SOME) - e, (z**2).sum(dim=1), rtol=1e-3)


def test_whitened_noisy_images_have_mean_zero_and_variance_one_in_every_direction():
    model = untrained()
    x = torch.tensor(np.repeat(SPLIT.x_train, 20, axis=0), dtype=torch.float32)
    z = model.whiten(x + 0.05 * torch.randn(x.shape))
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(64), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(64), atol=0.1, rtol=0)
    back = model.mean + z @ model.root.T
    torch.testing.assert_close(model.whiten(back), z, atol=1e-2, rtol=1e-3)


def test_without_its_bowl_a_network_has_no_finite_constant():
    """Along some ray its energy falls without end, so exp(-E) has no integral."""
    model = untrained(bowl=0.0)
    rays = torch.nn.functional.normalize(torch.randn(500, 64), dim=1)
    near, far = (ebm.energy(model, length * rays) for length in (100, 1000))
    assert (far < near - 1).any()
    model.bowl = 1.0
    assert (ebm.energy(model, 1000 * rays) > ebm.energy(model, 100 * rays)).all()


# ---------------------------------------------------------------- the training


def test_the_contrast_has_the_slope_of_the_likelihood_on_a_space_that_can_be_counted():
    """All 16 images of four black-or-white pixels: Z is a sum, and autograd differentiates it."""
    torch.manual_seed(0)
    space = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))

    def energy(x):
        return net(x)[:, 0]

    real = space[[3, 5, 5, 15]]
    log_p = -energy(real) - torch.logsumexp(-energy(space), dim=0)
    exact = torch.autograd.grad(-log_p.mean(), list(net.parameters()))
    with torch.no_grad():
        p = torch.softmax(-energy(space), dim=0)
    drawn = space[torch.multinomial(p, 400_000, replacement=True)]
    found = torch.autograd.grad(ebm.contrast(energy, real, drawn), list(net.parameters()))
    for a, b in zip(found, exact):
        torch.testing.assert_close(a, b, atol=0.005, rtol=0)


def test_the_contrast_vanishes_when_draws_are_the_data():
    x = torch.randn(50, 3)
    assert ebm.contrast(bowl, x, x).item() == 0


def test_the_crowd_moves_only_where_it_was_asked_and_keeps_its_place():
    model, crowd = untrained(), torch.full((30, 64), 0.5)
    drawn = ebm.go_on(model, crowd, 10, 2, 0.001, 0.0)
    moved = (crowd != 0.5).any(dim=1)
    assert moved.sum() == 10 and drawn.shape == (10, 64)
    assert {tuple(row) for row in crowd[moved].tolist()} == {tuple(row) for row in drawn.tolist()}
    assert (crowd[moved] - 0.5).abs().max() < 1, "they went on from where they were"


def test_some_of_the_crowd_begin_afresh_in_the_bowl():
    torch.manual_seed(0)
    model, crowd = untrained(), torch.full((2000, 64), 50.0)
    ebm.go_on(model, crowd, 2000, 0, 0.03, 0.25)
    again = (crowd != 50).all(dim=1)
    assert again.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert crowd[again].std().item() == pytest.approx(1, abs=0.02)


def test_the_rate_rises_at_once_and_ends_at_nothing():
    rates = [ebm.pace(done) for done in np.linspace(0, 1, 101)]
    assert 0 < rates[0] < 0.1 and max(rates) == 1 == rates[40] and rates[-1] == 0
    assert np.all(np.diff(rates[50:]) <= 0)


def test_training_repeats_and_leaves_the_callers_stream_alone():
    before = torch.random.get_rng_state()
    x, y = SPLIT.x_train[:200], SPLIT.y_train[:200]
    first, again, other = (ebm.train(x, y, steps=4, seed=seed) for seed in (1, 1, 2))
    ebm.sample(first, [1, 2], steps=2)
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(ebm.energies(first, SOME), ebm.energies(again, SOME))
    assert not np.array_equal(ebm.energies(first, SOME), ebm.energies(other, SOME))


def test_training_sees_noise_of_the_size_that_draws_take_off():
    model = untrained()
    x, y = torch.tensor(SPLIT.x_train[:1], dtype=torch.float32), torch.tensor([4])
    z, labels = ebm.noisy(model, x, y, 5000)
    back = model.mean + z @ model.root.T
    assert (back - x).std().item() == pytest.approx(0.05, rel=0.05)
    assert (labels == 4).all()


def test_without_weight_no_walk_is_taken_and_the_classes_are_learned():
    model = ebm.train(SPLIT.x_train, SPLIT.y_train, weight=0, steps=150)
    assert len(model.history) == 0
    assert metrics.accuracy(ebm.predict_proba(model, SPLIT.x_test), SPLIT.y_test) > 0.9


def test_a_short_training_learns_both_readings(short):
    assert len(short.history) == 120
    assert metrics.accuracy(ebm.predict_proba(short, SPLIT.x_test), SPLIT.y_test) > 0.9
    noise = ebm.strange(SPLIT.x_test)["noise"]
    assert ebm.energies(short, noise).min() > np.median(ebm.energies(short, SPLIT.x_test))


def test_data_and_draws_of_a_trained_model_have_about_the_same_energy(short):
    assert np.abs(short.history[-40:].mean()) < 15


# ---------------------------------------------------------------- the draws


def test_an_untrained_bowl_draws_its_gaussian():
    """With a flat network the density is known: the Gaussian of all digits, less the noise."""
    model = untrained()
    with torch.no_grad():
        model.net[-1].weight.zero_()
    x = ebm.sample(model, np.zeros(700, int), steps=80, step=0.05)
    mean, cov = SPLIT.x_train.mean(axis=0), np.cov(SPLIT.x_train.T)
    oracle = np.random.default_rng(0).multivariate_normal(mean, cov, 5000).clip(0, 1)
    np.testing.assert_allclose(x.mean(axis=0), oracle.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(x.std(axis=0), oracle.std(axis=0), atol=0.04)
    blank = SPLIT.x_train.std(axis=0) == 0
    assert x[:, blank].max() == 0, "the noise is taken off"


def test_taking_off_the_noise_is_the_mean_of_what_lies_under_it():
    """One step of sigma² on the slope in pixels, checked where the posterior mean is known."""
    model = untrained()
    with torch.no_grad():
        model.net[-1].weight.zero_()
    x = torch.tensor(SOME, dtype=torch.float32)
    pull = ebm.slope(lambda x: ebm.energy(model, model.whiten(x)), x)
    cov = torch.cov(torch.tensor(SPLIT.x_train).T).double()
    gap = (x - model.mean).double()
    mean = model.mean + gap @ torch.linalg.inv(cov + 0.05**2 * torch.eye(64)) @ cov
    torch.testing.assert_close((x - 0.05**2 * pull).double(), mean, atol=1e-3, rtol=0)


def test_draws_follow_the_seed_the_labels_and_the_grid(short):
    labels = np.arange(30) % 10
    x = ebm.sample(short, labels, steps=30, seed=1)
    torch.manual_seed(99)
    np.testing.assert_array_equal(x, ebm.sample(short, labels, steps=30, seed=1))
    assert not np.array_equal(x, ebm.sample(short, labels, steps=30, seed=2))
    np.testing.assert_array_equal(16 * x, np.round(16 * x))
    assert x.shape == (30, 64) and x.min() >= 0 and x.max() <= 1


def test_draws_are_of_the_class_that_was_asked_for(short):
    labels = np.arange(60) % 10
    x = ebm.sample(short, labels)
    _, says = sample_quality.ask_judge(x)
    assert (says.argmax(axis=1) == labels).mean() > 0.7


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("verb", [ebm.predict_proba, ebm.energies])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (SOME[:, :63], "expected images of 64 pixels, got 63"),
        (SOME[0], "pass image\\[None\\]"),
        (16 * SOME, "divide by 16"),
        (np.where(SOME > 0.9, np.nan, SOME), "NaN"),
    ],
)
def test_bad_images_are_refused_in_words(verb, x, message):
    with pytest.raises(ValueError, match=message):
        verb(untrained(), x)


@pytest.mark.parametrize("labels", [3, [10], [-1], [0.5], [[1, 2]]])
def test_bad_labels_are_refused_in_words(labels):
    with pytest.raises(ValueError, match=r"expected labels \(n,\) in 0..9"):
        ebm.sample(untrained(), labels)


def test_bad_training_data_are_refused_in_words():
    with pytest.raises(ValueError, match="divide by 16"):
        ebm.train(16 * SPLIT.x_train, SPLIT.y_train)
    with pytest.raises(ValueError, match="expected 40 labels"):
        ebm.train(SOME, SPLIT.y_test[:39])


# ---------------------------------------------------------------- the study


def test_an_alarm_is_scored_high_when_strange_images_ring_it():
    assert ebm.alarms(lambda x: x.mean(axis=1), SPLIT.x_test)["inverted"] > 0.9
    assert ebm.alarms(lambda x: -x.mean(axis=1), SPLIT.x_test)["inverted"] < 0.1
    odd = ebm.strange(SOME)
    np.testing.assert_array_equal(odd["flipped"].reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64), SOME)
    np.testing.assert_array_equal(odd["inverted"] + SOME, 1)


@pytest.mark.bar
def test_study_prints_its_table_at_a_tiny_size(capsys):
    table = ebm.study(seeds=1, steps=5, n=360)
    printed = capsys.readouterr().out
    assert "Fréchet distance" in printed and "±" in printed
    assert set(table) == {"contest", "plain", "energy", "gaussians"}
    assert table["contest"]["fd"] == table["energy"]["fd"] > 0
    for name in ("seconds", "draw_seconds", "parameters", "tstr", "agreement", "fd_sd"):
        assert name in table["contest"]
    assert table["gaussians"]["accuracy"] > 0.97
    assert table["plain"]["noise_e"] != table["plain"]["noise_p"]


@pytest.mark.bar
def test_the_energy_classifies_warns_and_draws(full):
    p = ebm.predict_proba(full, SPLIT.x_test)
    assert metrics.accuracy(p, SPLIT.y_test) > 0.96
    alarm = ebm.alarms(lambda x: ebm.energies(full, x), SPLIT.x_test)
    assert alarm["noise"] > 0.999 and alarm["inverted"] > 0.999
    labels = np.arange(360) % 10
    seen, says = sample_quality.ask_judge(ebm.sample(full, labels))
    real, _ = sample_quality.ask_judge(SPLIT.x_test)
    assert (says.argmax(axis=1) == labels).mean() > 0.95
    assert sample_quality.frechet_distance(seen, real) < 1.8
    precision, recall = sample_quality.precision_recall(seen, real)
    assert precision > 0.9 and recall > 0.7
