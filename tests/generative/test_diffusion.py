"""Diffusion: the path, the denoiser, the samplers, the bound, and how good it must be."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss, one_hot

from snippets.generative import diffusion
from snippets.generative.diffusion import Denoiser, Plain, guess, mix, noise_of, step, velocity_of
from snippets.shared import digits, sample_quality

SPLIT = digits.load_split(seed=0)
SOME = SPLIT.x_test[:40]
LABELS = np.arange(360) % 10


@pytest.fixture(scope="module")
def short():
    """Good enough to be no special case, trained in two seconds."""
    return diffusion.train(SPLIT.x_train, SPLIT.y_train, steps=250, seed=3)


@pytest.fixture(scope="module")
def full():
    return diffusion.train(SPLIT.x_train, SPLIT.y_train)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def independent(shares):
    """A denoiser that knows the truth, if each pixel has level k with probability shares[k]."""
    model = Denoiser().eval()
    with torch.no_grad():
        model.network.leave.bias[:] = torch.tensor(shares, dtype=torch.float32).log().repeat(64)
    return model


@pytest.fixture
def shaken():
    """Untrained, but not silent: every weight has moved by chance."""
    model = Denoiser().eval()
    with torch.no_grad():
        for k, weights in enumerate(model.parameters()):
            weights += 0.1 * normal(*weights.shape, seed=k)
    return model


SHARES = np.full(17, 0.01)
SHARES[[0, 5, 16]] = 0.5, 0.2, 0.16


class TwoImages(Denoiser):
    """Knows the truth, if there are two images a and b, equally probable."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def share(self, x_t, t):
        far = [((x_t - (1 - t) * image) ** 2).sum(1) for image in (self.a, self.b)]
        return torch.sigmoid((far[1] - far[0]) / (2 * t[:, 0] ** 2))[:, None]  # of a

    def forward(self, x_t, t, ask):
        return self.b + self.share(x_t, t) * (self.a - self.b)

    def logits(self, x_t, t, ask):
        share = self.share(x_t, t)[:, :, None]
        a, b = (one_hot(diffusion.level_of(image), 17).float() for image in (self.a, self.b))
        return (share * a + (1 - share) * b).clamp(min=1e-30).log()


# ---------------------------------------------------------------- the path


def test_the_path_begins_at_the_image_and_ends_in_noise():
    x0, eps = normal(5, 64), normal(5, 64, seed=1)
    torch.testing.assert_close(mix(x0, eps, 0.0), x0)
    torch.testing.assert_close(mix(x0, eps, 1.0), eps)


@pytest.mark.parametrize("t", [0.02, 0.3, 0.9, 1.0])
def test_image_noise_and_velocity_are_found_from_each_other(t):
    x0, eps = normal(5, 64), normal(5, 64, seed=1)
    x_t = mix(x0, eps, t)
    torch.testing.assert_close(noise_of(x_t, t, x0), eps, atol=1e-4, rtol=1e-4)
    v = velocity_of(x_t, t, x0)
    torch.testing.assert_close(v, eps - x0, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(x_t - t * v, x0, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(x_t + (1 - t) * v, eps, atol=1e-4, rtol=1e-4)


def test_velocity_is_the_slope_of_the_path():
    x0, eps = normal(5, 64).double(), normal(5, 64, seed=1).double()
    slope = (mix(x0, eps, 0.4 + 1e-4) - mix(x0, eps, 0.4 - 1e-4)) / 2e-4
    torch.testing.assert_close(velocity_of(mix(x0, eps, 0.4), 0.4, x0), slope)


def ddpm(steps=400):
    """DDPM's schedule: beta of each small step, then alpha and sigma after it."""
    beta = np.linspace(1e-4, 0.05, steps)
    alpha = np.sqrt(np.cumprod(1 - beta))
    return beta, alpha, np.sqrt(1 - alpha**2)


def test_many_small_steps_have_the_marginal_of_one_mix():
    """DDPM's chain, walked, against alpha x0 + sigma eps, which is the path but for a scale."""
    beta, alpha, sigma = ddpm()
    np.testing.assert_allclose(alpha**2 + sigma**2, 1)
    random, x = np.random.default_rng(0), np.full(100_000, 0.8)
    for k, b in enumerate(beta[:200]):
        x = np.sqrt(1 - b) * x + np.sqrt(b) * random.standard_normal(len(x))
        if k in (50, 199):
            scale, t = alpha[k] + sigma[k], sigma[k] / (alpha[k] + sigma[k])
            closed = mix(torch.tensor(0.8), normal(100_000, seed=k), t) * scale
            assert x.mean() == pytest.approx(alpha[k] * 0.8, abs=0.01)
            assert x.std() == pytest.approx(sigma[k], rel=0.01)
            assert closed.mean().item() == pytest.approx(x.mean(), abs=0.01)
            assert closed.std().item() == pytest.approx(x.std(), rel=0.01)


# ---------------------------------------------------------------- one step


def test_a_step_with_the_truth_has_the_marginal_of_the_path():
    """From x_t to x_s with the true image: mean (1 - s) x0, deviation s, at any churn."""
    x0, eps = torch.full((200_000, 1), 0.7), normal(200_000, 1)
    for churn in (0.0, 0.5, 1.0, 2.0):
        x_s = step(mix(x0, eps, 0.8), 0.8, 0.3, x0, normal(200_000, 1, seed=1), churn=churn)
        assert x_s.mean().item() == pytest.approx(0.7 * 0.7, abs=0.003)
        assert x_s.std().item() == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize(("k", "j"), [(300, 299), (200, 120), (50, 1)])
def test_with_churn_one_a_step_is_ddpms(k, j):
    """Mean and variance of q(x_s | x_t, x0) of the chain, by Bayes' rule for Gaussians."""
    _, alpha, sigma = ddpm()
    x0, x_k = 0.6, -0.4  # any
    a = alpha[k] / alpha[j]
    between = sigma[k] ** 2 - a**2 * sigma[j] ** 2
    variance = 1 / (1 / sigma[j] ** 2 + a**2 / between)
    mean = variance * (alpha[j] * x0 / sigma[j] ** 2 + a * x_k / between)
    scale = alpha + sigma
    t, s = sigma[k] / scale[k], sigma[j] / scale[j]
    fresh = normal(200_000).double()
    x_t = torch.full_like(fresh, x_k / scale[k])
    x_s = step(x_t, t, s, torch.full_like(fresh, x0), fresh) * scale[j]
    assert x_s.mean().item() == pytest.approx(mean, abs=0.005)
    assert x_s.std().item() == pytest.approx(np.sqrt(variance), rel=0.01)


def test_without_churn_a_step_is_eulers():
    x_t, x_hat = normal(5, 64), normal(5, 64, seed=1)
    found = step(x_t, 0.6, 0.5, x_hat, normal(5, 64, seed=2), churn=0.0)
    torch.testing.assert_close(found, x_t - 0.1 * velocity_of(x_t, 0.6, x_hat))


def test_the_last_step_is_the_guess():
    x_hat = normal(5, 64)
    for churn in (0.0, 1.0):
        last = step(normal(5, 64, seed=1), 0.1, 0.0, x_hat, normal(5, 64, seed=2), churn=churn)
        torch.testing.assert_close(last, x_hat)


# ---------------------------------------------------------------- following a known field


def gaussian_velocity(x, t, *, mean=0.5, spread=0.4):
    """The exact field, if images are N(mean, spread²): noise 1 goes to mean + spread."""
    pull = (1 - t) * spread**2 / ((1 - t) ** 2 * spread**2 + t**2)
    return velocity_of(x, t, mean + pull * (x - (1 - t) * mean))


@pytest.mark.parametrize(("heun", "order"), [(False, 1), (True, 2)])
def test_the_error_of_the_flow_falls_at_the_right_order(heun, order):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    truth = 0.5 + 0.4 * x
    error = [(diffusion.flow(gaussian_velocity, x, steps=n, heun=heun) - truth).abs().max().item()
             for n in (40, 80, 160)]  # fmt: skip
    for coarse, fine in pairwise(error):
        assert np.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def test_the_flow_carries_noise_to_the_data():
    x = diffusion.flow(gaussian_velocity, normal(20_000, 1), steps=20)
    assert x.mean().item() == pytest.approx(0.5, abs=0.01)
    assert x.std().item() == pytest.approx(0.4, rel=0.02)


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
def test_sampling_an_exact_denoiser_gives_the_datas_frequencies(churn):
    model = independent(SHARES)
    drawn = diffusion.sample(model, LABELS, steps=100, churn=churn)
    levels = np.bincount(np.round(16 * drawn).astype(int).ravel(), minlength=17) / drawn.size
    np.testing.assert_allclose(levels, SHARES, atol=0.015)


# ---------------------------------------------------------------- the denoiser


def test_the_guess_is_the_posterior_mean():
    """Bayes' rule by hand, for independent pixels."""
    model, x_t, t = independent(SHARES), normal(6, 64), 0.35
    levels = np.arange(17) / 8 - 1
    away = (x_t.numpy()[:, :, None] - (1 - t) * levels) ** 2
    weight = SHARES * np.exp(-away / (2 * t**2))
    oracle = (weight * levels).sum(2) / weight.sum(2)
    found = guess(model, x_t, t, torch.zeros(6, 11)).detach()
    np.testing.assert_allclose(found.numpy(), oracle, atol=1e-4)


def test_at_full_noise_the_pixel_itself_says_nothing_and_without_noise_everything(short):
    ask = diffusion.ask_for(short, LABELS[:40])
    x0 = diffusion.as_ink(SOME)
    with torch.no_grad():
        torch.testing.assert_close(guess(short, x0, 0.01, ask), x0, atol=1e-3, rtol=0)
        model = independent(SHARES)
        blind = guess(model, normal(40, 64), 1.0, ask)
    assert blind.numpy() == pytest.approx((SHARES * (np.arange(17) / 8 - 1)).sum(), abs=1e-5)


def test_both_losses_are_what_they_say():
    x0, eps = diffusion.as_ink(SOME), normal(40, 64)
    t, ask = torch.full((40, 1), 0.99), torch.zeros(40, 11)
    share = np.log(SHARES)[(16 * SOME).astype(int)].mean()
    assert independent(SHARES).loss(x0, eps, torch.ones(40, 1), ask).item() == pytest.approx(
        -share, abs=1e-3
    )
    untrained = Plain()
    assert untrained.loss(x0, eps, t, ask).item() == pytest.approx(mse_loss(eps, x0).item())
    torch.testing.assert_close(untrained(eps, t, ask), eps)  # x_t - t v, v = 0
    with torch.no_grad():
        untrained.network.leave.bias += 1  # names v = 1 everywhere
    found = untrained.loss(x0, eps, t, ask).item()
    assert found == pytest.approx(mse_loss(eps - x0, torch.ones_like(eps)).item())


def test_each_time_and_each_class_is_told_apart(shaken):
    x_t, ask = normal(1, 64).repeat(9, 1), diffusion.ask_for(shaken, [3] * 9)
    times = torch.linspace(0.1, 0.9, 9)[:, None]
    with torch.no_grad():
        by_time = shaken.network(x_t, times, ask)
        every = torch.eye(11)
        by_class = shaken.network(x_t[:1].repeat(11, 1), torch.full((11, 1), 0.9), every)
        clock = torch.cat([f(torch.linspace(0, 1, 200)[:, None] * shaken.network.pitch)
                           for f in (torch.sin, torch.cos)], dim=1)  # fmt: skip
    for said in (by_time, by_class, clock):
        apart = torch.cdist(said, said) + 1e9 * torch.eye(len(said))
        assert apart.min() > 1e-2


def test_guidance_1_is_the_class_and_0_is_none(shaken):
    x_t, ask = normal(10, 64), diffusion.ask_for(shaken, np.arange(10))
    none = torch.zeros(10, 11)
    none[:, -1] = 1
    t = torch.full((10, 1), 0.7)
    with torch.no_grad():
        known, without = shaken(x_t, t, ask), shaken(x_t, t, none)
        torch.testing.assert_close(guess(shaken, x_t, 0.7, ask), known)
        torch.testing.assert_close(guess(shaken, x_t, 0.7, ask, guidance=0), without)
        twice = guess(shaken, x_t, 0.7, ask, guidance=2)
    torch.testing.assert_close(twice, (2 * known - without).clamp(-1, 1))
    assert (known - without).abs().max() > 0.05


# ---------------------------------------------------------------- the training


def test_a_batch_hides_the_class_sometimes_and_covers_all_times():
    x, y = diffusion.as_ink(SPLIT.x_train), torch.tensor(SPLIT.y_train)
    torch.manual_seed(0)
    x0, eps, t, ask = diffusion.draw_batch(x, y, 10, 20_000, 0.1)
    assert ask[:, -1].mean().item() == pytest.approx(0.1, abs=0.01)
    assert (ask.sum(1) == 1).all()
    assert (t > 0).all() and (t < 1).all()
    np.testing.assert_allclose(torch.quantile(t, torch.tensor([0.16, 0.5, 0.84])),
                               [0.27, 0.5, 0.73], atol=0.02)  # fmt: skip
    assert eps.mean().abs() < 0.01 and eps.std().item() == pytest.approx(1, abs=0.01)
    told = ask.argmax(1)
    first = {x.numpy().tobytes(): label for x, label in zip(x, SPLIT.y_train)}
    for image, label in zip(x0[:200], told[:200]):
        assert label in (10, first[image.numpy().tobytes()])


def test_the_average_follows_and_is_what_is_returned():
    torch.manual_seed(0)
    slow, fast = Plain(), Plain()
    before = slow.network.enter.weight.detach().clone()
    diffusion.follow(slow, fast, keep=0.9)
    expected = 0.9 * before + 0.1 * fast.network.enter.weight
    torch.testing.assert_close(slow.network.enter.weight, expected)


def test_training_repeats_and_leaves_the_callers_settings_alone():
    before = torch.random.get_rng_state()
    x, y = SPLIT.x_train, SPLIT.y_train
    first, again, other = (diffusion.train(x, y, steps=4, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.history, again.history)
    for a, b in zip(first.parameters(), again.parameters()):
        assert torch.equal(a, b)
    assert not np.array_equal(first.history, other.history)


def test_training_lowers_the_loss(short):
    assert short.history[-20:].mean() < 0.65 * short.history[:5].mean()


# ---------------------------------------------------------------- the bound


def test_the_bound_of_an_exact_denoiser_is_log_p():
    """Independent pixels: every bit of it is known."""
    model = independent(SHARES)
    x = np.random.default_rng(0).choice(17, p=SHARES, size=(300, 64)) / 16
    truth = np.log(SHARES)[(16 * x).astype(int)].sum(axis=1)
    found = diffusion.log_prob(model, x, samples=100)
    assert found.mean() == pytest.approx(truth.mean(), abs=1)  # 3.5 standard errors
    assert np.corrcoef(found, truth)[0, 1] > 0.85


def test_the_bound_of_two_images_is_one_bit():
    x = SPLIT.x_test[:2]
    model = TwoImages(*diffusion.as_ink(x))
    found = diffusion.log_prob(model, np.repeat(x, 100, axis=0), samples=50)
    assert found.mean() == pytest.approx(np.log(0.5), abs=0.1)


def test_what_is_left_at_the_ends_is_paid_for():
    """Nothing but the levels at almost no noise is priced, if the guess is the image itself."""

    class Knowing(Denoiser):
        def forward(self, x_t, t, ask):
            return diffusion.as_ink(SOME)

        def logits(self, x_t, t, ask):
            return torch.zeros(len(x_t), 64, 17)

    found = diffusion.log_prob(Knowing(), SOME, samples=2)
    left = (2 * SOME - 1) ** 2 / (2 * (1 + 30.0**2))  # of the image, at most noise, nearly
    np.testing.assert_allclose(found, -64 * np.log(17) - left.sum(1), rtol=1e-4)


def test_a_wrong_denoiser_is_charged_for_it():
    x = np.random.default_rng(0).choice(17, p=SHARES, size=(60, 64)) / 16
    truth = np.log(SHARES)[(16 * x).astype(int)].sum(axis=1).mean()
    wrong = independent(np.full(17, 1 / 17))
    assert diffusion.log_prob(wrong, x, samples=30).mean() < truth - 20


def test_the_right_class_raises_the_bound(short):
    x, y = SPLIT.x_test[:100], SPLIT.y_test[:100]
    right = diffusion.log_prob(short, x, labels=y, samples=20)
    wrong = diffusion.log_prob(short, x, labels=(y + 1) % 10, samples=20)
    assert right.mean() > wrong.mean()
    assert right.shape == (100,)


def test_the_bound_depends_on_the_seed_alone(short):
    first = diffusion.log_prob(short, SOME, samples=3, seed=1)
    np.testing.assert_array_equal(first, diffusion.log_prob(short, SOME, samples=3, seed=1))
    assert not np.array_equal(first, diffusion.log_prob(short, SOME, samples=3, seed=2))


# ---------------------------------------------------------------- the verbs


def test_draws_depend_on_the_seed_alone_and_stay_images(short):
    first = diffusion.sample(short, LABELS[:40], steps=5, seed=1)
    torch.manual_seed(99)
    np.testing.assert_array_equal(first, diffusion.sample(short, LABELS[:40], steps=5, seed=1))
    assert (first != diffusion.sample(short, LABELS[:40], steps=5, seed=2)).any()
    assert first.shape == (40, 64) and first.min() >= 0 and first.max() <= 1


def test_without_churn_sampling_is_the_flow(short):
    ask, t0 = diffusion.ask_for(short, LABELS[:40]), normal(40, 64, seed=5)

    def velocity(x, t):
        return velocity_of(x, t, guess(short, x, t, ask))

    with torch.no_grad():
        flowed = (diffusion.flow(velocity, t0, steps=6, heun=False).numpy() + 1) / 2
    drawn = diffusion.sample(short, LABELS[:40], steps=6, seed=5, churn=0.0)
    np.testing.assert_allclose(drawn, flowed, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (SOME[:, :63], "expected images of 64 pixels, got 63"),
        (SOME[0], "pass image\\[None\\]"),
        (16 * SOME, "divide by 16"),
        (SOME * 0.99, "sixteenths"),
        (np.where(SOME > 0.9, np.nan, SOME), "in \\[0, 1\\]"),
        (SOME[:0], "divide by 16"),
    ],
)
def test_bad_images_are_refused_in_words(short, x, message):
    with pytest.raises(ValueError, match=message):
        diffusion.log_prob(short, x)
    with pytest.raises(ValueError, match=message):
        diffusion.train(x, SPLIT.y_test[:40])


@pytest.mark.parametrize("labels", [[], 3, [[1]], [0.5], [10], [-1], ["a"]])
def test_bad_labels_are_refused_in_words(short, labels):
    with pytest.raises(ValueError, match="expected labels"):
        diffusion.sample(short, labels)


# ---------------------------------------------------------------- the study and the bars


@pytest.mark.bar
def test_study_prints_its_table_at_a_tiny_size(capsys):
    table = diffusion.study(seeds=1, steps=4, draws=360, samples=1)
    printed = capsys.readouterr().out
    assert "this page's model" in printed and "±" in printed
    assert set(table) == set(diffusion.NAMES)
    assert {"fd", "fd_sd", "bits", "seconds", "draw_seconds", "parameters"} < set(table["contest"])
    assert table["copies"]["copying"] == 0
    assert table["mixtures"]["tstr"] > 0.8


@pytest.mark.bar
def test_draws_are_good(full):
    drawn = diffusion.sample(full, np.arange(1440) % 10)
    seen, real = (sample_quality.ask_judge(x)[0] for x in (drawn, SPLIT.x_test))
    assert sample_quality.frechet_distance(seen, real) < 0.5  # asked for: 0.6
    found = sample_quality.assess(drawn[:360], labels=LABELS)
    assert found["auc"] < 0.7  # hoped for: 0.75
    assert found["tstr"] > 0.95
    assert min(found["precision"], found["recall"]) > 0.85
    assert found["copying"] > 0.95


@pytest.mark.bar
def test_the_bound_beats_histograms(full):
    assert sample_quality.bits_per_dim(diffusion.log_prob(full, SPLIT.x_test, samples=50)) < 2.43
