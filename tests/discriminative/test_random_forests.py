"""Forests: equal to scikit-learn's on the same resamples, and what averaging promises."""

from functools import cache, partial

import clouds
import numpy as np
import pytest
from sklearn import ensemble, inspection
from sklearn.tree import DecisionTreeClassifier

from snippets.discriminative import decision_trees
from snippets.discriminative.decision_trees import best_split, disagreement
from snippets.discriminative.random_forests import (
    Model,
    contenders,
    each_tree,
    first,
    gains,
    importance_by_shuffling,
    impurity_importance,
    load_diabetics,
    out_of_bag,
    predict_proba,
    split_of_some,
    study,
    train,
)
from snippets.shared import digits, metrics

blobs = partial(clouds.blobs, n=90, features=5)


@cache
def trained():
    return train(*blobs(), trees=12)


def read(tree, place=0):
    """A tree of scikit-learn as one of ours: where cuts are equally good, both have the same."""
    counts = tree.value[place][0] * tree.weighted_n_node_samples[place]
    if tree.feature[place] < 0:
        return decision_trees.Node(counts)
    sides = read(tree, tree.children_left[place]), read(tree, tree.children_right[place])
    return decision_trees.Node(counts, tree.feature[place], tree.threshold[place], *sides)


@cache
def twins():
    """Cases, scikit-learn's bagged trees, and the same trees on the same resamples as ours."""
    x, y = blobs(n=150)
    oracle = ensemble.BaggingClassifier(
        DecisionTreeClassifier(max_depth=3), 40, oob_score=True, random_state=0
    ).fit(x, y)
    trees = [decision_trees.Model(read(fitted.tree_), 5) for fitted in oracle.estimators_]
    return x, y, Model(trees, np.array(oracle.estimators_samples_)), oracle


# ---------------------------------------------------------------- oracle


def test_the_mean_is_scikit_learns():
    *_, model, oracle = twins()
    new = blobs(seed=1)[0]
    np.testing.assert_allclose(predict_proba(model, new), oracle.predict_proba(new))


def test_out_of_bag_is_scikit_learns():
    x, y, model, oracle = twins()
    p = out_of_bag(model, x)
    np.testing.assert_allclose(p, oracle.oob_decision_function_)
    assert metrics.accuracy(p, y) == pytest.approx(oracle.oob_score_)


def test_impurity_importance_is_scikit_learns():
    *_, model, oracle = twins()
    theirs = np.mean([tree.feature_importances_ for tree in oracle.estimators_], axis=0)
    np.testing.assert_allclose(impurity_importance(model), theirs)


def test_importance_by_shuffling_is_scikit_learns_up_to_the_draw():
    *_, model, oracle = twins()
    new, labels = blobs(n=600, seed=0)
    theirs = inspection.permutation_importance(oracle, new, labels, n_repeats=10, random_state=0)
    ours = importance_by_shuffling(model, new, labels)
    np.testing.assert_allclose(ours, theirs.importances_mean, atol=0.03)
    assert ours.max() > 0.1


def test_with_all_features_a_tree_is_the_tree_of_its_resample():
    x, y = blobs()
    model = train(x, y, trees=3, tried=5)
    for rows, tree in zip(model.rows, model.trees):
        again = decision_trees.train(x[rows], y[rows])
        np.testing.assert_array_equal(
            decision_trees.predict_proba(tree, x), decision_trees.predict_proba(again, x)
        )


# ---------------------------------------------------------------- invariants


def test_a_cut_is_the_best_of_the_features_that_were_drawn():
    x, y = blobs()
    member, rng = np.eye(3)[y], np.random.default_rng(0)
    used = set()
    for seed in range(20):
        drawn = np.random.default_rng(seed).permutation(5)[:2]
        feature, threshold = split_of_some(x, member, rng=np.random.default_rng(seed), tried=2)
        place, best = best_split(x[:, drawn], member)
        assert (feature, threshold) == (drawn[place], best)
        used.add(feature)
    assert len(used) > 2
    assert split_of_some(x, member, rng=rng, tried=5) == best_split(x, member)


def test_a_constant_feature_never_ends_a_tree():
    """Blank pixels: where the drawn features cannot be cut, others are drawn."""
    x = np.zeros((40, 8))
    x[:, 3] = np.arange(40)
    model = train(x, np.arange(40) // 20, trees=5, tried=1)
    assert all(len(decision_trees.leaves(tree.root)) == 2 for tree in model.trees)
    member, rng = np.eye(2)[np.arange(40) % 2], np.random.default_rng(0)
    assert split_of_some(x[:, :3], member, rng=rng, tried=2) is None


def test_resamples_are_drawn_with_replacement_and_anew_for_each_tree():
    rows = trained().rows
    assert rows.shape == (12, 90) and rows.max() == 89 and rows.min() == 0
    assert all(50 < len(np.unique(r)) < 64 for r in rows)  # 63 % of 90 is 57
    assert (rows[0] != rows[1]).any()


def test_the_seed_decides_and_nothing_else():
    x, y = blobs()
    p = predict_proba(trained(), x)
    np.testing.assert_array_equal(predict_proba(train(x, y, trees=12), x), p)
    assert (predict_proba(train(x, y, trees=12, seed=1), x) != p).any()


def test_the_first_trees_are_a_forest():
    x, _ = blobs()
    few = first(trained(), 4)
    np.testing.assert_array_equal(each_tree(few, x), each_tree(trained(), x)[:4])
    np.testing.assert_array_equal(few.rows, trained().rows[:4])


def test_the_forest_loses_no_more_than_its_trees_do():
    """Jensen: the squared error of a mean is at most the mean of the squared errors."""
    x, y = blobs(seed=2)
    said, truth = each_tree(trained(), x), np.eye(3)[y]
    mean = ((predict_proba(trained(), x) - truth) ** 2).sum()
    assert mean <= ((said - truth) ** 2).sum(axis=(1, 2)).mean() + 1e-9


def test_fewer_features_make_trees_more_different():
    x, y = blobs(n=200, features=9)
    new = blobs(n=100, features=9, seed=3)[0]
    differ = [
        disagreement(each_tree(train(x, y, trees=15, tried=tried), new).argmax(axis=2)).mean()
        for tried in (1, 9)
    ]
    assert differ[0] > differ[1]


def test_beyond_the_training_data_nothing_changes():
    x, _ = blobs()
    far = x.max(axis=0) + np.array([[1.0], [1e6]])
    p = predict_proba(trained(), far)
    np.testing.assert_array_equal(p[0], p[1])


def test_a_case_is_judged_only_by_trees_that_have_not_seen_it():
    """Labels without any pattern: who has seen them is right, out of bag is guessing."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 3)), rng.permutation(200) % 2
    model = train(x, y, trees=25)
    assert metrics.accuracy(predict_proba(model, x), y) > 0.95
    assert 0.35 < metrics.accuracy(out_of_bag(model, x), y) < 0.65


def test_a_case_that_every_tree_has_seen_has_no_answer_out_of_bag():
    x, _ = blobs()
    p = out_of_bag(first(trained(), 1), x)
    seen = np.isin(np.arange(90), trained().rows[0])
    np.testing.assert_array_equal(np.isnan(p).all(axis=1), seen)
    np.testing.assert_array_equal(p[~seen], each_tree(trained(), x)[0][~seen])


# ---------------------------------------------------------------- importance


def test_gains_add_up_to_the_impurity_that_went():
    x, y = blobs()
    tree = decision_trees.train(x, y)  # deep enough to ask about a feature more than once
    ends = decision_trees.leaves(tree.root)
    weighed = [e.counts.sum() * decision_trees.gini(e.counts) for e in (tree.root, *ends)]
    assert gains(tree.root, 5).sum() == pytest.approx(weighed[0] - sum(weighed[1:]))
    assert impurity_importance(trained()).sum() == pytest.approx(1)


def test_a_feature_that_is_not_asked_costs_nothing_and_the_only_one_costs_all():
    x = np.column_stack([np.zeros(80), np.arange(80) % 2])
    y = np.arange(80) % 2
    lost = importance_by_shuffling(train(x, y, trees=3), x, y)
    assert lost[0] == 0
    assert lost[1] == pytest.approx(0.5, abs=0.1)


def test_twins_hide_each_other_and_show_together():
    """Shuffling draws one order for a whole group, so that copies stay copies."""
    rng = np.random.default_rng(0)
    y = rng.permutation(300) % 2
    x = np.repeat((y + 0.4 * rng.normal(size=300))[:, None], 6, axis=1)
    model = train(x[:150], y[:150], trees=15, tried=1)
    groups = [[0], list(range(6))]
    alone, together = importance_by_shuffling(model, x[150:], y[150:], groups=groups)
    assert alone < 0.1 < 0.3 < together
    before = x.copy()
    importance_by_shuffling(model, x, y, groups=groups)
    np.testing.assert_array_equal(x, before)


def test_the_file_number_is_unique_and_new_for_each_seed():
    part, names = load_diabetics(seed=0)
    column = np.concatenate([part.x_train[:, 10], part.x_test[:, 10]])
    np.testing.assert_array_equal(np.sort(column), np.arange(442))
    assert names[-1] == "file number" and part.x_train.shape == (300, 11)
    assert part.y_train.mean() == pytest.approx(0.5, abs=0.01)
    assert abs(np.corrcoef(part.x_train[:, 10], part.y_train)[0, 1]) < 0.2
    assert (load_diabetics(seed=1)[0].x_train[:, 10] != part.x_train[:, 10]).any()


# ---------------------------------------------------------------- bad input


def test_bad_input_is_named():
    x, y = blobs()
    for settings in ({"tried": 6}, {"tried": -1}, {"trees": 0}):
        with pytest.raises(ValueError, match="expected trees >= 1, 1 <= tried <= 5"):
            train(x, y, **settings)
    with pytest.raises(ValueError, match="got NaN: fill in"):
        train(np.where(x > 1, np.nan, x), y)
    with pytest.raises(ValueError, match="expected 90 labels"):
        train(x, y[:-1])
    with pytest.raises(ValueError, match="expected images of 5 pixels, got 784"):
        predict_proba(trained(), np.zeros((1, 784)))


# ---------------------------------------------------------------- the study


def test_contenders_answer_with_probabilities():
    x, y = blobs(n=120, features=9)
    for name, candidates in contenders(trees=3, rounds=3).items():
        p = candidates[0](x, y)(x[:7])
        assert p.shape == (7, 3), name
        np.testing.assert_allclose(p.sum(axis=1), 1, err_msg=name)


@pytest.mark.bar
def test_study_runs_at_a_tiny_size(capsys):
    result = study(seeds=2, draws=2, trees=20, rounds=10)
    assert "boosting" in capsys.readouterr().out
    forest, tree = (result["digits"][name] for name in ("random_forest", "one_tree"))
    assert forest["accuracy"] > tree["accuracy"] + 0.05
    assert forest["differ"] < tree["differ"]


# ---------------------------------------------------------------- bars


@pytest.fixture(scope="module")
def forests():
    splits = [digits.load_split(seed=seed) for seed in range(3)]
    return splits, [train(s.x_train, s.y_train, trees=100, seed=k) for k, s in enumerate(splits)]


@pytest.mark.bar
def test_digits(forests):
    right = [metrics.accuracy(predict_proba(m, s.x_test), s.y_test) for s, m in zip(*forests)]
    assert np.mean(right) >= 0.968


@pytest.mark.bar
def test_out_of_bag_agrees_with_the_test_images(forests):
    for split, model in zip(*forests):
        test = metrics.accuracy(predict_proba(model, split.x_test), split.y_test)
        assert abs(metrics.accuracy(out_of_bag(model, split.x_train), split.y_train) - test) < 0.02


@pytest.mark.bar
def test_impurity_prefers_a_file_number_to_real_measurements_and_shuffling_does_not():
    """The failure that the page shows; if it goes away, the page must change."""
    part, _ = load_diabetics(seed=0)
    model = train(*part[:2], trees=60)
    impurity = impurity_importance(model)
    assert (impurity[:10] < impurity[10]).sum() >= 3
    assert importance_by_shuffling(model, *part[2:])[10] < 0.02
