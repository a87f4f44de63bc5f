"""The kit that judges samples: each measure on sets whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from snippets.discriminative import convolutional_networks as cnn
from snippets.shared import digits
from snippets.shared import sample_quality as kit

SPLIT = digits.load_split(seed=0)
SOME = SPLIT.x_test[:60]


def clouds(*, d, n=400, seed=0):
    """Two Gaussian clouds (n, d) that differ in mean, width and direction."""
    random = np.random.default_rng(seed)
    maps = random.standard_normal((2, d, d))
    return [random.standard_normal((n, d)) @ m + 3 * k for k, m in enumerate(maps)]


@pytest.fixture(scope="module")
def network():
    model = cnn.CNN()
    model.load_state_dict(kit.judge_weights())
    return model


# ---------------------------------------------------------------- rounding and the judge


def test_rounded_images_are_sixteenths_between_0_and_1():
    x = np.tile(np.linspace(-0.3, 1.3, 64), (3, 1))
    found = kit.rounded(x)
    np.testing.assert_array_equal(16 * found, np.round(16 * found))
    assert found.min() == 0 and found.max() == 1
    assert np.abs(found - x.clip(0, 1)).max() <= 1 / 32
    np.testing.assert_array_equal(kit.rounded(SOME), SOME)


def test_the_judge_is_the_lessons_network_with_the_kept_weights(network):
    seen, says = kit.ask_judge(SOME)
    images = torch.tensor(SOME, dtype=torch.float32).view(-1, 1, 8, 8)
    with torch.no_grad():
        oracle = network.maps(images)[-1].mean(dim=(2, 3)).numpy()
    assert seen.shape == (60, 64) and says.shape == (60, 10)
    np.testing.assert_allclose(seen, oracle, atol=1e-5)
    np.testing.assert_allclose(says, cnn.predict_proba(network, SOME), atol=1e-5)


def test_the_judge_sees_rounded_images():
    blurred = SOME + 0.02 * np.random.default_rng(0).random(SOME.shape) - 0.01
    np.testing.assert_array_equal(kit.ask_judge(blurred)[0], kit.ask_judge(SOME)[0])


def test_the_judge_looks_at_each_image_by_itself():
    seen, says = kit.ask_judge(SOME)
    turned = kit.ask_judge(SOME[::-1])
    np.testing.assert_allclose(turned[0][::-1], seen, atol=1e-5)
    np.testing.assert_allclose(kit.ask_judge(SOME[:7])[1], says[:7], atol=1e-5)
    np.testing.assert_allclose(says.sum(axis=1), 1)


def test_the_judge_reads_test_images():
    right = kit.ask_judge(SPLIT.x_test)[1].argmax(axis=1) == SPLIT.y_test
    assert right.mean() >= 0.99


# ---------------------------------------------------------------- the Fréchet distance


def test_frechet_distance_of_identical_sets_is_zero():
    seen = kit.ask_judge(SPLIT.x_test)[0]
    assert kit.frechet_distance(seen, seen) == pytest.approx(0, abs=1e-4)


def test_frechet_distance_in_one_dimension_has_a_closed_form():
    a, b = clouds(d=1)
    oracle = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert kit.frechet_distance(a, b) == pytest.approx(oracle)


@pytest.mark.parametrize("d", [2, 3, 7])
def test_frechet_distance_equals_that_by_matrix_root(d):
    a, b = clouds(d=d, seed=d)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    gap, root = a.mean(axis=0) - b.mean(axis=0), sqrtm(cov_a @ cov_b).real
    oracle = gap @ gap + np.trace(cov_a + cov_b - 2 * root)
    assert kit.frechet_distance(a, b) == pytest.approx(oracle)
    assert kit.frechet_distance(b, a) == pytest.approx(oracle)


def test_frechet_distance_of_a_shifted_cloud_is_the_shift_squared():
    a, _ = clouds(d=3)
    shift = np.array([3.0, 0.0, -4.0])
    assert kit.frechet_distance(a + 10, a + 10 + shift) == pytest.approx(25)


def test_frechet_distance_stands_columns_that_never_vary():
    a, b = clouds(d=4)
    a[:, 1] = b[:, 1] = 7.0
    a[:, 2] = a[:, 3]
    rest = [0, 2, 3]
    found = kit.frechet_distance(a, b)
    assert np.isfinite(found)
    assert found == pytest.approx(kit.frechet_distance(a[:, rest], b[:, rest]), abs=1e-5)


# ---------------------------------------------------------------- precision and recall


def test_identical_sets_have_precision_and_recall_one():
    assert kit.precision_recall(SOME, SOME) == (1.0, 1.0)


def test_precision_and_recall_of_hand_placed_points():
    """With k = 1 each real point's ball has radius 1, except that of the point at 10: 7."""
    real = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    fake = np.array([[0.5], [0.6], [3.5], [18.0]])
    # The fakes' balls: 0.5 and 0.6 reach 0.1, 3.5 reaches 2.9, 18 reaches 14.5; 0 is in none.
    assert kit.precision_recall(fake, real, k=1) == (3 / 4, 4 / 5)


def test_k_counts_fellows_and_not_the_point_itself():
    cloud = np.arange(6.0)[:, None]
    probes = np.array([[-1.9], [-2.1]])
    assert kit.covered(probes, cloud, k=2) == 0.5
    assert kit.covered(probes, cloud, k=1) == 0.0


def test_precision_and_recall_change_places_with_the_sets():
    a, b = clouds(d=2, n=50)
    precision, recall = kit.precision_recall(a, b, k=3)
    assert kit.precision_recall(b, a, k=3) == (recall, precision)
    assert precision != recall


def test_a_collapsed_set_is_precise_and_recalls_little():
    seen = kit.ask_judge(SPLIT.x_test)[0]
    ones = kit.ask_judge(SPLIT.x_train[SPLIT.y_train == 1])[0]
    precision, recall = kit.precision_recall(ones, seen)
    assert precision > 0.9 and recall < 0.25


# ---------------------------------------------------------------- the forest


def test_the_forest_cannot_tell_halves_of_one_set():
    a, b = SPLIT.x_train[:300], SPLIT.x_train[300:600]
    error = (1 / 12 * 2 / 300) ** 0.5  # of an AUC, if nothing can be told
    assert abs(kit.two_sample_auc(a, b) - 0.5) < 4 * error


def test_the_forest_tells_noise():
    noise = np.random.default_rng(0).integers(0, 17, (60, 64)) / 16
    assert kit.two_sample_auc(noise, SOME) > 0.95


def test_copies_of_the_real_images_push_the_auc_below_one_half():
    assert kit.two_sample_auc(SOME, SOME) < 0.3


# ---------------------------------------------------------------- labels, copies, bits


def test_what_is_trained_on_synthetic_answers_as_the_synthetic_labels_say():
    x, y = SPLIT.x_train[:400], SPLIT.y_train[:400]
    truth = SPLIT.x_test, SPLIT.y_test
    assert kit.train_on_synthetic(x, y, *truth) > 0.9
    assert kit.train_on_synthetic(x, (y + 1) % 10, *truth) < 0.05
    only = np.full(400, 3)
    assert kit.train_on_synthetic(x, only, *truth) == np.mean(SPLIT.y_test == 3)


def test_copying_is_zero_for_copies_and_one_for_new_real_images():
    assert kit.copying_ratio(SPLIT.x_train[:50], SPLIT.x_train, SPLIT.x_test) == 0
    assert kit.copying_ratio(SPLIT.x_test, SPLIT.x_train, SPLIT.x_test) == 1


def test_copying_compares_medians_of_the_nearest_distances():
    train, test = np.zeros((2, 64)), np.zeros((3, 64))
    test[:, 0], fake = [0.5, 1.0, 9.0], np.zeros((3, 64))
    fake[:, 0] = [1.0, 2.0, 3.0]
    assert kit.copying_ratio(fake, train, test) == 2


def test_a_uniform_over_17_values_costs_their_logarithm():
    assert kit.bits_per_dim(np.full(5, -64 * np.log(17))) == pytest.approx(np.log2(17))
    assert kit.bits_per_dim(np.full(5, -3 * np.log(2)), dims=3) == pytest.approx(1)


# ---------------------------------------------------------------- all together


def test_the_test_images_themselves_assess_as_copies_of_the_test():
    found = kit.assess(SPLIT.x_test, labels=SPLIT.y_test)
    assert found["fd"] == pytest.approx(0, abs=1e-4)
    assert (found["precision"], found["recall"], found["copying"]) == (1, 1, 1)
    assert found["auc"] < 0.3 and found["tstr"] > 0.99 and found["agreement"] > 0.99


def test_assess_takes_parts_in_turn_and_the_distance_of_all(monkeypatch):
    seen = []
    monkeypatch.setattr(kit, "two_sample_auc", lambda fake, real: seen.append(fake) or len(seen))
    x = SPLIT.x_train[:720]
    found = kit.assess(x)
    assert set(found) == {"fd", "precision", "recall", "auc", "copying"}
    np.testing.assert_array_equal(np.vstack(seen), x)
    assert found["auc"] == 1.5
    real, fake = kit.ask_judge(SPLIT.x_test)[0], kit.ask_judge(x)[0]
    assert found["fd"] == pytest.approx(kit.frechet_distance(fake, real))
    halves = [kit.precision_recall(half, real) for half in (fake[:360], fake[360:])]
    np.testing.assert_allclose((found["precision"], found["recall"]), np.mean(halves, axis=0))


def test_spread_is_the_mean_and_the_deviation_of_seeds():
    found = kit.spread([{"fd": 1.0}, {"fd": 2.0}, {"fd": 6.0}])
    assert found == {"fd": 3.0, "fd_sd": pytest.approx(np.std([1, 2, 6], ddof=1))}
    assert kit.spread([{"fd": 1.0}]) == {"fd": 1.0, "fd_sd": 0.0}


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kit.rounded(SOME[:, :63]), "expected images of 64 pixels, got 63"),
        (lambda: kit.rounded(SOME[0]), r"pass image\[None\]"),
        (lambda: kit.ask_judge(np.where(SOME > 0.9, np.nan, SOME)), "finite pixels"),
        (lambda: kit.frechet_distance(SOME[:1], SOME), "at least two rows"),
        (lambda: kit.precision_recall(SOME[:5], SOME), "more than k=5 rows"),
        (lambda: kit.two_sample_auc(SOME[:9], SOME), "expected 60 fakes, got 9"),
        (lambda: kit.assess(SOME), "expected a multiple of 360 images, got 60"),
        (lambda: kit.assess(SOME[:0]), "expected a multiple of 360 images, got 0"),
        (lambda: kit.spread([]), "at least one row"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_are_one_for_each_image(monkeypatch):
    monkeypatch.setattr(kit, "two_sample_auc", lambda fake, real: 0.5)
    with pytest.raises(ValueError, match="expected 360 labels"):
        kit.assess(SPLIT.x_train[:360], labels=np.arange(36) % 10)
