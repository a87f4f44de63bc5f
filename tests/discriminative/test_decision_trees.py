"""Decision trees: equal to scikit-learn wherever the best cut is unique, and never worse."""

from functools import cache

import numpy as np
import pytest
from clouds import blobs
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from snippets.discriminative.decision_trees import (
    Model,
    Node,
    best_split,
    choose,
    compare,
    contenders,
    disagreement,
    few_that_decide,
    gini,
    impurities,
    leaves,
    load_patients,
    predict_proba,
    prune,
    route,
    rules,
    study,
    train,
)
from snippets.shared import digits, metrics


def one_hot(y):
    return np.eye(y.max() + 1)[y]


def shape(node, tree, place=0):
    """Our tree and scikit-learn's, node by node: feature, threshold, counts."""
    pairs = [(node, tree, place)]
    if node.yes:
        pairs += shape(node.yes, tree, tree.children_left[place])
        pairs += shape(node.no, tree, tree.children_right[place])
    return pairs


@cache
def patients():
    return load_patients(seed=0)


# ---------------------------------------------------------------- oracle


@pytest.mark.parametrize("settings", [{"depth": 3}, {"smallest": 4}, {"depth": 2, "smallest": 9}])
def test_asks_what_scikit_learn_asks(settings):
    x, y = blobs(n=150)
    model = train(x, y, **settings)
    oracle = DecisionTreeClassifier(
        max_depth=settings.get("depth"),
        min_samples_leaf=settings.get("smallest", 1),
        random_state=0,
    ).fit(x, y)
    pairs = shape(model.root, oracle.tree_)
    assert len(pairs) == oracle.tree_.node_count
    for node, tree, place in pairs:
        np.testing.assert_allclose(node.counts / node.counts.sum(), tree.value[place][0])
        if node.yes:
            assert node.feature == tree.feature[place]
            assert node.threshold == pytest.approx(tree.threshold[place], rel=1e-6)
    new = blobs(n=200, seed=1)[0]
    np.testing.assert_allclose(predict_proba(model, new), oracle.predict_proba(new))


def test_equals_scikit_learn_on_iris():
    """Ties abound in centimetres with one decimal, so the cuts are compared by their purity."""
    x, y = load_iris(return_X_y=True)
    oracle = DecisionTreeClassifier(max_depth=3, random_state=0).fit(x, y)
    mine = predict_proba(train(x, y, depth=3), x)
    assert metrics.accuracy(mine, y) == pytest.approx(oracle.score(x, y))
    np.testing.assert_allclose(gini(mine).mean(), gini(oracle.predict_proba(x)).mean())


def test_pruned_as_scikit_learn_prunes():
    x, y = blobs(n=150)
    full = train(x, y)
    for alpha in (0.0, 0.003, 0.01, 0.02, 0.1, 1.0):
        oracle = DecisionTreeClassifier(ccp_alpha=alpha, random_state=0).fit(x, y)
        pruned = prune(full, alpha)
        assert len(leaves(pruned.root)) == oracle.get_n_leaves()
        np.testing.assert_allclose(predict_proba(pruned, x), oracle.predict_proba(x))


def test_gini_is_the_chance_that_two_cases_differ():
    labels = np.array([0, 0, 0, 1, 2, 2])
    by_hand = np.mean([a != b for a in labels for b in labels])
    assert gini(np.bincount(labels)) == pytest.approx(by_hand)
    np.testing.assert_allclose(gini(np.array([[5, 0], [2, 2]])), [0, 0.5])


def test_impurities_of_every_cut_by_brute_force():
    x, y = blobs(n=12, features=3)
    x[4, 1] = x[7, 1]  # a tie: no cut between them
    after, threshold = impurities(x, one_hot(y))
    for feature in range(3):
        value = np.sort(x[:, feature])
        for k in range(11):
            if value[k] == value[k + 1]:
                assert after[k, feature] == np.inf
                continue
            yes = x[:, feature] <= threshold[k, feature]
            assert yes.sum() == k + 1
            mean = sum(side.sum() * gini(np.bincount(y[side])) for side in (yes, ~yes)) / 12
            assert after[k, feature] == pytest.approx(mean)


def test_pruning_is_the_best_of_all_subtrees():
    """Every subtree of a small tree, tried out."""
    x, y = blobs(n=40)
    full = train(x, y, depth=3)

    def subtrees(node):
        yield Node(node.counts)
        if node.yes:
            for yes in subtrees(node.yes):
                for no in subtrees(node.no):
                    yield node._replace(yes=yes, no=no)

    def price(root, alpha):
        ends = leaves(root)
        return sum(gini(e.counts) * e.counts.sum() for e in ends) / 40 + alpha * len(ends)

    for alpha in (0.002, 0.02, 0.08):
        best = min(price(root, alpha) for root in subtrees(full.root))
        assert price(prune(full, alpha).root, alpha) == pytest.approx(best)


# ---------------------------------------------------------------- invariants


def test_grown_out_it_knows_its_training_cases():
    x, y = blobs()
    p = predict_proba(train(x, y), x)
    np.testing.assert_array_equal(p, one_hot(y))


def test_a_cut_never_makes_the_groups_less_pure():
    x, y = blobs()
    after, _ = impurities(x, one_hot(y))
    assert after.max() <= gini(np.bincount(y)) + 1e-12


@pytest.mark.parametrize("warp", [np.exp, lambda x: 3 * x - 7, lambda x: x**3])
def test_only_the_order_of_the_cases_counts(warp):
    x, y = blobs()
    plain, warped = train(x, y, depth=3), train(warp(x), y, depth=3)
    np.testing.assert_array_equal(predict_proba(plain, x), predict_proba(warped, warp(x)))


def test_the_order_of_the_rows_does_not_count():
    x, y = blobs()
    rows = np.random.default_rng(0).permutation(len(x))
    again = train(x[rows], y[rows])
    np.testing.assert_array_equal(predict_proba(again, x), predict_proba(train(x, y), x))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.1 + 2**-56, 1e16, 1e16 + 2]), min_size=4))
def test_each_side_of_a_cut_gets_the_cases_that_were_counted(values):
    """Also where the middle of two neighbouring floats is the upper one."""
    x = np.array(values)[:, None]
    after, threshold = impurities(x, one_hot(np.arange(len(x)) % 2))
    for k in np.flatnonzero(np.isfinite(after[:, 0])):
        assert (x[:, 0] <= threshold[k, 0]).sum() == k + 1


def test_the_middle_of_two_neighbouring_floats_is_the_lower_one():
    low = 1.0 + 2.0**-52  # the middle of this and the next float rounds up
    x = np.array([[low], [np.nextafter(low, 2)]])
    assert (x[0] + x[1]) / 2 == x[1]
    np.testing.assert_array_equal(predict_proba(train(x, [0, 1]), x), np.eye(2))


def test_depth_and_smallest_leaf_are_kept():
    x, y = blobs()

    def depth(node):
        return 1 + max(depth(node.yes), depth(node.no)) if node.yes else 0

    assert depth(train(x, y, depth=2).root) == 2
    for smallest in (2, 7, 30, 40):
        counts = [leaf.counts.sum() for leaf in leaves(train(x, y, smallest=smallest).root)]
        assert min(counts) >= smallest
    assert len(leaves(train(x, y, smallest=7).root)) > 3


def test_cases_that_look_the_same_stay_together():
    model = train(np.zeros((4, 2)), [0, 0, 0, 1])
    np.testing.assert_allclose(predict_proba(model, np.zeros((1, 2))), [[0.75, 0.25]])


def test_pruning_goes_from_all_leaves_to_one_and_keeps_its_input():
    full = train(*blobs())
    sizes = [len(leaves(prune(full, alpha).root)) for alpha in (0, 0.001, 0.01, 0.03, 0.1, 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == len(leaves(full.root)) > 3 and sizes[-1] == 1


def test_every_case_arrives_at_exactly_one_leaf():
    x, y = blobs()
    model = train(x, y, depth=3)
    arrived = [(leaf, rows) for leaf, rows in route(model.root, x, np.arange(len(x)))]
    np.testing.assert_array_equal(np.sort(np.concatenate([r for _, r in arrived])), np.arange(60))
    for leaf, rows in arrived:
        np.testing.assert_array_equal(leaf.counts, np.bincount(y[rows], minlength=3))


def test_a_value_on_the_threshold_is_a_yes():
    model = Model(Node(np.ones(2), 0, 0.5, Node(np.array([1, 0])), Node(np.array([0, 1]))), 1)
    np.testing.assert_array_equal(predict_proba(model, [[0.5], [0.51]]), np.eye(2))


# ---------------------------------------------------------------- reading and stability


def test_rules_count_old_and_new_cases_at_each_answer():
    x, y = np.array([[1.0], [2.0], [3.0]]), np.array([0, 0, 1])
    text = rules(train(x, y).root, ["size"], "ab", np.array([[0.0], [1.0], [9.0]]), np.arange(3))
    assert text == "if size <= 2.5\n    a: 2 of 2, new 1 of 2\nelse\n    b: 1 of 1, new 0 of 1\n"


def test_disagreement_is_the_share_of_pairs_that_differ():
    answers = np.array([[0, 1, 2], [0, 1, 1], [0, 2, 2], [0, 1, 1]])
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    by_hand = np.mean([answers[a] != answers[b] for a, b in pairs], axis=0)
    np.testing.assert_allclose(disagreement(answers), by_hand)


def test_a_few_cases_decide_the_first_question_and_no_fewer():
    y = np.arange(40) % 2
    x = np.column_stack([y, y]).astype(float)
    x[:4, 0] = 1 - x[:4, 0]  # four cases speak against the first feature
    x[4:6, 1] = 1 - x[4:6, 1]  # and two against the second, which is thus asked first

    def first(without):
        kept = np.setdiff1d(np.arange(40), without)
        return best_split(x[kept], one_hot(y)[kept])[0]

    gone = few_that_decide(x, y)
    assert first([]) == 1 and first(gone) == 0
    assert all(first([case]) == 1 for case in range(40))
    assert len(gone) == 2 and set(gone) <= {0, 1, 2, 3}


def test_patients_are_split_without_overlap_and_malignant_is_one():
    part, names = patients()
    assert part.x_train.shape == (426, 30) and part.x_test.shape == (143, 30) and len(names) == 30
    seen = {row.tobytes() for row in part.x_train}
    assert not any(row.tobytes() in seen for row in part.x_test)
    radius = part.x_train[:, names.index("mean radius")]
    assert radius[part.y_train == 1].mean() > radius[part.y_train == 0].mean()
    assert 0.36 < part.y_train.mean() < 0.38
    assert (load_patients(seed=1)[0].x_test != part.x_test).any()


# ---------------------------------------------------------------- bad input


def test_bad_input_is_named():
    x, y = blobs()
    model = train(x, y, depth=1)
    with pytest.raises(ValueError, match="expected images of 4 pixels, got 784"):
        predict_proba(model, np.zeros((1, 784)))
    with pytest.raises(ValueError, match="expected a batch"):
        predict_proba(model, np.zeros(4))
    with pytest.raises(ValueError, match="got NaN: fill in"):
        predict_proba(model, np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match="got NaN: fill in"):
        train(np.where(x > 1, np.nan, x), y)
    with pytest.raises(ValueError, match="expected 60 labels"):
        train(x, y[:-1])
    with pytest.raises(ValueError, match="each at least once"):
        train(x, 2 * y)


# ---------------------------------------------------------------- the study


def test_settings_are_chosen_on_cases_that_were_not_trained_on():
    """Labels that are noise: judged on seen cases, the tree that is grown out would win."""
    x, _ = blobs(n=100)
    y = (np.random.default_rng(0).random(100) < 0.2).astype(int)
    pruned = contenders()["tree, pruned"]
    best = choose([pruned[0], pruned[-1]], x, y)
    assert best is pruned[-1]


def test_missed_and_false_alarms_are_told_apart():
    def says_one(x, y):
        return lambda new: np.tile([0.1, 0.9], (len(new), 1))

    split = digits.Split(np.zeros((9, 1)), np.arange(9) % 2, np.zeros((5, 1)), np.arange(5) % 2)
    row = compare({"always": [says_one]}, split, draws=2, seed=0)["always"]
    assert (row["missed"], row["alarms"], row["differ"]) == (0, 3, 0)
    assert row["accuracy"] == pytest.approx(0.4)


@pytest.mark.bar
def test_study_runs_at_a_tiny_size(capsys):
    result = study(seeds=2, draws=2)
    assert "false alarms" in capsys.readouterr().out
    assert result["digits"]["one_question"]["accuracy"] < 0.25
    assert result["tumours"]["tree_pruned"]["accuracy"] > 0.85
    assert (
        result["digits"]["tree_pruned"]["differ"]
        > result["digits"]["logistic_regression"]["differ"]
    )


# ---------------------------------------------------------------- bars


@pytest.mark.bar
def test_digits():
    splits = [digits.load_split(seed=seed) for seed in range(5)]
    right = [metrics.accuracy(predict_proba(train(*s[:2]), s.x_test), s.y_test) for s in splits]
    assert np.mean(right) >= 0.81


@pytest.mark.bar
def test_two_patients_change_the_tree():
    """The failure that the page shows; if it goes away, the page must change."""
    x, y, *_ = patients()[0]
    assert len(few_that_decide(x, y)) <= 3
