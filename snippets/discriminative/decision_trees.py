"""A decision tree: ask the question that sorts the cases best, then ask again on either side."""

# --8<-- [start:imports]
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from snippets.shared import digits, metrics, plots

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:data]
def load_patients(*, seed: int = 0) -> tuple[digits.Split, list[str]]:
    """569 breast tumours, 30 measurements each; label 1 is malignant.

    426 to train on, 143 to test on, in proportion; then the names. "worst"
    is the mean of the three largest nuclei (Street and others, 1993).
    """
    table = load_breast_cancer()
    names = [str(name) for name in table.feature_names]
    is_malignant = 1 - table.target
    part = digits.hold_out(table.data, is_malignant, size=143, seed=seed)
    return part, names


def check(x: Array, *, features: int) -> Array:
    """x as floats (n, features), or one line that says what is wrong."""
    x = digits.check_images(x, pixels=features)
    if np.isnan(x).any():
        raise ValueError("expected numbers, got NaN: fill in what is missing")
    return x


# --8<-- [end:data]


# --8<-- [start:model]
class Node(NamedTuple):
    """A question with its two answers; a leaf asks nothing."""

    counts: Array  # (classes,) training cases that came here
    feature: int = -1  # is x[feature] <= threshold?
    threshold: float = np.nan
    yes: "Node | None" = None
    no: "Node | None" = None


class Model(NamedTuple):
    root: Node
    features: int


def route(node: Node, x: Array, rows: Array) -> Iterator:
    """Send rows of x down to the leaves: (leaf, its rows), one by one."""
    if node.yes is None:
        yield node, rows
        return
    yes = x[rows, node.feature] <= node.threshold
    yield from route(node.yes, x, rows[yes])
    yield from route(node.no, x, rows[~yes])


# --8<-- [end:model]


# --8<-- [start:predict]
def predict_proba(model: Model, x: Array) -> Array:
    """p(y|x), the shares in the leaf that x falls into: (n, classes)."""
    x = check(x, features=model.features)
    p = np.empty((len(x), len(model.root.counts)))
    for leaf, rows in route(model.root, x, np.arange(len(x))):
        p[rows] = leaf.counts / leaf.counts.sum()
    return p


# --8<-- [end:predict]


# --8<-- [start:gini]
def gini(counts: Array) -> Array:
    """Chance that two cases, drawn with replacement, differ in class.

    counts: (..., classes) of each class. 0: pure; largest: all alike.
    """
    share = counts / counts.sum(axis=-1, keepdims=True)
    return 1 - (share**2).sum(axis=-1)


# --8<-- [end:gini]


# --8<-- [start:impurities]
def impurities(x: Array, member: Array) -> tuple[Array, Array]:
    """Mean Gini after each cut of each feature, and the cuts' thresholds.

    x: (n, features); member: (n, classes), one-hot. Both results are
    (n - 1, features); infinite where two equal values would be cut apart.
    """
    order = np.argsort(x, axis=0, kind="stable")  # (n, features)
    value = np.take_along_axis(x, order, axis=0)
    low, high = value[:-1], value[1:]
    yes = member[order].cumsum(axis=0)[:-1]  # (n - 1, features, classes)
    no = member.sum(axis=0) - yes
    below = np.arange(1, len(x))[:, None]
    mixed = below * gini(yes) + (len(x) - below) * gini(no)
    middle = (low + high) / 2
    # Halfway between two neighbouring floats is one of them: keep the lower.
    threshold = np.where(middle < high, middle, low)
    return np.where(low < high, mixed / len(x), np.inf), threshold


# --8<-- [end:impurities]


# --8<-- [start:split]
def best_split(x: Array, member: Array, *, smallest=1):
    """(feature, threshold) of the purest cut; None if there is none.

    Each side keeps at least `smallest` cases. Of equals, the first wins.
    """
    after, threshold = impurities(x, member)
    # The cut in row k leaves k + 1 cases below it.
    after[: smallest - 1] = after[len(after) - smallest + 1 :] = np.inf
    if not np.isfinite(after).any():
        return None
    cut, feature = np.unravel_index(after.argmin(), after.shape)
    return int(feature), float(threshold[cut, feature])


# --8<-- [end:split]


# --8<-- [start:train]
def grow(x: Array, member: Array, *, depth: float, split) -> Node:
    """Split, then grow both sides, until pure, too deep or unsplittable."""
    counts = member.sum(axis=0)
    pure = counts.max() == len(x)
    cut = None if pure or depth == 0 else split(x, member)
    if cut is None:
        return Node(counts)
    yes = x[:, cut[0]] <= cut[1]
    sides = [grow(x[side], member[side], depth=depth - 1, split=split)
             for side in (yes, ~yes)]
    return Node(counts, *cut, *sides)


def train(x: Array, y: Array, *, depth=np.inf, smallest=1) -> Model:
    """x: (n, features); y: (n,) labels 0..K-1; smallest: cases in a leaf.

    Deterministic. Raises ValueError for bad input. Breiman and others, 1984.
    """
    x = check(x, features=np.shape(x)[-1])
    y = digits.check_labels(y, count=len(x))
    split = partial(best_split, smallest=smallest)
    root = grow(x, np.eye(y.max() + 1)[y], depth=depth, split=split)
    return Model(root, x.shape[1])


# --8<-- [end:train]


# --8<-- [start:prune]
def leaves(node: Node) -> list[Node]:
    """The leaves under this node, "yes" side first."""
    if node.yes is None:
        return [node]
    return leaves(node.yes) + leaves(node.no)


def prune(model: Model, alpha: float) -> Model:
    """The smallest subtree with the least mean Gini + alpha * leaves."""
    total = model.root.counts.sum()

    def price(leaf):
        return gini(leaf.counts) * leaf.counts.sum() / total + alpha

    def shrink(node):  # from the bottom up: both sides are settled first
        if node.yes is None:
            return node
        kept = node._replace(yes=shrink(node.yes), no=shrink(node.no))
        alone = Node(node.counts)
        # A hair of tolerance, so that rounding never keeps an equal price.
        gain = price(alone) - sum(map(price, leaves(kept)))
        return kept if gain > 1e-12 else alone

    return model._replace(root=shrink(model.root))


# --8<-- [end:prune]


# --8<-- [start:rules]
def rules(node: Node, names, classes, x: Array, y: Array, indent="") -> str:
    """The tree in words. At each answer: how many of the training cases
    that came there had it, and how many of the new cases x, y."""
    if node.yes is None:
        most, n = int(node.counts.argmax()), node.counts.sum()
        seen = f"{node.counts[most]:.0f} of {n:.0f}"
        new = f"{(y == most).sum()} of {len(y)}"
        return f"{indent}{classes[most]}: {seen}, new {new}\n"
    yes = x[:, node.feature] <= node.threshold
    question = f"if {names[node.feature]} <= {node.threshold:.3g}"
    text = ""
    sides = (question, node.yes, yes), ("else", node.no, ~yes)
    for head, side, rows in sides:
        text += f"{indent}{head}\n"
        text += rules(side, names, classes, x[rows], y[rows], indent + "    ")
    return text


# --8<-- [end:rules]


# --8<-- [start:draw_node]
def draw_node(axes, node: Node, names, classes, x: float, y: float) -> None:
    """A question in a grey frame, an answer in the colour of its class."""
    most, n = int(node.counts.argmax()), node.counts.sum()
    text = f"{classes[most]}\n{node.counts[most]:.0f} of {n:.0f}"
    frame = {"ec": plots.SERIES[most], "ls": "-:"[most], "lw": 2}
    if node.yes:
        name = names[node.feature].replace(" ", "\n", 1)
        text = f"{name}\n≤ {node.threshold:.3g} ?"
        frame = {"ec": plots.MUTED, "ls": "-", "lw": 0.8}
    frame |= {"fc": plots.PAPER, "boxstyle": "round,pad=0.3"}
    axes.text(x, y, text, ha="center", va="center", size=9, bbox=frame)


# --8<-- [end:draw_node]


# --8<-- [start:draw_tree]
def draw_tree(axes, node: Node, names, classes, left=0.0, depth=0):
    """Leaves side by side, questions above their answers; gives its place."""
    if node.yes is None:
        draw_node(axes, node, names, classes, left, -depth)
        return left
    right = left + len(leaves(node.yes))
    ends = [draw_tree(axes, side, names, classes, start, depth + 1)
            for side, start in ((node.yes, left), (node.no, right))]
    here = sum(ends) / 2
    for end, word in zip(ends, ("yes", "no")):
        line = [here, end], [-depth, -depth - 1]
        axes.plot(*line, color=plots.MUTED, lw=1, marker="", zorder=0)
        at = 0.45 * here + 0.55 * end, -depth - 0.55
        axes.text(*at, word, size=8, ha="center", va="center",
                  bbox={"fc": plots.PAPER, "lw": 0, "pad": 1})
    draw_node(axes, node, names, classes, here, -depth)
    return here


# --8<-- [end:draw_tree]


# --8<-- [start:stability]
def disagreement(answers: Array) -> Array:
    """Chance that two different runs disagree, case by case: (cases,).

    answers: (runs, cases) labels. Gini again, but never a run with itself.
    """
    runs = len(answers)
    counts = np.eye(answers.max() + 1)[answers].sum(axis=0)
    return gini(counts) * runs / (runs - 1)


def few_that_decide(x: Array, y: Array) -> list[int]:
    """Cases without which the first question is another; found greedily."""
    member, rows, gone = np.eye(y.max() + 1)[y], np.arange(len(x)), []
    first = best_split(x, member)[0]

    def lead(without):  # by how much the first question beats the next
        keep = rows[rows != without]
        best = impurities(x[keep], member[keep])[0].min(axis=0)
        return np.delete(best, first).min() - best[first]

    while best_split(x[rows], member[rows])[0] == first:
        gone.append(int(min(rows, key=lead)))
        rows = rows[rows != gone[-1]]
    return gone


# --8<-- [end:stability]


ALPHAS = (0.0, 0.0003, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02)


def contenders() -> dict:
    """Each model as candidates: functions of x and y that return predict_proba."""

    def tree(x, y, *, depth=np.inf, alpha=0.0):
        return partial(predict_proba, prune(train(x, y, depth=depth), alpha))

    def library(x, y, *, make, **settings):
        return make_pipeline(StandardScaler(), make(**settings)).fit(x, y).predict_proba

    logistic = partial(library, make=LogisticRegression, max_iter=2000)
    neighbours = partial(library, make=KNeighborsClassifier)
    return {
        "one question": [partial(tree, depth=1)],
        "tree, grown out": [tree],
        "tree, depth chosen": [partial(tree, depth=d) for d in (2, 3, 4, 6, 8, 10, 12)],
        "tree, pruned": [partial(tree, alpha=alpha) for alpha in ALPHAS],
        "logistic regression": [partial(logistic, C=c) for c in (0.03, 0.3, 3)],
        "nearest neighbours": [partial(neighbours, n_neighbors=k) for k in (1, 3, 5, 9)],
    }


def choose(candidates: list, x: Array, y: Array):
    """The candidate that is right most often on validation parts of the training cases."""
    if len(candidates) == 1:
        return candidates[0]
    right = np.zeros(len(candidates))
    for seed in range(3):
        part = digits.hold_out(x, y, size=len(x) // 5, seed=seed)
        for k, fit in enumerate(candidates):
            answer = fit(part.x_train, part.y_train)
            right[k] += metrics.accuracy(answer(part.x_test), part.y_test)
    return candidates[int(right.argmax())]


def compare(models: dict, split: digits.Split, *, draws: int, seed: int) -> dict:
    """Name → accuracy, calibration error, missed, false alarms, disagreement on one split."""
    x, y, x_test, y_test = split
    rng, result = np.random.default_rng(seed), {}
    subsets = [rng.permutation(len(x))[: round(0.95 * len(x))] for _ in range(draws)]
    for name, candidates in models.items():
        fit = choose(candidates, x, y)
        p = fit(x, y)(x_test)
        said = p.argmax(axis=1)
        again = np.array([fit(x[rows], y[rows])(x_test).argmax(axis=1) for rows in subsets])
        result[name] = {
            "accuracy": metrics.accuracy(p, y_test),
            "ece": metrics.expected_calibration_error(p, y_test),
            "missed": float(((said == 0) & (y_test == 1)).sum()),
            "alarms": float(((said == 1) & (y_test == 0)).sum()),
            "differ": float(disagreement(again).mean()),
        }
    return result


def report(models: dict, *, seeds: int, draws: int) -> dict:
    """Compare models on random splits of digits and of tumours: table printed, means returned."""
    result: dict = {}
    patients = (load_patients(seed=seed)[0] for seed in range(seeds))
    images = (digits.load_split(seed=seed) for seed in range(seeds))
    for data, splits in (("digits", images), ("tumours", patients)):
        runs = [compare(models, s, draws=draws, seed=seed) for seed, s in enumerate(splits)]
        print(f"{data:<20} accuracy       ECE    two models differ", end="")
        print("   missed  false alarms" if data == "tumours" else "")
        for name in models:
            rows = {key: np.array([run[name][key] for run in runs]) for key in runs[0][name]}
            mean = {key: float(values.mean()) for key, values in rows.items()}
            sd = float(rows["accuracy"].std(ddof=1))
            print(f"{name:<20} {mean['accuracy']:.3f} ± {sd:.3f}  {mean['ece']:.3f}", end="")
            print(f"  {mean['differ']:>7.1%}", end="")
            tail = f"{mean['missed']:>18.1f}{mean['alarms']:>14.1f}"
            print(tail if data == "tumours" else "")
            key = name.replace(",", "").replace(" ", "_")
            result.setdefault(data, {})[key] = mean | {"sd": sd}
        print()
    return result


def study(*, seeds: int = 10, draws: int = 5) -> dict:
    """Trees and baselines on random splits, settings chosen on validation parts."""
    return report(contenders(), seeds=seeds, draws=draws)
