"""Judging samples: the judge and its kept weights, the sets that fool, and what fools the judge.

The measures themselves are tested in `tests/shared/test_sample_quality.py`.
"""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from snippets.generative import sample_quality as lesson
from snippets.shared import digits
from snippets.shared import sample_quality as kit

X, Y, NEW, TRUTH = digits.load_split(seed=0)


@pytest.fixture(scope="module")
def judge():
    return lesson.kept_judge()


def draw(name, **options):
    """A set of the lesson before rounding, 200 images, and its labels."""
    labels = np.arange(200) % 10
    maker = lesson.SETS[name]
    return maker(X, Y, labels, np.random.default_rng(0), **options), labels


# ---------------------------------------------------------------- the judge


def test_the_kept_judge_sees_and_says_what_the_kit_does(judge):
    seen, says = kit.ask_judge(NEW)
    np.testing.assert_allclose(lesson.encode(judge, NEW), seen, atol=1e-5)
    np.testing.assert_allclose(lesson.predict_proba(judge, NEW), says, atol=1e-5)


def test_the_judge_is_trained_on_rounded_images_with_its_seed():
    few, blurred = X[:100], X[:100] + 0.01
    first = lesson.train(few, Y[:100], epochs=1, seed=3).state_dict()
    for x, seed, same in ((blurred, 3, True), (few, 4, False)):
        again = lesson.train(x, Y[:100], epochs=1, seed=seed).state_dict()
        assert torch.equal(again["last.weight"], first["last.weight"]) == same


def test_the_judge_rounds_what_it_is_shown(judge):
    for verb in (lesson.encode, lesson.predict_proba):
        np.testing.assert_array_equal(verb(judge, NEW[:9] + 0.01), verb(judge, NEW[:9]))


@pytest.mark.parametrize("verb", [lesson.encode, lesson.predict_proba])
def test_bad_images_are_refused_in_words(judge, verb):
    with pytest.raises(ValueError, match="expected images of 64 pixels, got 63"):
        verb(judge, NEW[:, :63])
    with pytest.raises(ValueError, match="finite pixels"):
        verb(judge, np.full((2, 64), np.nan))


@pytest.mark.bar
def test_a_fresh_training_gives_the_kept_judge(judge):
    fresh = lesson.train(X, Y)
    right = lesson.predict_proba(fresh, NEW).argmax(axis=1) == TRUTH
    assert right.mean() >= 0.99
    kept, seen = (lesson.encode(model, NEW) for model in (judge, fresh))
    if np.abs(kept - seen).max() > 1e-3:  # another processor adds in another order
        order = [np.argsort([kit.frechet_distance(lesson.encode(model, x), eyes)
                             for x in (X, draw("class_gaussian")[0], NEW[:180] ** 2, 1 - NEW)])
                 for model, eyes in ((judge, kept), (fresh, seen))]  # fmt: skip
        np.testing.assert_array_equal(*order)


# ---------------------------------------------------------------- the sets


@pytest.mark.parametrize("name", lesson.SETS)
def test_sets_are_images_in_sixteenths_that_follow_the_seed(name):
    fake, labels = lesson.fakes(name, n=60, seed=1)
    assert fake.shape == (60, 64) and labels.shape == (60,)
    np.testing.assert_array_equal(fake, kit.rounded(fake))
    np.testing.assert_array_equal(fake, lesson.fakes(name, n=60, seed=1)[0])
    other = lesson.fakes(name, n=60, seed=2)[0]
    assert (name == "class_means") == np.array_equal(fake, other)
    assert set(labels) == set(range(5 if name == "five_digits" else 10))


def origin(fake):
    """Label of the training image that each fake equals, -1 where there is none."""
    far = cdist(fake, X)
    return np.where(far.min(axis=1) == 0, Y[far.argmin(axis=1)], -1)


@pytest.mark.parametrize("name", ["real_resampled", "hundred_images", "five_digits"])
def test_copies_are_training_images_of_the_wanted_class(name):
    fake, labels = lesson.fakes(name, n=200)
    np.testing.assert_array_equal(origin(fake), labels)


def test_a_hundred_images_are_ten_of_each_class():
    fake, labels = lesson.fakes("hundred_images", n=2000)
    kinds = [len(np.unique(fake[labels == k], axis=0)) for k in range(10)]
    assert kinds == [10] * 10


def test_hidden_copies_are_fewer_than_half_and_of_the_wanted_class():
    fake, labels = lesson.fakes("hidden_copies", n=1000)
    found = origin(fake)
    assert 0.4 < (found >= 0).mean() < 0.5
    np.testing.assert_array_equal(found[found >= 0], labels[found >= 0])


def test_noisy_copies_lie_near_their_originals():
    fake, _ = draw("noisy_copies")
    near = cdist(fake, X).min(axis=1)
    assert near.mean() == pytest.approx(0.1 * 8, rel=0.1)  # 64 pixels: the root is 8


def test_the_class_gaussian_has_the_moments_of_its_class():
    labels = np.full(20_000, 3)
    fake = lesson.class_gaussian(X, Y, labels, np.random.default_rng(0))
    own = X[Y == 3]
    np.testing.assert_allclose(fake.mean(axis=0), own.mean(axis=0), atol=0.02)
    oracle = np.cov(own.T) + 0.005 * np.eye(64)
    np.testing.assert_allclose(np.cov(fake.T), oracle, atol=0.01)


def test_class_means_and_noise():
    fake, _ = draw("class_means")
    np.testing.assert_allclose(fake[7], X[Y == 7].mean(axis=0))
    counts = np.unique(draw("noise")[0], return_counts=True)
    np.testing.assert_allclose(counts[0], np.arange(17) / 16)
    assert counts[1].min() > 0.8 * counts[1].max()


def test_the_copied_share_counts_what_is_nearer_than_new_images_are():
    assert lesson.copied_share(X[:50], X, NEW) == 1
    assert lesson.copied_share(1 - NEW[:50], X, NEW) == 0
    assert lesson.copied_share(NEW, X, NEW) == pytest.approx(0.01, abs=0.005)
    assert lesson.copied_share(np.vstack([X[:30], 1 - NEW[:70]]), X, NEW) == 0.3


# ---------------------------------------------------------------- pleasing the judge


def test_noise_can_be_moved_until_it_pleases_the_judge(judge):
    wanted, before = X[:20], [p.clone() for p in judge.parameters()]
    pleased = lesson.please(judge, wanted, steps=50)
    seen, goal = lesson.encode(judge, pleased), lesson.encode(judge, wanted)
    noise = lesson.encode(judge, lesson.fakes("noise", n=20)[0])
    far = [np.sum((x - goal) ** 2, axis=1).mean() for x in (seen, noise)]
    assert far[0] < 0.4 * far[1]
    assert np.abs(pleased - wanted).mean() > 0.25, "they should not look alike"
    np.testing.assert_array_equal(pleased, kit.rounded(pleased))
    assert all(torch.equal(p, q) for p, q in zip(judge.parameters(), before))
    np.testing.assert_array_equal(pleased, lesson.please(judge, wanted, steps=50))


def test_what_is_returned_is_the_ink_that_the_judge_was_shown(judge):
    start = lesson.please(judge, X[:20], steps=0)  # the noise itself, squashed into (0, 1)
    assert start.mean() == pytest.approx(0.5, abs=0.05)
    assert np.mean((start == 0) | (start == 1)) < 0.2


# ---------------------------------------------------------------- the study


def test_the_study_spreads_over_draws_and_judges(monkeypatch, capsys):
    monkeypatch.setattr(lesson, "SETS", {"noise": lesson.noise, "naive_bayes": lesson.class_means})
    quick = {"fd": 1.0, "precision": 1.0, "recall": 0.0, "auc": 1.0, "copying": 1.0, "tstr": 0.9}
    monkeypatch.setattr(kit, "assess", lambda x, labels: quick | {"fd": float(x.mean())})
    table = lesson.study(seeds=2, images=360, judges=1, epochs=1)
    assert table["noise"]["fd_sd"] > 0 and table["naive_bayes"]["fd_sd"] == 0
    assert table["judges"]["noise"]["fd_sd"] > 0 and table["judges"]["pairs"] == 1
    assert "± at most" in capsys.readouterr().out


@pytest.mark.bar
def test_the_study_at_a_tiny_size_tells_the_sets_apart(capsys):
    table = lesson.study(seeds=1, images=360, judges=1, epochs=1)
    assert "no. 1" in capsys.readouterr().out
    assert set(table) == {*lesson.SETS, "judges"}
    assert table["real_resampled"]["fd"] < 0.6 < table["naive_bayes"]["fd"] < table["noise"]["fd"]
    assert table["class_means"]["precision"] == 1 and table["class_means"]["recall"] == 0
    assert table["hidden_copies"]["copying"] > 0.7 and table["hidden_copies"]["copied"] > 0.35
    assert table["noisy_copies"]["auc"] > 0.95 and table["five_digits"]["recall"] < 0.6


@pytest.mark.bar
def test_noise_that_pleases_the_judge_is_found_out_by_another_and_by_the_forest(judge):
    pleased = lesson.please(judge, lesson.fakes("real_resampled", n=360)[0])
    rival, other = lesson.fakes("naive_bayes", n=360)[0], lesson.train(X, Y, epochs=8, seed=1)
    kept, anew = [
        [kit.frechet_distance(lesson.encode(model, x), lesson.encode(model, NEW))
         for x in (pleased, rival)]
        for model in (judge, other)
    ]  # fmt: skip
    assert kept[0] < 0.6 * kept[1] and anew[0] > anew[1]
    assert kit.two_sample_auc(pleased, NEW) > 0.99
