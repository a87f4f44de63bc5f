"""Convolutional networks: the convolution, what slides with it, and whether maps tell the truth."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.stats import spearmanr

from snippets.discriminative import convolutional_networks as cnn
from snippets.shared import digits, metrics

SPLIT = digits.load_split(seed=0)
SOME = SPLIT.x_train[:40]


@pytest.fixture(scope="module")
def short():
    """Trained for a moment, so that its weights are no special case."""
    return cnn.train(SPLIT.x_train[:300], SPLIT.y_train[:300], channels=6, epochs=12, rate=0.1)


@pytest.fixture(scope="module")
def full():
    return cnn.train(SPLIT.x_train, SPLIT.y_train)


def assert_close(found, expected, *, atol=1e-5):
    """Of two tensors; torch's own comparison takes ten seconds to import."""
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), atol=atol)


def canvas(count=3, channels=2, rows=9, columns=11, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, rows, columns, generator=random)


def filters(out=4, channels=2, seed=1):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(out, channels, 3, 3, generator=random), torch.arange(out) - 1.5


# ---------------------------------------------------------------- the convolution


def test_convolution_is_torchs():
    x, (weight, bias) = canvas(), filters()
    oracle = torch.nn.functional.conv2d(x, weight, bias, padding=1)
    assert_close(cnn.convolve(x, weight, bias), oracle)


def test_convolution_is_scipys_correlation():
    x, (weight, bias) = canvas(count=1), filters(out=1)
    oracle = sum(
        correlate(x[0, c].numpy(), weight[0, c].numpy(), mode="constant") for c in (0, 1)
    ) + float(bias[0])
    np.testing.assert_allclose(cnn.convolve(x, weight, bias)[0, 0].numpy(), oracle, atol=1e-5)


def test_slide_and_filter_is_filter_and_slide():
    """Translation equivariance, away from the border, for each layer and its stride."""
    x = torch.zeros(1, 2, 12, 16)
    x[:, :, 4:8, 3:7] = canvas(count=1, rows=4, columns=4)
    weight, _ = filters()
    bias = torch.zeros(4)
    found = cnn.convolve(torch.roll(x, (1, 5), dims=(2, 3)), weight, bias)
    assert_close(found, torch.roll(cnn.convolve(x, weight, bias), (1, 5), dims=(2, 3)))
    assert found.abs().max() > 0.1


def test_maps_of_the_network_slide_by_multiples_of_their_stride(short):
    x = torch.zeros(1, 1, 24, 40)
    x[:, :, 8:16, 8:16] = torch.tensor(SOME[0]).float().view(1, 1, 8, 8)
    moved = torch.roll(x, 8, dims=3)
    for stride, a, b in zip((1, 2, 4), short.maps(x), short.maps(moved)):
        inner = slice(16 // stride, -8 // stride)  # away from both borders
        assert_close(b[..., inner], torch.roll(a, 8 // stride, dims=3)[..., inner], atol=1e-5)
    odd = short.maps(torch.roll(x, 1, dims=3))[2]
    assert (odd - short.maps(x)[2]).abs().max() > 0.01, "pooling does not follow a single pixel"


def test_filters_see_no_further_than_their_field(short):
    """A changed pixel moves the first map within one pixel, and not beyond."""
    x = torch.tensor(SOME[:1]).float().view(1, 1, 8, 8)
    changed = x.clone()
    changed[0, 0, 4, 4] += 1
    a, b = short.maps(x)[0], short.maps(changed)[0]
    moved = ((a - b).abs().amax(dim=(0, 1)) > 0).numpy()
    assert moved[3:6, 3:6].any() and moved.sum() == moved[3:6, 3:6].sum()


def test_layers_halve_and_are_never_negative(short):
    maps = short.maps(torch.tensor(SOME).float().view(-1, 1, 8, 8))
    assert [tuple(m.shape[1:]) for m in maps] == [(6, 8, 8), (6, 4, 4), (12, 2, 2)]
    for m in maps:
        assert m.min() >= 0 and m.max() > 0


def test_maps_are_maxima_of_filtered_maps(short):
    first, second, _ = short.maps(torch.tensor(SOME[:2]).float().view(-1, 1, 8, 8))
    full_size = cnn.convolve(first, short.second.weight, short.second.bias).clamp(min=0)
    oracle = full_size.view(2, 6, 4, 2, 4, 2).amax(dim=(3, 5))
    assert_close(second, oracle)


# ---------------------------------------------------------------- training and answers


def test_a_step_has_momentum_and_decays_filters_but_not_biases():
    weights = [torch.ones(2, 2), torch.ones(2)]
    speed = [torch.full((2, 2), 0.5), torch.full((2,), 0.5)]
    slopes = [torch.full((2, 2), 0.2), torch.full((2,), 0.2)]
    cnn.step(weights, speed, slopes, decay=0.1, rate=2.0, keep=0.4)
    assert_close(speed[0], torch.full((2, 2), 0.4 * 0.5 - 2 * (0.2 + 0.1)))
    assert_close(speed[1], torch.full((2,), 0.4 * 0.5 - 2 * 0.2))
    for weight, v in zip(weights, speed):
        assert_close(weight, 1 + v)


def test_training_follows_its_seed_alone_and_leaves_the_callers_stream():
    x, y, settings = SOME, SPLIT.y_train[:40] % 2, {"channels": 3, "epochs": 1}
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a = cnn.train(x, y, seed=1, **settings)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    again, other = (cnn.train(x, y, seed=s, **settings) for s in (1, 2))
    assert torch.equal(a.third.weight, again.third.weight)
    assert not torch.equal(a.third.weight, other.third.weight)


def test_images_are_varied_anew_in_each_epoch_and_with_their_labels():
    seen = []

    def vary(images, random):
        seen.append((images.clone(), cnn.LIGHT(images, random)))
        return seen[-1][1]

    y = SPLIT.y_train[:40] % 2
    cnn.train(SOME, y, channels=3, epochs=2, batch=40, vary=vary)
    assert len(seen) == 2 and not torch.equal(seen[0][0], seen[1][0])
    order = [k.numpy().round(4).tolist() for k in (seen[0][0].sum(1).sort().values,)]
    np.testing.assert_allclose(order[0], np.sort(SOME.sum(axis=1)), rtol=1e-3)
    assert (seen[0][0] - seen[0][1]).abs().max() > 0.1


def test_training_learns_which_label_belongs_to_which_image(short):
    p = cnn.predict_proba(short, SPLIT.x_train[:300])
    assert metrics.accuracy(p, SPLIT.y_train[:300]) > 0.7


def test_the_filters_begin_with_the_spread_that_relu_needs():
    torch.manual_seed(0)
    model = cnn.CNN(channels=64)
    for layer, inputs in ((model.second, 64 * 9), (model.third, 64 * 9)):
        assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)


def test_probabilities_are_probabilities(short):
    for scale in (1.0, 1e4):
        p = cnn.predict_proba(short, scale * SOME)
        assert p.shape == (40, 10) and np.isfinite(p).all()
        np.testing.assert_allclose(p.sum(axis=1), 1)


# ---------------------------------------------------------------- where it looks


def test_the_gradient_is_that_of_finite_differences(short):
    x, labels = SOME[:2], np.array([3, 7])
    model = cnn.CNN(channels=6).double()
    model.load_state_dict(short.state_dict())
    slope = cnn.gradient(short, x, labels)
    for pixel in (10, 27, 36):
        sides = []
        for nudge in (1e-4, -1e-4):
            moved = torch.tensor(x)
            moved[:, pixel] += nudge
            log_p = torch.log_softmax(model(moved), dim=1)
            sides.append(log_p[[0, 1], labels].detach().numpy())
        expected = (sides[0] - sides[1]) / 2e-4
        np.testing.assert_allclose(slope[:, pixel], expected, rtol=1e-2, atol=1e-3)


def test_occlusion_is_the_loss_of_the_label_when_a_pixel_is_blank(short):
    x, labels = SOME[:3], np.array([3, 7, 1])
    lost = cnn.occlusion(short, x, labels)
    assert lost.shape == (3, 64)
    np.testing.assert_allclose(lost[x == 0], 0, atol=1e-6)
    one = x[1:2].copy()
    one[0, 28] = 0
    expected = np.log(cnn.predict_proba(short, x)[1, 7] / cnn.predict_proba(short, one)[0, 7])
    assert lost[1, 28] == pytest.approx(expected, abs=1e-4)


def test_for_faint_ink_occlusion_is_slope_times_ink(short):
    """What both maps promise each other: to first order they agree."""
    x, labels = np.where(SOME[:8] == 0, 0.01, SOME[:8]), np.arange(8)
    faint = x == 0.01
    lost, product = cnn.occlusion(short, x, labels), cnn.gradient(short, x, labels) * x
    assert np.corrcoef(lost[faint], product[faint])[0, 1] > 0.98
    assert np.polyfit(product[faint], lost[faint], 1)[0] == pytest.approx(1, abs=0.1)


def test_agreement_is_the_rank_correlation_over_the_ink():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 3, 64)).round(1)
    shown = random.random((3, 64)) < 0.5
    oracle = [spearmanr(p[ink], q[ink])[0] for p, q, ink in zip(a, b, shown)]
    np.testing.assert_allclose(cnn.agreement(a, b, shown), oracle)


def test_blanking_starts_with_the_highest_rank_and_keeps_the_images(short):
    x, labels = SOME[:6].copy(), SPLIT.y_train[:6]
    rank = np.tile(np.arange(64.0), (6, 1))
    kept = cnn.blank_best(short, x, labels, rank, most=3)
    np.testing.assert_array_equal(x, SOME[:6])
    assert len(kept) == 4
    for count, value in enumerate(kept):
        blanked = x.copy()
        blanked[:, 64 - count :] = 0
        p = cnn.predict_proba(short, blanked)[np.arange(6), labels]
        assert value == pytest.approx(p.mean())


# ---------------------------------------------------------------- look-alikes and shifts


def test_draws_are_halves_of_both_digits_and_nothing_is_shared():
    few = cnn.draw_pair(SPLIT.x_train, SPLIT.y_train, n=10, seed=3)
    assert few.y_train.tolist() == [0] * 5 + [1] * 5
    assert len(few.x_train) + len(few.x_test) == np.isin(SPLIT.y_train, (1, 8)).sum()
    assert not (few.x_train[:, None] == few.x_test[None]).all(axis=2).any()
    for image, label in zip(few.x_train, few.y_train):
        place = (SPLIT.x_train == image).all(axis=1).argmax()
        assert SPLIT.y_train[place] == (1, 8)[label]
    again, other = (cnn.draw_pair(*SPLIT[:2], n=10, seed=s) for s in (3, 4))
    np.testing.assert_array_equal(few.x_train, again.x_train)
    assert (few.x_train != other.x_train).any()


def test_the_few_images_alone_are_trained_on(monkeypatch):
    few = cnn.draw_pair(SPLIT.x_train, SPLIT.y_train, n=40, seed=0)
    seen = {}

    def remember(x, y, *, epochs, seed):
        seen.update(x=x, y=y, epochs=epochs)
        return cnn.CNN(2, channels=2)

    monkeypatch.setattr(cnn, "train", remember)
    p = cnn.tell_apart(few, steps=150)
    np.testing.assert_array_equal(seen["x"], few.x_train)
    np.testing.assert_array_equal(seen["y"], few.y_train)
    assert seen["epochs"] == 75  # of two batches each
    assert p.shape == (len(few.x_test), 2)


def test_sliding_moves_columns_and_loses_what_leaves():
    x = np.arange(64.0)[None]
    right = cnn.slide(x, right=2).reshape(8, 8)
    np.testing.assert_array_equal(right[:, 2:], x.reshape(8, 8)[:, :6])
    assert (right[:, :2] == 0).all()
    left = cnn.slide(x, right=-3).reshape(8, 8)
    np.testing.assert_array_equal(left[:, :5], x.reshape(8, 8)[:, 3:])
    np.testing.assert_array_equal(cnn.slide(x, right=0), x)


# ---------------------------------------------------------------- bad input


def test_bad_input_is_named(short):
    for call in (cnn.predict_proba, lambda m, x: cnn.gradient(m, x, np.zeros(len(x), int))):
        with pytest.raises(ValueError, match="expected images of 64 pixels, got 784"):
            call(short, np.zeros((1, 784)))
        with pytest.raises(ValueError, match="got NaN"):
            call(short, np.full((1, 64), np.nan))
    with pytest.raises(ValueError, match="expected a batch of images"):
        cnn.predict_proba(short, np.zeros(64))
    with pytest.raises(ValueError, match="expected 40 labels"):
        cnn.train(SOME, SPLIT.y_train[:39])
    with pytest.raises(ValueError, match="each at least once"):
        cnn.train(SOME, 2 * SPLIT.y_train[:40])


# ---------------------------------------------------------------- the study


def test_contenders_answer_with_probabilities_of_new_images():
    x, y, new = SPLIT.x_train[:60], SPLIT.y_train[:60], SPLIT.x_test[:9]
    for name in (*cnn.RIVALS, "dense network", "CNN", "CNN, no variation"):
        p = cnn.answers(name, x, y, new, seed=0, epochs=1)
        assert p.shape == (9, 10)
        np.testing.assert_allclose(p.sum(axis=1), 1)


@pytest.mark.bar
def test_study_runs_at_a_tiny_size(capsys):
    table = cnn.study(seeds=2, epochs=1, draws=2, steps=6)
    printed = capsys.readouterr().out
    assert "CNN, no variation" in printed and "1 or 8" in printed and "±" in printed
    assert table["logistic_regression"]["slid_2"] < table["logistic_regression"]["slid_1"] < 0.9
    assert set(table["pair"]) == {"n4", "n10", "n40", "n100"}
    assert table["pair"]["n100"]["lr"]["mean"] > table["pair"]["n4"]["lr"]["worst"]
    assert set(table["curve"]) == {"n50", "n100", "n200", "n500"}


# ---------------------------------------------------------------- bars


@pytest.mark.bar
def test_digits(full):
    assert metrics.accuracy(cnn.predict_proba(full, SPLIT.x_test), SPLIT.y_test) >= 0.988


@pytest.mark.bar
def test_a_shift_without_variation_spoils_it(full):
    """The failure that the page shows; if it goes away, the page must change."""
    plain = cnn.train(SPLIT.x_train, SPLIT.y_train, vary=None, epochs=10)
    moved = cnn.slide(SPLIT.x_test, right=1)
    scores = [metrics.accuracy(cnn.predict_proba(m, moved), SPLIT.y_test) for m in (plain, full)]
    assert scores[0] < 0.88 and scores[0] < scores[1] - 0.05


@pytest.mark.bar
def test_slope_times_ink_names_the_pixels_that_matter_better_than_the_slope(full):
    x = SPLIT.x_test[:100]
    said = cnn.predict_proba(full, x).argmax(axis=1)
    slope, lost = cnn.gradient(full, x, said), cnn.occlusion(full, x, said)
    product, plain = (cnn.agreement(m, lost, x > 0).mean() for m in (slope * x, np.abs(slope)))
    assert product > 0.5 and plain < 0.35
