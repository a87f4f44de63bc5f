"""Neural networks by hand: equal to torch's and scikit-learn's, and what layers promise."""

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate, shift
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from snippets.discriminative import neural_networks as nets
from snippets.discriminative.neural_networks import Model, backward, forward, loss, start
from snippets.shared import digits, metrics

SPLIT = digits.load_split(seed=0)
SOME = SPLIT.x_train[:60]


def assert_close(found, expected, *, atol=1e-9):
    """Of two tensors; torch's own comparison takes ten seconds to import."""
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), atol=atol)


@pytest.fixture(scope="module")
def short():
    """Trained for a moment, so that its weights are no special case."""
    return nets.train(SPLIT.x_train[:300], SPLIT.y_train[:300], hidden=(24, 12), epochs=15)


@pytest.fixture(scope="module")
def full():
    return nets.train(SPLIT.x_train, SPLIT.y_train)


def doubles(sizes, seed=0):
    """A network with random weights and biases in double precision."""
    model, random = start(sizes, seed=seed), torch.Generator().manual_seed(seed + 1)
    biases = [0.3 * torch.randn(b.shape, generator=random) for b in model.biases]
    return Model([w.double() for w in model.weights], [b.double() for b in biases])


def batch(count=12, pixels=5, classes=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, pixels, generator=random).double()
    return x, torch.arange(count) % classes


def as_torch(model):
    """The same network, built of torch's own layers."""
    layers = []
    for weight, bias in zip(*model):
        layer = torch.nn.Linear(*weight.shape, dtype=weight.dtype)
        layer.weight.data, layer.bias.data = weight.T.clone(), bias.clone()
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


# ---------------------------------------------------------------- oracle


@pytest.mark.parametrize("hidden", [(), (4,), (6, 5)])
def test_scores_are_those_of_torch_layers(hidden):
    model, (x, _) = doubles([5, *hidden, 3]), batch()
    assert_close(forward(model, x)[-1], as_torch(model)(x))


def test_probabilities_are_those_of_scikit_learn():
    x, y = SOME, SPLIT.y_train[:60]
    oracle = MLPClassifier((9, 7), max_iter=3, random_state=0)
    with pytest.warns(ConvergenceWarning):
        oracle.fit(x, y)
    weights = [torch.tensor(w, dtype=torch.float32) for w in oracle.coefs_]
    biases = [torch.tensor(b, dtype=torch.float32) for b in oracle.intercepts_]
    p = nets.predict_proba(Model(weights, biases), x)
    np.testing.assert_allclose(p, oracle.predict_proba(x), atol=1e-5)


def test_loss_is_cross_entropy():
    model, (x, y) = doubles([5, 4, 3]), batch()
    oracle = torch.nn.functional.cross_entropy(as_torch(model)(x), y)
    assert_close(loss(model, x, y), oracle)


@pytest.mark.parametrize("hidden", [(), (4,), (6, 5), (4, 4, 4)])
def test_slopes_are_those_of_autograd(hidden):
    model, (x, y) = doubles([5, *hidden, 3]), batch()
    by_hand, oracle = backward(model, forward(model, x), y), as_torch(model)
    torch.nn.functional.cross_entropy(oracle(x), y).backward()
    layers = [layer for layer in oracle if isinstance(layer, torch.nn.Linear)]
    for layer, weight, bias in zip(layers, by_hand.weights, by_hand.biases):
        assert_close(weight, layer.weight.grad.T)
        assert_close(bias, layer.bias.grad)


def test_slopes_are_those_of_finite_differences():
    model, (x, y) = doubles([3, 4, 4, 2]), batch(count=6, pixels=3, classes=2)
    by_hand = backward(model, forward(model, x), y)
    for part, slopes in zip(model, by_hand):
        for p, slope in zip(part, slopes):
            for place in np.ndindex(*p.shape):
                value, sides = p[place].item(), []
                for step in (1e-6, -1e-6):
                    p[place] = value + step
                    sides.append(loss(model, x, y).item())
                p[place] = value
                assert slope[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, abs=1e-7)


def test_training_takes_steps_with_momentum_and_decay():
    """Slopes by autograd; decay of the weights alone, steps that shrink to nothing."""
    x, y, settings = SOME, SPLIT.y_train[:60], {"batch": 25, "epochs": 4}
    mine = nets.train(x, y, hidden=(9,), rate=0.2, momentum=0.8, decay=0.05, seed=3, **settings)
    oracle, random = as_torch(start([64, 9, 10], seed=3)), torch.Generator().manual_seed(3)
    images, labels = torch.tensor(x).float(), torch.tensor(y)
    parameters = list(oracle.parameters())
    speed = [torch.zeros_like(p) for p in parameters]
    order = [part for _ in range(4) for part in torch.randperm(60, generator=random).split(25)]
    for step, some in enumerate(order):
        cost = torch.nn.functional.cross_entropy(oracle(images[some]), labels[some])
        for p, v, slope in zip(parameters, speed, torch.autograd.grad(cost, parameters)):
            pull = 0.05 * p.detach() if p.ndim == 2 else 0
            v.mul_(0.8).sub_(0.2 * (1 - step / len(order)) * (slope + pull))
            p.data.add_(v)
    for weight, bias, layer in zip(*mine, oracle[::2]):
        assert_close(weight, layer.weight.detach().T, atol=1e-5)
        assert_close(bias, layer.bias.detach(), atol=1e-5)


def test_without_hidden_layers_it_is_logistic_regression():
    x, y = SPLIT.x_train[:200], SPLIT.y_train[:200]
    model = nets.train(x, y, hidden=(), epochs=300, batch=200, rate=2.0, decay=0.01)
    oracle = LogisticRegression(C=1 / (0.01 * 200), tol=1e-8, max_iter=999).fit(x, y)
    np.testing.assert_allclose(nets.predict_proba(model, x), oracle.predict_proba(x), atol=2e-3)


# ---------------------------------------------------------------- invariants


def test_units_may_change_places_and_scales(short):
    """Permute hidden units, double what goes in and halve what comes out: the same function."""
    order, scale = torch.randperm(24, generator=torch.Generator().manual_seed(0)), 2.0
    first, second, third = short.weights
    moved = Model(
        [scale * first[:, order], second[order] / scale, third],
        [scale * short.biases[0][order], *short.biases[1:]],
    )
    a, b = (nets.predict_proba(model, SOME) for model in (short, moved))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_hidden_layers_are_cut_at_zero_and_scores_are_not(short):
    layers = forward(short, nets.as_tensor(SOME, pixels=64))
    assert [layer.shape[1] for layer in layers] == [64, 24, 12, 10]
    for hidden in layers[1:-1]:
        assert hidden.min() == 0 and (hidden > 0).any()
    assert layers[-1].min() < 0


def test_between_folds_the_network_is_straight(short):
    """Two images with the same units on: half-way between them the scores are half-way too."""
    x = nets.as_tensor(SOME[:1], pixels=64).double()
    model = Model(*([p.double() for p in part] for part in short))
    near = x + 1e-5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    for a, b in zip(forward(model, x)[1:-1], forward(model, near)[1:-1]):
        assert torch.equal(a > 0, b > 0)
    left, right, middle = (forward(model, image)[-1] for image in (x, near, (x + near) / 2))
    assert_close(middle, (left + right) / 2, atol=1e-12)


def test_a_unit_that_is_off_is_taught_nothing():
    model, (x, y) = doubles([5, 4, 3]), batch()
    model.biases[0][2] = -100
    slopes = backward(model, forward(model, x), y)
    assert slopes.weights[0][:, 2].abs().max() == 0 == slopes.biases[0][2]
    assert slopes.weights[0][:, [0, 1, 3]].abs().max() > 0


def test_slopes_of_a_batch_are_the_mean_of_those_of_its_images():
    model, (x, y) = doubles([5, 4, 3]), batch()
    whole = backward(model, forward(model, x), y)
    each = [backward(model, forward(model, x[k : k + 1]), y[k : k + 1]) for k in range(len(x))]
    for k in (0, 1):
        mean = torch.stack([one.weights[k] for one in each]).mean(dim=0)
        assert_close(whole.weights[k], mean)


def test_backward_leaves_the_forward_pass_alone():
    model, (x, y) = doubles([5, 4, 3]), batch()
    layers = forward(model, x)
    before = [layer.clone() for layer in layers]
    backward(model, layers, y)
    for layer, same in zip(layers, before):
        assert torch.equal(layer, same)


def test_the_start_keeps_the_spread_of_the_sums():
    """Mean square of the sums, layer after layer, for inputs of mean square one."""
    model = start([400, 400, 400, 400, 400], seed=1)
    x = torch.randn(200, 400, generator=torch.Generator().manual_seed(0))
    for layer in forward(model, x)[1:-1]:
        assert 2 * (layer**2).mean().item() == pytest.approx(2, rel=0.25)


def test_the_start_follows_the_seed_and_units_differ():
    a, again, other = (start([8, 6, 3], seed=s) for s in (1, 1, 2))
    assert torch.equal(a.weights[0], again.weights[0])
    assert not torch.equal(a.weights[0], other.weights[0])
    assert len(np.unique(a.weights[0].numpy(), axis=1).T) == 6


def test_probabilities_are_probabilities_even_far_away(short):
    for scale in (1.0, 1e4):
        p = nets.predict_proba(short, scale * SOME)
        assert p.shape == (60, 10) and np.isfinite(p).all() and (p >= 0).all()
        np.testing.assert_allclose(p.sum(axis=1), 1)


def test_far_away_it_is_certain(short):
    tops = [nets.predict_proba(short, scale * SOME).max(axis=1).mean() for scale in (1, 10, 1e3)]
    assert tops == sorted(tops) and tops[-1] > 0.99


# ---------------------------------------------------------------- training


def test_training_follows_its_seed_alone_and_leaves_its_input():
    x, y = SOME.copy(), SPLIT.y_train[:60]
    torch.manual_seed(5)
    a = nets.train(x, y, hidden=(4,), epochs=2, seed=1)
    torch.manual_seed(6)
    again, other = (nets.train(x, y, hidden=(4,), epochs=2, seed=s) for s in (1, 2))
    assert torch.equal(a.weights[0], again.weights[0])
    assert not torch.equal(a.weights[0], other.weights[0])
    np.testing.assert_array_equal(x, SOME)


def test_the_order_of_the_images_is_new_in_each_epoch():
    seen = []

    def vary(images, random):
        seen.append(images[:, :].sum(dim=1).tolist())
        return images

    nets.train(SOME, SPLIT.y_train[:60], hidden=(4,), epochs=2, batch=60, vary=vary)
    assert seen[0] != seen[1]
    np.testing.assert_allclose(sorted(seen[0]), sorted(seen[1]))


def test_watch_sees_the_model_after_each_epoch():
    worth = []
    x, y = SPLIT.x_train[:200], SPLIT.y_train[:200]

    def watch(model):
        worth.append(metrics.log_loss(nets.predict_proba(model, x), y))

    model = nets.train(x, y, hidden=(16,), epochs=12, watch=watch)
    assert len(worth) == 12 and worth[-1] < 0.5 * worth[0]
    assert worth[-1] == metrics.log_loss(nets.predict_proba(model, x), y)


def test_decay_shrinks_weights():
    sizes = [
        sum(w.abs().sum() for w in nets.train(SOME, SPLIT.y_train[:60], decay=d, epochs=20).weights)
        for d in (0.0, 0.1)
    ]
    assert sizes[1] < 0.5 * sizes[0]


def test_jitter_is_a_turn_and_a_shift():
    x = torch.tensor(SPLIT.x_train[:5], dtype=torch.float32)
    random = torch.Generator().manual_seed(0)
    assert_close(nets.jitter(x, random, turn=0, shift=0), x, atol=1e-6)
    random = torch.Generator().manual_seed(4)
    by = 2 * torch.rand(5, 3, generator=random) - 1
    moved = nets.jitter(x, torch.Generator().manual_seed(4), turn=0, shift=1.5).view(-1, 8, 8)
    for image, original, (_, across, up) in zip(moved.numpy(), x.view(-1, 8, 8).numpy(), by):
        oracle = shift(original, (-1.5 * up, -1.5 * across), order=1)
        np.testing.assert_allclose(image[2:6, 2:6], oracle[2:6, 2:6], atol=1e-3)
    turned = nets.jitter(x, torch.Generator().manual_seed(4), turn=30, shift=0).view(-1, 8, 8)
    for image, original, (angle, _, _) in zip(turned.numpy(), x.view(-1, 8, 8).numpy(), by):
        oracle = rotate(original, 30 * float(angle), reshape=False, order=1)
        np.testing.assert_allclose(image[2:6, 2:6], oracle[2:6, 2:6], atol=1e-3)


# ---------------------------------------------------------------- bad input


def test_bad_images_are_named(short):
    for x, message in (
        (np.zeros((1, 784)), "expected images of 64 pixels, got 784"),
        (np.zeros(64), "expected a batch of images"),
        (np.full((1, 64), np.nan), "got NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            nets.predict_proba(short, x)


def test_bad_training_data_is_named():
    with pytest.raises(ValueError, match="expected 60 labels"):
        nets.train(SOME, SPLIT.y_train[:59])
    with pytest.raises(ValueError, match="each at least once"):
        nets.train(SOME, 2 * SPLIT.y_train[:60])
    with pytest.raises(ValueError, match="got NaN"):
        nets.train(np.where(SOME > 0.9, np.nan, SOME), SPLIT.y_train[:60])


# ---------------------------------------------------------------- the study


def test_the_rate_is_chosen_on_images_that_were_not_trained_on(monkeypatch):
    """A rate that learns the training part by heart must not be preferred for that."""
    trained_on = []

    def remember(x, y, *, rate):
        trained_on.append(x)
        return rate

    def right_only_for_seen(rate, x):
        seen = (x[:, None] == trained_on[-1][None]).all(axis=2).any(axis=1)
        p = np.full((len(x), 10), 0.1 if rate == 1 else 0.05)
        p[seen] = 0.0 if rate == 1 else 1.0
        return p

    monkeypatch.setattr(nets, "train", remember)
    monkeypatch.setattr(nets, "predict_proba", right_only_for_seen)
    assert nets.chosen_rate(SPLIT.x_train[:400], SPLIT.y_train[:400], rates=(1, 2)) == 1


def test_stopping_early_gives_the_best_epoch_of_the_images_kept_aside(monkeypatch):
    """Epoch 2 of 4 is best on those; its answer for new images is the one that is returned."""

    def pretend(x, y, *, watch, **settings):
        assert len(x) == 80
        for epoch in range(4):
            watch(epoch)

    def worth(epoch, x):
        right = (0.2, 0.4, 0.9, 0.6)[epoch]
        return np.full((len(x), 10), right if len(x) == 20 else epoch)

    monkeypatch.setattr(nets, "train", pretend)
    monkeypatch.setattr(nets, "predict_proba", worth)
    x, y = SPLIT.x_train[:100], SPLIT.y_train[:100]
    found = nets.stopped_early(x, y, SPLIT.x_test[:7], epochs=4, seed=0)
    np.testing.assert_array_equal(found, np.full((7, 10), 2))


def test_parts_are_trained_on_the_rest_of_the_file():
    sizes = []

    def fit(x, y, new):
        sizes.append((len(x), len(new)))
        assert not (x[:, None, :] == new[None, :40]).all(axis=2).any()
        return np.eye(10)[np.zeros(len(new), int)]

    scores = nets.by_parts(fit, folds=3)
    assert sizes == [(1198, 599)] * 3
    assert np.mean(scores) == pytest.approx(178 / 1797)


@pytest.mark.bar
def test_study_runs_at_a_tiny_size(capsys):
    table = nets.study(seeds=2, epochs=2, shapes=[(), (8,)], folds=2)
    printed = capsys.readouterr().out
    assert "none" in printed and "SVM" in printed and "±" in printed
    assert set(table) == {"h", "h8", "parts_plain", "parts_jitter", "few"}
    assert table["few"]["4_times_the_images"]["accuracy"] > 0.5
    assert table["h"]["accuracy"] > 0.8


# ---------------------------------------------------------------- bars


@pytest.mark.bar
def test_digits(full):
    p = nets.predict_proba(full, SPLIT.x_test)
    assert metrics.accuracy(p, SPLIT.y_test) >= 0.965
    other = digits.load_split(seed=1)
    p = nets.predict_proba(nets.train(*other[:2]), other.x_test)
    assert metrics.accuracy(p, other.y_test) >= 0.965


@pytest.mark.bar
def test_it_learns_few_images_by_heart():
    few = digits.hold_out(*SPLIT[:2], size=len(SPLIT.x_train) - 100)
    model = nets.train(*few[:2], epochs=300)
    assert metrics.accuracy(nets.predict_proba(model, few.x_train), few.y_train) == 1
    assert metrics.accuracy(nets.predict_proba(model, SPLIT.x_test), SPLIT.y_test) < 0.95


@pytest.mark.bar
def test_sure_of_inverted_digits_and_wrong(full):
    """The failure that the page shows; if it goes away, the page must change."""
    p = nets.predict_proba(full, 1 - SPLIT.x_test)
    assert p.max(axis=1).mean() > 0.7
    assert metrics.accuracy(p, SPLIT.y_test) < 0.1
