"""The autoregressive model: who sees whom, probabilities that sum to one, and how good it is."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import logistic

from snippets.generative import autoregressive as ar
from snippets.shared import digits, sample_quality

SPLIT = digits.load_split(seed=0)
SOME = SPLIT.x_test[:30]
ORDERS = ar.orders()


@pytest.fixture(scope="module")
def short():
    """Good enough to be no special case, trained in two seconds."""
    return ar.train(SPLIT.x_train, SPLIT.y_train, steps=80, seed=3)


@pytest.fixture(scope="module")
def full():
    return ar.train(SPLIT.x_train, SPLIT.y_train)


def untrained(order=range(64), kind=ar.Pixels, more=0.1, **options):
    """Weights at random, larger than at the start of training, and no dropout."""
    torch.manual_seed(1)
    model = kind(order, **options)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(more * torch.randn_like(weights))
    return model.eval()


def tiny():
    """Three pixels of three values and two labels: 27 images in all."""
    model = untrained([2, 0, 1], more=0.5, shape=(1, 3), levels=3, classes=2, width=16)
    model.prior = torch.tensor([0.3, 0.7])
    return model, np.array(list(product(range(3), repeat=3))) / 2


# ---------------------------------------------------------------- who may look at whom


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_pixel_sees_exactly_the_pixels_before_it(order):
    sees = ar.before(order)
    for step, pixel in enumerate(order):
        assert set(np.flatnonzero(sees[pixel])) == set(order[:step])


def test_before_refuses_an_order_that_is_none():
    with pytest.raises(ValueError, match="each of 3 pixels once"):
        ar.before([0, 1, 1])


def test_windows_put_each_seen_pixel_at_its_offset():
    """By hand, for two rows of three pixels: offsets count from two rows and columns above."""
    everyone = np.ones((6, 6), bool)
    table = ar.windows(everyone, (2, 3))  # rows -1 .. 1, columns -2 .. 2
    assert table.shape == (6, 15)
    assert list(table[0]) == [6, 6, 6, 6, 6, 6, 6, 0, 1, 2, 6, 6, 3, 4, 5]
    assert list(table[5]) == [0, 1, 2, 6, 6, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6]


def test_windows_hide_what_may_not_be_seen_and_drop_offsets_without_use():
    table = ar.windows(ar.before(range(64)), (8, 8))
    assert table.shape == (64, 7 * 15 + 7)  # seven rows above, seven pixels to the left
    for pixel in range(64):
        assert sorted(table[pixel][table[pixel] < 64]) == list(range(pixel))


@pytest.mark.parametrize("kind", [ar.Pixels, ar.Made])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_later_pixel_never_changes_an_earlier_conditional(order, kind):
    model, x = untrained(order, kind), torch.tensor(SOME[:4], dtype=torch.float32)
    y = torch.tensor(SPLIT.y_test[:4])
    with torch.no_grad():
        told = model(x, y)
        for step in (0, 1, 31, 63):
            changed, now = x.clone(), list(order[: step + 1])
            changed[:, list(order[step:])] = torch.rand(4, 64 - step)  # itself and all later
            torch.testing.assert_close(model(changed, y)[:, now], told[:, now], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [ar.Pixels, ar.Made])
@pytest.mark.parametrize("name", ["rows", "random"])
def test_the_jacobian_is_strictly_triangular_and_full_below(name, kind):
    table = ar.influence(untrained(ORDERS[name], kind), SOME[0], 3)
    assert table.shape == (64, 64)
    assert (np.triu(table) == 0).all()
    below = table[np.tril_indices(64, -1)]
    assert (below > 0).mean() > 0.95  # each pixel hears all before it


def test_influence_agrees_with_a_finite_difference():
    model, x = untrained(), np.clip(SOME[0], 0.1, 0.9)
    y, i, j, step = torch.tensor([3]), 40, 33, 0.01
    with torch.no_grad():
        up, down = x.copy(), x.copy()
        up[j], down[j] = x[j] + step, x[j] - step
        pair = [model(torch.tensor(v[None], dtype=torch.float32), y)[0, i] for v in (up, down)]
    slope = ((pair[0] - pair[1]) / (2 * step)).abs().max().item()
    assert ar.influence(model, x, 3)[i, j] == pytest.approx(slope, rel=0.02)


def test_influence_shows_a_leak():
    sees = ar.before(range(64)) | np.eye(64, dtype=bool)
    table = ar.influence(untrained(sees=sees), SOME[0], 3)
    assert (np.diag(table) > 0).mean() > 0.95


# ---------------------------------------------------------------- the distribution of a pixel


def test_levels_are_the_bins_of_a_mixture_of_logistics():
    torch.manual_seed(0)
    raw = torch.randn(5, 9).double()
    pi, mu, log_s = (part.numpy() for part in raw.chunk(3, dim=1))
    pi = np.exp(pi) / np.exp(pi).sum(axis=1, keepdims=True)
    middle = np.arange(17) / 8 - 1  # the 17 levels on [-1, 1]
    low, high = middle - 1 / 16, middle + 1 / 16
    low[0], high[-1] = -np.inf, np.inf
    curves = [logistic(mu[:, [k]], np.exp(log_s[:, [k]])) for k in range(3)]
    p = sum(pi[:, [k]] * (curve.cdf(high) - curve.cdf(low)) for k, curve in enumerate(curves))
    oracle = np.log((1 - 1e-5) * p + 1e-5 / 17)
    np.testing.assert_allclose(ar.log_levels(raw, 17).numpy(), oracle, atol=1e-9)


def test_levels_sum_to_one_and_stay_finite_whatever_the_network_says():
    torch.manual_seed(0)
    log_p = ar.log_levels(30 * torch.randn(1000, 9), 17)
    assert torch.isfinite(log_p).all()
    torch.testing.assert_close(log_p.exp().sum(dim=1), torch.ones(1000), atol=1e-5, rtol=0)


def test_levels_pass_on_a_gradient():
    raw = torch.zeros(1, 9, requires_grad=True)
    ar.log_levels(raw, 17)[0, 5].backward()
    assert (raw.grad[0, 3:] != 0).all()


# ---------------------------------------------------------------- the chain rule, enumerated


def test_the_27_images_of_a_tiny_world_sum_to_one():
    model, world = tiny()
    joint = np.exp(ar.log_joint(model, world))
    np.testing.assert_allclose(joint.sum(axis=0), [0.3, 0.7], atol=1e-5)
    assert np.exp(ar.log_prob(model, world)).sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        ar.predict_proba(model, world), joint / joint.sum(axis=1, keepdims=True), atol=1e-6
    )


def test_with_a_leak_the_27_images_sum_to_far_more_than_one():
    _, world = tiny()
    sees = ar.before(range(3)) | np.eye(3, dtype=bool)
    torch.manual_seed(0)
    options = {"shape": (1, 3), "levels": 3, "classes": 2, "width": 16, "drop": 0.0}
    leaky = ar.Pixels(range(3), sees=sees, **options)
    ar.fit(leaky, world, np.arange(27) % 2, steps=150, batch=16, rate=5e-3)
    assert np.exp(ar.log_prob(leaky, world)).sum() > 20


def test_the_label_is_heard_by_every_pixel():
    model, world = tiny()
    x = torch.tensor(world, dtype=torch.float32)
    with torch.no_grad():
        told = [model(x, torch.full((27,), y)) for y in (0, 1)]
    assert ((told[0] - told[1]).abs().amax(dim=2) > 1e-3).all()


def test_draws_come_as_often_as_their_probability_says():
    model, world = tiny()
    labels = np.ones(30_000, int)
    p = np.exp(ar.log_joint(model, world)[:, 1]) / 0.7
    drawn = (2 * ar.sample(model, labels)).astype(int) @ [9, 3, 1]
    often = np.bincount(drawn, minlength=27) / len(labels)
    assert np.abs(often - p).max() < 4 * np.sqrt(p.max() / len(labels))
    assert p.max() > 3 * p.min()  # there was something to get wrong


def test_a_temperature_is_a_power_of_each_conditional():
    model, _ = tiny()
    labels, first = np.zeros(30_000, int), 2  # pixel 2 comes first
    with torch.no_grad():
        p = model(torch.zeros(1, 3), torch.tensor([0]))[0, first].exp().numpy() ** 2
    drawn = 2 * ar.sample(model, labels, temperature=0.5)[:, first]
    often = np.bincount(drawn.astype(int), minlength=3) / len(labels)
    np.testing.assert_allclose(often, p / p.sum(), atol=0.015)


def test_log_joint_is_the_sum_of_conditionals_asked_one_by_one():
    model, x, y = untrained(), torch.tensor(SOME, dtype=torch.float32), 4
    total, labels = np.full(30, np.log(0.1)), torch.full((30,), y)
    with torch.no_grad():
        for i in model.order:
            seen = torch.zeros_like(x)
            seen[:, :i] = x[:, :i]  # nothing but the past
            log_p = model(seen, labels, at=slice(i, i + 1))[:, 0]
            total += log_p[torch.arange(30), (16 * x[:, i]).long()].double().numpy()
    np.testing.assert_allclose(ar.log_joint(model, SOME)[:, y], total, rtol=1e-5)


def test_an_order_turned_with_its_images_gives_the_same_probabilities():
    """By rows on an image is by columns on the transposed image, window weights turned too."""
    rows, columns = untrained(), untrained(ORDERS["columns"])
    turn = np.arange(64).reshape(8, 8).T.ravel()
    spots = [offsets(model) for model in (rows, columns)]
    place = [spots[1].index((b, a)) for a, b in spots[0]]
    with torch.no_grad():
        for name, weights in columns.named_parameters():
            weights.copy_(dict(rows.named_parameters())[name])
        weights = rows.first.weight.unflatten(1, (-1, 2))
        columns.first.weight.unflatten(1, (-1, 2))[:, place] = weights
        columns.start.copy_(rows.start[:, turn])
    ours, theirs = ar.log_prob(rows, SOME), ar.log_prob(columns, SOME[:, turn])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def offsets(model):
    """Row and column offset that each entry of the window stands for."""
    table, found = model.window.numpy(), []
    for column in table.T:
        i = np.flatnonzero(column < 64)[0]
        found.append((column[i] // 8 - i // 8, column[i] % 8 - i % 8))
    return found


# ---------------------------------------------------------------- training and the verbs


def test_one_loss_is_the_mean_cost_of_an_image(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "randint", lambda *_: torch.arange(100))
    model = ar.Pixels(range(64), drop=0.0)
    x, y = SPLIT.x_train[:100], SPLIT.y_train[:100]
    fitted = ar.fit(model, x, y, steps=1, batch=100, rate=1e-9)
    share = np.bincount(y) / 100
    cost = -(ar.log_joint(fitted, x)[np.arange(100), y] - np.log(share[y])).mean()
    assert fitted.history[0] == pytest.approx(cost, rel=1e-4)


def test_training_learns_the_shares_of_the_labels(short):
    shares = np.bincount(SPLIT.y_train) / len(SPLIT.y_train)
    np.testing.assert_allclose(short.prior.numpy(), shares, rtol=1e-6)


def test_dropout_turns_units_off_for_a_whole_image_and_never_in_use():
    model, h = ar.Pixels(range(64)).thin, torch.ones(50, 64, 128)
    torch.manual_seed(0)
    thin = model.train()(h)
    assert (thin == thin[:, :1]).all()
    assert (thin[:, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert thin.mean().item() == pytest.approx(1, abs=0.05)
    assert (model.eval()(h) == h).all()


def test_training_repeats_and_leaves_the_callers_random_stream_alone():
    before = torch.random.get_rng_state()
    x, y = SPLIT.x_train[:100], SPLIT.y_train[:100]
    first, again, other = (ar.train(x, y, steps=4, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.history, again.history)
    assert not np.array_equal(first.history, other.history)
    assert not first.training


def test_going_on_keeps_the_beginning_and_repeats(short):
    labels = SPLIT.y_test[:30]
    on = ar.go_on(short, SOME, labels, start=32, seed=1)
    np.testing.assert_array_equal(on[:, :32], SOME[:, :32])
    assert (on[:, 32:] != SOME[:, 32:]).any()
    np.testing.assert_array_equal(on, ar.go_on(short, SOME, labels, start=32, seed=1))
    np.testing.assert_array_equal(SOME, SPLIT.x_test[:30])  # the caller's images
    np.testing.assert_array_equal(on * 16, np.round(on * 16))


def test_going_on_looks_at_the_beginning_and_not_at_what_is_to_be_drawn(short):
    labels, other = SPLIT.y_test[:30], SOME.copy()
    other[:, 32:] = 1 - other[:, 32:]
    on = ar.go_on(short, SOME, labels, start=32)
    np.testing.assert_array_equal(on, ar.go_on(short, other, labels, start=32))
    other[:, :32] = 0
    assert (on[:, 32:] != ar.go_on(short, other, labels, start=32)[:, 32:]).any()


@pytest.mark.bar
def test_labels_are_obeyed(full):
    labels = np.arange(200) % 10
    _, says = sample_quality.ask_judge(ar.sample(full, labels))
    assert (says.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.parametrize("verb", [ar.log_prob, ar.predict_proba])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (SOME[:, :63], "expected images of 64 pixels, got 63"),
        (SOME[0], "pass image\\[None\\]"),
        (16 * SOME, "divide by 16"),
        (np.where(SOME > 0.9, np.nan, SOME), "NaN"),
        (SOME[:0], "in \\[0, 1\\]"),
        (SOME * 0.99, "sixteenths"),
    ],
)
def test_bad_images_are_refused_in_words(short, verb, x, message):
    with pytest.raises(ValueError, match=message):
        verb(short, x)


def test_other_bad_input_is_refused_in_words(short):
    with pytest.raises(ValueError, match="divide by 16"):
        ar.train(16 * SPLIT.x_train, SPLIT.y_train)
    for labels in ([10], [-1], [0.5], [[1]]):
        with pytest.raises(ValueError, match="expected 1 labels, 0-9"):
            ar.sample(short, labels)
    with pytest.raises(ValueError, match="expected 30 labels"):
        ar.go_on(short, SOME, [1, 2], start=3)
    with pytest.raises(ValueError, match="temperature above 0"):
        ar.sample(short, [1], temperature=0)


@pytest.mark.bar
def test_study_prints_its_table_at_a_tiny_size(capsys):
    table = ar.study(seeds=1, steps=6, draws=360)
    printed = capsys.readouterr().out
    assert "spiral, outwards" in printed and "±" in printed
    assert {"bits", "fd", "tstr", "draw_seconds", "parameters"} <= set(table["contest"])
    five = [table[name]["bits"] for name in ("rows", "columns", "random")]
    assert table["the_five_mixed"]["bits"] < max(five) + np.log2(5) / 64  # a fifth of the worst
    assert table["training_images"]["copying"] == 0


# ---------------------------------------------------------------- the bars


@pytest.mark.bar
def test_bits_per_pixel(full):
    assert ar.bits(ar.log_prob(full, SPLIT.x_test)) < 1.85  # asked for: 2.15, aimed at: 2.00


@pytest.mark.bar
def test_draws_and_classes(full):
    labels = np.arange(720) % 10
    drawn = ar.sample(full, labels)
    seen = [sample_quality.ask_judge(x)[0] for x in (drawn, SPLIT.x_test)]
    assert sample_quality.frechet_distance(*seen) < 0.8
    says = ar.predict_proba(full, SPLIT.x_test).argmax(axis=1)
    assert (says == SPLIT.y_test).mean() > 0.95
    assert sample_quality.copying_ratio(drawn, SPLIT.x_train, SPLIT.x_test) > 0.8


@pytest.mark.bar
def test_a_leak_looks_wonderful_and_draws_nothing(full):
    sees = ar.before(range(64)) | np.eye(64, dtype=bool)
    leaky = ar.train(SPLIT.x_train, SPLIT.y_train, sees=sees, steps=150)
    assert ar.bits(ar.log_prob(leaky, SPLIT.x_test)) < 1.2
    labels = np.arange(200) % 10
    _, says = sample_quality.ask_judge(ar.sample(leaky, labels))
    assert (says.argmax(axis=1) == labels).mean() < 0.5
