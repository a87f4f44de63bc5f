"""A random forest: many trees, each grown on a resample and on random features, averaged."""

# --8<-- [start:imports]
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn import ensemble
from sklearn.datasets import load_diabetes

from snippets.discriminative import decision_trees
from snippets.discriminative.decision_trees import best_split, gini, grow
from snippets.shared import digits, metrics

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:split]
def split_of_some(x: Array, member: Array, *, rng, tried: int):
    """`best_split` among a few random features: (feature, threshold).

    Where none of them can be cut, the next few; None if nothing can.
    """
    order = rng.permutation(x.shape[1])
    for start in range(0, len(order), tried):
        some = order[start:start + tried]
        cut = best_split(x[:, some], member)
        if cut is not None:
            return int(some[cut[0]]), cut[1]
    return None


# --8<-- [end:split]


# --8<-- [start:train]
class Model(NamedTuple):
    trees: list[decision_trees.Model]
    rows: Array  # (trees, n) the training cases that each tree has seen


def train(x: Array, y: Array, *, trees=100, tried=None, seed=0) -> Model:
    """x: (n, features); y: (n,) labels 0..K-1; tried: features per cut.

    All features tried: bagging. Left out: their square root, rounded.
    Raises ValueError for bad input. Breiman, 2001.
    """
    x = decision_trees.check(x, features=np.shape(x)[-1])
    y = digits.check_labels(y, count=len(x))
    n, features = x.shape
    tried = tried or round(features**0.5)
    if not 1 <= tried <= features or trees < 1:
        raise ValueError(f"expected trees >= 1, 1 <= tried <= {features}")
    rng, member = np.random.default_rng(seed), np.eye(y.max() + 1)[y]
    rows = rng.integers(n, size=(trees, n))  # with replacement
    split = partial(split_of_some, rng=rng, tried=tried)
    roots = [grow(x[r], member[r], depth=np.inf, split=split) for r in rows]
    return Model([decision_trees.Model(r, features) for r in roots], rows)


# --8<-- [end:train]


# --8<-- [start:predict]
def each_tree(model: Model, x: Array) -> Array:
    """What every tree says: (trees, n, classes)."""
    return np.array([decision_trees.predict_proba(tree, x)
                     for tree in model.trees])


def predict_proba(model: Model, x: Array) -> Array:
    """p(y|x), the mean of what the trees say: (n, classes)."""
    return each_tree(model, x).mean(axis=0)


def out_of_bag(model: Model, x: Array) -> Array:
    """p(y|x) for the training cases x, by the trees that have not seen
    them: (n, classes). NaN for a case that every tree has seen."""
    unseen = np.ones(model.rows.shape, dtype=bool)  # (trees, n)
    np.put_along_axis(unseen, model.rows, False, axis=1)
    said = each_tree(model, x) * unseen[:, :, None]
    with np.errstate(invalid="ignore"):
        return said.sum(axis=0) / unseen.sum(axis=0)[:, None]


def first(model: Model, count: int) -> Model:
    """The forest of its first trees."""
    return Model(model.trees[:count], model.rows[:count])


# --8<-- [end:predict]


# --8<-- [start:impurity]
def gains(node: decision_trees.Node, features: int) -> Array:
    """How much impurity the cuts on each feature took away: (features,)."""
    gain = np.zeros(features)
    if node.yes:
        sizes = [part.counts.sum() * gini(part.counts)
                 for part in (node, node.yes, node.no)]
        gain[node.feature] = sizes[0] - sizes[1] - sizes[2]
        gain += gains(node.yes, features) + gains(node.no, features)
    return gain


def impurity_importance(model: Model) -> Array:
    """Share of each feature in what training gained: (features,), sum 1."""
    each = np.array([gains(t.root, t.features) for t in model.trees])
    return (each / each.sum(axis=1, keepdims=True)).mean(axis=0)


# --8<-- [end:impurity]


# --8<-- [start:permutation]
def importance_by_shuffling(model: Model, x, y, *, groups=None, seed=0):
    """Accuracy lost on cases x, y when a feature is shuffled: (groups,).

    groups: lists of features that are shuffled together; left out: each
    feature by itself. x, y: not those of training. Mean of ten shuffles.
    """
    rng, repeats = np.random.default_rng(seed), 10
    groups = groups or [[feature] for feature in range(x.shape[1])]
    shuffled = np.tile(x, (len(groups) * repeats, 1, 1))
    for k, copy in enumerate(shuffled):
        group = groups[k // repeats]
        copy[:, group] = x[rng.permutation(len(x))][:, group]
    p = predict_proba(model, shuffled.reshape(-1, x.shape[1]))
    right = p.argmax(axis=1).reshape(len(groups), -1) == np.tile(y, repeats)
    return metrics.accuracy(predict_proba(model, x), y) - right.mean(axis=1)


# --8<-- [end:permutation]


# --8<-- [start:diabetes]
def load_diabetics(*, seed: int = 0) -> tuple[digits.Split, list[str]]:
    """442 diabetes patients: did the disease progress more than in most?

    Ten measurements and one that means nothing, the number of a file. 300
    to train on, 142 to test on; then the names.
    """
    table = load_diabetes(scaled=False)
    worse = (table.target > np.median(table.target)).astype(int)
    file_number = np.random.default_rng(seed).permutation(len(worse))
    x = np.column_stack([table.data, file_number])
    names = [*table.feature_names, "file number"]
    return digits.hold_out(x, worse, size=142, seed=seed), names


# --8<-- [end:diabetes]


def contenders(*, trees: int = 100, rounds: int = 100) -> dict:
    """Each model as candidates: functions of x and y that return predict_proba."""

    def forest(x, y, **settings):
        machine = ensemble.RandomForestClassifier(trees, random_state=0, **settings)
        return machine.fit(x, y).predict_proba

    def boosting(x, y, **settings):
        machine = ensemble.HistGradientBoostingClassifier(
            max_iter=rounds, max_features=0.1, early_stopping=False, random_state=0, **settings
        )
        return machine.fit(x, y).predict_proba

    known = decision_trees.contenders()
    return {
        "one tree": known["tree, grown out"],
        "bagged trees": [partial(forest, max_features=None)],
        "random forest": [partial(forest, max_features=share) for share in (0.06, 0.12, 0.25)],
        "boosting": [partial(boosting, max_leaf_nodes=leaves) for leaves in (4, 12)],
        "logistic regression": known["logistic regression"],
    }


def study(*, seeds: int = 8, draws: int = 2, trees: int = 100, rounds: int = 100) -> dict:
    """Forests, boosting and baselines, on the splits of the page on trees and by its rules."""
    models = contenders(trees=trees, rounds=rounds)
    return decision_trees.report(models, seeds=seeds, draws=draws)
