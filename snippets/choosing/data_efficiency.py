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
from sklearn.utils import check_array, check_X_y

from snippets.shared import metrics, plots

# --8<-- [end:imports]


# --8<-- [start:world]
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


def check_rows(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Numbers without gaps and one label per row, or a ValueError."""
    x, y = check_X_y(x, y, dtype=float)
    if not np.array_equal(np.unique(y), np.arange(max(y) + 1)):
        raise ValueError("expected labels 0, 1, ... K-1, each at least once, "
                         f"got {np.unique(y)}")
    return x, y.astype(int)


# --8<-- [end:world]


# --8<-- [start:generative]
class Linear(NamedTuple):
    weights: np.ndarray  # (features, classes)
    bias: np.ndarray  # (classes,)


def predict_proba(model, x: np.ndarray) -> np.ndarray:
    """p(y|x) for rows (n, features): an array (n, classes)."""
    if not isinstance(model, Linear):  # any classifier of scikit-learn
        return model.predict_proba(x)
    x = check_array(x, dtype=float)
    if x.shape[1] != len(model.weights):
        raise ValueError(f"expected rows of {len(model.weights)} features, "
                         f"got {x.shape[1]}")
    return softmax(x @ model.weights + model.bias, axis=1)


def train_generative(x, y, *, floor: float = 0.01) -> Linear:
    """Naive Bayes, variances shared by the classes: average, then Bayes."""
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
    """Logistic regression: lower the log loss until it is flat to `tol`."""
    x, y = check_rows(x, y)
    fit = LogisticRegression(C=c, tol=tol, max_iter=10_000).fit(x, y)
    weights, bias = fit.coef_.T, fit.intercept_
    if len(bias) == 1:  # two classes: scikit-learn keeps one column
        weights = np.hstack([-weights, weights]) / 2
        bias = np.append(-bias, bias) / 2
    return Linear(weights, bias)


def trainers() -> dict:
    """Name -> function of (x, y) that returns a model."""
    return {
        "naive_bayes": train_generative,
        "logistic": train_discriminative,
        "logistic_c1": partial(train_discriminative, c=1.0),
        "gaussian_nb": lambda x, y: GaussianNB().fit(x, y),
    }


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
    """Yield (draw, place in sizes, x_train, y_train, x_test, y_test).

    A larger set contains the smaller ones; no size uses the test rows.
    """
    if not 0 < min(sizes) <= max(sizes) < len(x):
        raise ValueError(f"expected sizes of 1 to {len(x) - 1}, got {sizes}")
    for draw in range(draws):
        order = stratified_order(y, np.random.default_rng([seed, draw]))
        test = order[max(sizes):]
        if set(y[order[:min(sizes)]]) != set(y):
            raise ValueError(f"{min(sizes)} rows do not hold every class")
        for j, n in enumerate(sizes):
            rows = x[order[:n]]
            centre, spread = rows.mean(0), rows.std(0)  # of these n alone
            spread[spread == 0] = 1
            yield (draw, j, (rows - centre) / spread, y[order[:n]],
                   (x[test] - centre) / spread, y[test])


# --8<-- [end:draws]


# --8<-- [start:curve]
def tables() -> dict:
    """Name -> rows (n, features), labels (n,), training sizes."""
    sizes = {
        "iris": (6, 12, 21, 30, 90),
        "wine": (9, 15, 30, 60, 120),
        "breast_cancer": (6, 10, 20, 30, 50, 100, 300),
        "digits": (30, 50, 100, 300, 1000),
    }
    load = {name: getattr(datasets, f"load_{name}") for name in sizes}
    return {k: (*load[k](return_X_y=True), n) for k, n in sizes.items()}


def learning_curve(x, y, fits: dict, sizes, *, draws=40, seed=0,
                   score=metrics.accuracy) -> dict[str, np.ndarray]:
    """Name -> scores (draws, sizes); every trainer sees the same rows."""
    curves = {name: np.empty((draws, len(sizes))) for name in fits}
    for draw, j, *train, x_test, y_test in paired_draws(
            x, y, sizes, draws=draws, seed=seed):
        for name, fit in fits.items():
            p = predict_proba(fit(*train), x_test)
            curves[name][draw, j] = score(p, y_test)
    return curves


# --8<-- [end:curve]


# --8<-- [start:compare]
def interval(values: np.ndarray, *, level=0.95) -> np.ndarray:
    """Mean over draws (first axis), then its Student interval: low, high."""
    n, mean = len(values), values.mean(0)
    error = values.std(0, ddof=1) / n**0.5
    half = student.ppf((1 + level) / 2, n - 1) * error
    return np.array([mean, mean - half, mean + half])


def crossing(sizes, gap: np.ndarray) -> float:
    """The size above which a mean gap (sizes,) stays negative.

    0 if it is negative at all sizes, infinity if not at the largest.
    """
    ahead = np.flatnonzero(gap >= 0)
    if not len(ahead):
        return 0.0
    k = ahead[-1]
    if k == len(gap) - 1:
        return float("inf")
    return float(np.exp(np.interp(0, -gap[k:k + 2], np.log(sizes[k:k + 2]))))


# --8<-- [end:compare]


# --8<-- [start:drawing]
def draw_band(axes, sizes, values, **look):
    """Mean against training size, with its interval as a band."""
    mean, low, high = interval(values)
    axes.semilogx(sizes, mean, **look)
    axes.fill_between(sizes, low, high, color=look["color"], alpha=0.2, lw=0)


def draw_gaps(gaps: dict):
    """Label -> (sizes, gap): the lead in points, a ring where it turns."""
    _, axes = plots.subplots(width=6.2, height=3.7)
    plt.axhline(0, color=plots.INK, lw=1, marker="")
    for k, (label, (sizes, gap)) in enumerate(gaps.items()):
        look = {"color": plots.SERIES[2:][k], "marker": plots.MARKERS[k]}
        draw_band(axes, sizes, 100 * gap, **look)
        axes.annotate(label, (sizes[-1], 100 * gap[:, -1].mean()), (6, 3),
                      textcoords="offset points", color=look["color"])
        turn = crossing(sizes, gap.mean(0))
        if 0 < turn < np.inf:
            axes.plot(turn, 0, marker="o", ms=11, mfc="none", mec=plots.INK)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="training rows",
             ylabel="logistic ahead  ← points →  naive Bayes ahead")


# --8<-- [end:drawing]


# --8<-- [start:vote]
def train_by_vote(x, y, fits: dict, *, folds: int = 5):
    """Train the candidate that cross-validates best on these rows alone."""
    folds = min(folds, np.bincount(y).min())
    if folds < 2:
        raise ValueError("expected two rows of each class, to leave one out")
    cut = StratifiedKFold(folds, shuffle=True, random_state=0)

    def right(fit) -> int:
        return sum(
            (predict_proba(fit(x[a], y[a]), x[b]).argmax(1) == y[b]).sum()
            for a, b in cut.split(x, y))

    return max(fits.values(), key=right)(x, y)


# --8<-- [end:vote]


def rules() -> dict:
    """Rule of thumb -> function of (rows, features): the contender that it names."""
    return {
        "logistic always": lambda n, d: "logistic",
        "naive Bayes always": lambda n, d: "naive_bayes",
        "naive Bayes below 100 rows": lambda n, d: "naive_bayes" if n < 100 else "logistic",
        "naive Bayes below 10 a feature": lambda n, d: (
            "naive_bayes" if n < 10 * d else "logistic"),
        "logistic with C = 1 always": lambda n, d: "logistic_c1",
        "nearest neighbour always": lambda n, d: "nearest",
        "cross-validation": lambda n, d: "vote",
    }


def study(*, draws: int = 60, cells: dict | None = None) -> dict:
    """The tables with other draws, two artificial worlds, and what each rule of thumb costs."""
    fixed = {name: fit for name, fit in trainers().items() if name != "gaussian_nb"}
    fixed["nearest"] = lambda x, y: KNeighborsClassifier(1).fit(x, y)
    every = {**fixed, "vote": partial(train_by_vote, fits=fixed)}
    worlds = {"independent": (*world(1200, 0), (20, 80, 320)),
              "disturbed": (*world(1200, 0.8), (20, 80, 320))}
    result, cost = {}, {rule: {} for rule in rules()}
    print("rows               NB    LR    C = 1 1-NN  vote   NB - LR, points  separable")
    for table, (x, y, sizes) in (cells or {**tables(), **worlds}).items():
        curves = learning_curve(x, y, every, sizes, draws=draws, seed=1)
        _, low, high = 100 * interval(curves["naive_bayes"] - curves["logistic"])
        for j, n in enumerate(sizes):
            cell = {name: float(curve[:, j].mean()) for name, curve in curves.items()}
            separable = share_separable(x, y, sizes, j, draws=draws)
            print(f"{table:14}{n:4} ", *(f"{v:.3f}" for v in cell.values()),
                  f"{low[j]:+6.1f} to {high[j]:+5.1f}{separable:11.0%}")
            for rule, pick in rules().items():
                best = max(cell[name] for name in fixed)
                cost[rule][f"{table} {n}"] = 100 * (best - cell[pick(n, x.shape[1])])
            result.setdefault(table, {})[f"n{n}"] = {**cell, "separable": separable}
    return {**result, "cost": print_costs(cost)}


def share_separable(x, y, sizes, j: int, *, draws: int) -> float:
    """Share of the study's draws in which a linear rule gets all training rows right."""
    return float(np.mean([
        metrics.accuracy(predict_proba(train_discriminative(*train), train[0]), train[1]) == 1
        for _, place, *train, _, _ in paired_draws(x, y, sizes, draws=draws, seed=1) if place == j
    ]))


def print_costs(cost: dict) -> dict:
    """Print and return, for each rule, the points it loses on the mean and in its worst cell."""
    print("\ncost of a rule, in points        mean  worst")
    table = {}
    for rule, cells in cost.items():
        where = max(cells, key=cells.get)
        mean, worst = float(np.mean(list(cells.values()))), cells[where]
        print(f"{rule:31}{mean:6.1f}{worst:7.1f}  {where}")
        table[rule.replace(" = ", "_").replace(" ", "_")] = {"mean": mean, "worst": worst}
    return table
