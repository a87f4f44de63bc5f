"""Which family needs less data: one linear rule, fitted two ways on the same small draws."""

# --8<-- [start:imports]
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax
from scipy.stats import t as student
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils import check_X_y

from snippets.shared import metrics
from snippets.shared.plots import (
    DISCRIMINATIVE,
    GENERATIVE,
    INK,
    MUTED,
    SERIES,
    subplots,
)

# --8<-- [end:imports]


# --8<-- [start:world]
def check_rows(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Numbers without gaps and one label per row, or a ValueError."""
    x, y = check_X_y(x, y, dtype=float)
    if not np.array_equal(np.unique(y), np.arange(max(y) + 1)):
        raise ValueError("expected labels 0, 1, ... K-1, each at least once, "
                         f"got {np.unique(y)}")
    return x, y.astype(int)


def world(n: int, rho: float, *, features=20, gap=0.7, seed=0):
    """Rows and labels: half of the features differ by `gap` between classes.

    Within a class each feature is Gaussian with variance 1, whatever `rho`:
    that share of the noise is one disturbance that shifts the whole row.
    """
    rng = np.random.default_rng(seed)
    y = rng.permutation(n) % 2
    useful = np.arange(features) < features / 2
    own, common = rng.normal(size=(n, features)), rng.normal(size=(n, 1))
    noise = np.sqrt(1 - rho) * own + np.sqrt(rho) * common
    return np.outer(y - 0.5, gap * useful) + noise, y


# --8<-- [end:world]


# --8<-- [start:generative]
class Linear(NamedTuple):
    weights: np.ndarray  # (features, classes)
    bias: np.ndarray  # (classes,)


def train_generative(x, y, *, floor: float = 0.01) -> Linear:
    """Naive Bayes, variances shared by the classes: average, then Bayes.

    x: (n, features), standardised; y: (n,) labels 0..K-1, each present.
    """
    x, y = check_rows(x, y)
    prior = np.bincount(y) / len(y)
    mean = np.array([x[y == k].mean(0) for k in range(len(prior))])
    # Few rows can agree by chance: no feature may decide alone.
    variance = ((x - mean[y]) ** 2).mean(0) + floor  # (features,)
    bias = np.log(prior) - (mean**2 / variance).sum(1) / 2
    return Linear((mean / variance).T, bias)


# --8<-- [end:generative]


# --8<-- [start:discriminative]
def train_discriminative(x, y, *, c=np.inf, tol=1e-4) -> Linear:
    """Logistic regression: lower the log loss until it is flat to `tol`.

    x, y: as above; c: as in scikit-learn, infinite for no penalty.
    """
    x, y = check_rows(x, y)
    fit = LogisticRegression(C=c, tol=tol, max_iter=10_000).fit(x, y)
    weights, bias = fit.coef_.T, fit.intercept_
    if len(bias) == 1:  # two classes: scikit-learn keeps one column
        weights = np.hstack([-weights, weights]) / 2
        bias = np.append(-bias, bias) / 2
    return Linear(weights, bias)


def predict_proba(model, x: np.ndarray) -> np.ndarray:
    """p(y|x) for rows (n, features): an array (n, classes)."""
    if not isinstance(model, Linear):  # any classifier of scikit-learn
        return model.predict_proba(x)
    if np.shape(x)[1:] != model.weights.shape[:1]:
        raise ValueError(f"expected rows of {len(model.weights)} features, "
                         f"got shape {np.shape(x)}")
    return softmax(x @ model.weights + model.bias, axis=1)


# --8<-- [end:discriminative]


# --8<-- [start:draws]
def stratified_order(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle so that every beginning has the classes in proportion."""
    place = np.empty(len(y))
    for k in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == k))
        place[own] = (np.arange(len(own)) + rng.random()) / len(own)
    return np.argsort(place)


def paired_draws(x, y, sizes, *, draws=40, seed=0) -> Iterator[tuple]:
    """Yield (draw, size's index, x_train, y_train, x_test, y_test).

    Within a draw a larger training set contains the smaller ones, and the
    test rows are those that no size uses.
    """
    for draw in range(draws):
        order = stratified_order(y, np.random.default_rng([seed, draw]))
        test = order[max(sizes):]
        for j, n in enumerate(sizes):
            rows = x[order[:n]]
            centre, spread = rows.mean(0), rows.std(0)  # of these n alone
            spread[spread == 0] = 1
            yield (draw, j, (rows - centre) / spread, y[order[:n]],
                   (x[test] - centre) / spread, y[test])


# --8<-- [end:draws]


# --8<-- [start:curve]
def learning_curve(x, y, trainers: dict, sizes, *, draws=40, seed=0,
                   score=metrics.accuracy) -> dict[str, np.ndarray]:
    """Name -> scores (draws, sizes); each trainer sees the same rows."""
    curves = {name: np.empty((draws, len(sizes))) for name in trainers}
    for draw, j, *train, x_test, y_test in paired_draws(
            x, y, sizes, draws=draws, seed=seed):
        for name, fit in trainers.items():
            p = predict_proba(fit(*train), x_test)
            curves[name][draw, j] = score(p, y_test)
    return curves


def interval(values: np.ndarray, *, level=0.95) -> np.ndarray:
    """Mean over draws (first axis) and its Student interval: low, high."""
    n, mean = len(values), values.mean(0)
    half = student.ppf((1 + level) / 2, n - 1) * values.std(0, ddof=1) / n**0.5
    return np.array([mean, mean - half, mean + half])


# --8<-- [end:curve]


# --8<-- [start:contenders]
def tables() -> dict:
    """Name -> rows (n, features), labels (n,), training sizes."""
    sizes = {
        "iris": (6, 12, 21, 30, 60, 90),
        "wine": (9, 15, 30, 60, 120),
        "breast_cancer": (6, 10, 20, 30, 50, 100, 300),
        "digits": (20, 50, 100, 200, 500, 1000),
    }
    load = {name: getattr(datasets, f"load_{name}") for name in sizes}
    return {k: (*load[k](return_X_y=True), n) for k, n in sizes.items()}


def trainers() -> dict:
    """Name -> function of (x, y): what is compared."""
    return {
        "naive_bayes": train_generative,
        "logistic": train_discriminative,
        "logistic_c1": partial(train_discriminative, c=1.0),
        "gaussian_nb": lambda x, y: GaussianNB().fit(x, y),
    }


# --8<-- [end:contenders]


# --8<-- [start:drawing]
def draw_band(axes, sizes, values, **look):
    """Mean over draws against size, its 95 % interval as a band."""
    mean, low, high = interval(values)
    line, = axes.semilogx(sizes, mean, **look)
    axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.2, lw=0)


def draw_curves(axes, title, curves, sizes):
    looks = {"naive_bayes": (GENERATIVE, "s", "-"),
             "logistic": (DISCRIMINATIVE, "o", "-"),
             "logistic_c1": (DISCRIMINATIVE, "^", ":"),
             "gaussian_nb": (GENERATIVE, "D", ":")}
    for name, (color, marker, style) in looks.items():
        draw_band(axes, sizes, curves[name], color=color, marker=marker,
                  ls=style, label=name.replace("_", " "))
    axes.set(title=title, xticks=sizes, xticklabels=sizes)
    axes.minorticks_off()


# --8<-- [end:drawing]


def crossing(sizes, gap: np.ndarray) -> float:
    """The size above which a mean difference (sizes,) stays negative, log-interpolated.

    0 if it is negative throughout, infinity if it is not negative at the largest size.
    """
    ahead = np.flatnonzero(gap >= 0)
    if not len(ahead):
        return 0.0
    k = int(ahead[-1])
    if k == len(gap) - 1:
        return float("inf")
    return float(np.exp(np.interp(0, [-gap[k], -gap[k + 1]], np.log(sizes[k : k + 2]))))


def train_by_vote(x, y, candidates: dict, *, folds: int = 5):
    """Train the candidate with the best cross-validated accuracy on these rows alone."""
    folds = min(folds, np.bincount(y).min())
    if folds < 2:
        raise ValueError("expected two rows of each class or more, to leave one out")
    cut = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y))

    def right(train) -> int:
        return sum(
            (predict_proba(train(x[a], y[a]), x[b]).argmax(1) == y[b]).sum() for a, b in cut
        )

    return max(candidates.values(), key=right)(x, y)


def rules() -> dict:
    """Rule of thumb -> function of (rows, features): the contender that it names."""
    return {
        "always logistic": lambda n, d: "logistic",
        "always naive Bayes": lambda n, d: "naive_bayes",
        "naive Bayes below 100 rows": lambda n, d: "naive_bayes" if n < 100 else "logistic",
        "naive Bayes below 10 rows/feature": lambda n, d: (
            "naive_bayes" if n < 10 * d else "logistic"
        ),
        "always logistic, C = 1": lambda n, d: "logistic_c1",
        "always 1-nearest neighbour": lambda n, d: "nearest",
        "5-fold cross-validation": lambda n, d: "voted",
    }


def study(*, draws: int = 80, cells: dict | None = None) -> dict:
    """All tables again with more draws, and what each rule of thumb costs."""
    fixed = {k: f for k, f in trainers().items() if k != "gaussian_nb"}
    fixed["nearest"] = lambda x, y: KNeighborsClassifier(1).fit(x, y)
    every = {**fixed, "voted": partial(train_by_vote, candidates=fixed)}
    result, cost = {}, {rule: {} for rule in rules()}
    print("rows              NB    LR   C=1  1-NN  vote   NB - LR, points")
    for table, (x, y, sizes) in (cells or tables()).items():
        curves = learning_curve(x, y, every, sizes, draws=draws, seed=1)
        mean = {name: curve.mean(0) for name, curve in curves.items()}
        gap = interval(curves["naive_bayes"] - curves["logistic"])
        result[table] = {}
        for j, n in enumerate(sizes):
            cell = {name: float(values[j]) for name, values in mean.items()}
            best = max(cell[name] for name in fixed)
            for rule, pick in rules().items():
                cost[rule][f"{table} {n}"] = best - cell[pick(n, x.shape[1])]
            low, high = 100 * gap[1:, j]
            print(f"{table:14}{n:5}", *(f"{v:.3f}"[1:].rjust(5) for v in cell.values()),
                  f"  {low:+5.1f} to {high:+5.1f}")
            result[table][f"n{n}"] = cell
    print("\nrule                                mean cost  worst cost, points")
    for rule, costs in cost.items():
        where = max(costs, key=costs.get)
        mean_cost = 100 * float(np.mean(list(costs.values())))
        print(f"{rule:36}{mean_cost:9.1f}{100 * costs[where]:12.1f}  {where}")
    return result
