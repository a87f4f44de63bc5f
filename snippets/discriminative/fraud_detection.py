"""Fraud detection: a class so rare that accuracy says nothing; rank, calibrate, price."""

# --8<-- [start:imports]
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from snippets.shared import digits, plots

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:simulate]
class Payments(NamedTuple):
    x: Array  # (n, 7): log amount, hour, log km, recent, new, log age, online
    y: Array  # (n,) 1 for fraud
    amount: Array  # (n,) in pounds
    kind: Array  # (n,) 0 honest, 1 card testing, 2 spree, 3 takeover


def simulate(n: int = 20_000, *, share: float = 0.013, seed: int = 0):
    """Made-up payments; a quarter of the fraud looks nearly honest."""
    rng = np.random.default_rng(seed)
    kind = np.zeros(n, dtype=int)
    frauds = rng.choice(n, round(share * n), replace=False)
    kind[frauds] = rng.choice([1, 2, 3], len(frauds), p=[0.35, 0.4, 0.25])
    test, spree, take = (kind == k for k in (1, 2, 3))
    log_amount = rng.normal(3.2, 0.9, n)  # around 25 pounds
    log_amount += -2.4 * test + 2.0 * spree + 0.8 * take
    hour = np.where(spree, rng.normal(1, 4, n), rng.normal(14.5, 4, n)) % 24
    log_km = rng.normal(1.0, 1.2, n) + 4.0 * spree
    log_km += (rng.random(n) < 0.04) * rng.normal(5, 0.8, n)  # travellers
    recent = rng.poisson(np.where(test, 3.0, 0.4))  # paid in the last hour
    strange = np.select([test, spree, take], [0.9, 0.8, 0.5], 0.25)
    new = rng.random(n) < strange  # a shop never used before
    log_age = np.log1p(rng.exponential(6, n))  # years as a customer
    online = (rng.random(n) < 0.4) | test
    x = [log_amount, hour, log_km, recent, new, log_age, online]
    y = (kind > 0).astype(int)
    return Payments(np.column_stack(x), y, np.exp(log_amount), kind)


# --8<-- [end:simulate]


# --8<-- [start:tumours]
def tumours(*, kept: int = 30, seed: int = 0) -> digits.Split:
    """Real and rare: all benign tumours, few malignant ones (1).

    Breast cancer Wisconsin (diagnostic), 30 measurements of cell nuclei.
    A third is to test on, both classes in proportion.
    """
    x, benign = load_breast_cancer(return_X_y=True)
    malignant = np.flatnonzero(benign == 0)
    if not 6 <= kept <= len(malignant):
        raise ValueError(f"expected 6 to {len(malignant)} kept, got {kept}")
    some = np.random.default_rng(seed).choice(malignant, kept, replace=False)
    rows = np.concatenate([np.flatnonzero(benign), some])
    x, new, y, truth = train_test_split(
        x[rows], 1 - benign[rows], test_size=1 / 3,
        stratify=benign[rows], random_state=seed)  # fmt: skip
    return digits.Split(x, y, new, truth)


# --8<-- [end:tumours]


# --8<-- [start:train]
def train(x: Array, y: Array, *, c: float = 1.0, weights=None):
    """Logistic regression on features of mean 0 and spread 1.

    x: (n, features); y: (n,) classes 0, 1, ... weights: None, or
    "balanced", which makes each class count the same in the loss.
    """
    x = np.asarray(x, dtype=float)
    y = digits.check_labels(y, count=len(x))
    line = LogisticRegression(C=c, class_weight=weights, max_iter=1000)
    return make_pipeline(StandardScaler(), line).fit(x, y)


def train_boosting(x: Array, y: Array, *, trees=80, weights=None):
    """Small trees on binned features, each fitted to what is still wrong."""
    y = digits.check_labels(y, count=len(x))
    return HistGradientBoostingClassifier(
        max_iter=trees, learning_rate=0.05, max_leaf_nodes=8,
        min_samples_leaf=40, class_weight=weights, early_stopping=False,
        random_state=0).fit(x, y)  # fmt: skip


def predict_proba(model, x: Array) -> Array:
    """p(y|x) for rows (n, features): an array (n, classes)."""
    x, wanted = np.asarray(x, dtype=float), model.n_features_in_
    if x.ndim != 2:
        raise ValueError(f"expected a table of rows, got shape {x.shape}")
    if x.shape[1] != wanted:
        got = x.shape[1]
        raise ValueError(f"expected rows of {wanted} columns, got {got}")
    return model.predict_proba(x)


# --8<-- [end:train]


# --8<-- [start:precision_recall]
def precision_recall(p: Array, y: Array) -> tuple[Array, Array]:
    """At each threshold, from the highest: precision and recall of alarms.

    p: (n,) p(fraud); y: (n,) 0 or 1. Equal scores raise one alarm together.
    """
    if len(p) != len(y) or not np.any(y):
        raise ValueError("expected a score for each case, and some fraud")
    order = np.argsort(-p, kind="stable")
    caught, alarms = np.cumsum(y[order]), np.arange(1, len(p) + 1)
    last = np.append(np.diff(p[order]) != 0, True)  # of those that tie
    return caught[last] / alarms[last], caught[last] / y.sum()


def average_precision(p: Array, y: Array) -> float:
    """Precision, averaged over the frauds as they are found."""
    precision, recall = precision_recall(p, y)
    return float((precision * np.diff(recall, prepend=0)).sum())


# --8<-- [end:precision_recall]


# --8<-- [start:calibration]
def calibration_error(p: Array, y: Array, *, bins: int = 10) -> float:
    """Mean gap between p(fraud) and the share of fraud, over bins of p.

    Of the rare class, not of the top class as `metrics` has it: p and 1 - p
    have the same top probability, so that one cannot see p = .3 where 0 is.
    """
    place = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(place, p - y, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def undo_weights(p: Array, share: float) -> Array:
    """What p would be without balanced weights; share: of the rare class.

    Balancing multiplies the odds by (1 - share) / share; this divides.
    """
    odds = p / np.maximum(1 - p, 1e-12) * share / (1 - share)
    return odds / (1 + odds)


# --8<-- [end:calibration]


# --8<-- [start:cost]
def cost(p: Array, y: Array, *, above, missed=120.0, alarm=3.0) -> float:
    """Pounds per 1,000 payments: each alarm, and each fraud without one."""
    alarms = p > above
    pounds = alarm * alarms.sum() + missed * (~alarms & (y == 1)).sum()
    return 1000 * float(pounds) / len(y)


# --8<-- [end:cost]


# --8<-- [start:draw_crowd]
def draw_crowd(share, recall, false_alarms, axes) -> float:
    """1,000 payments: fraud filled, alarms ringed. Returns the precision."""
    frauds = round(1000 * share)
    found = round(frauds * recall)
    wrong = round((1000 - frauds) * false_alarms)
    place = np.arange(1000) % 50, np.arange(1000) // 50
    order = np.random.default_rng(1).permutation(1000)
    fraud, alarm = order[:frauds], order[frauds - found : frauds + wrong]
    axes.scatter(*place, s=2, color=plots.MUTED, lw=0, rasterized=True)
    red = plots.SERIES[5]
    axes.scatter(*(side[fraud] for side in place), s=22, color=red)
    ring = {"facecolors": "none", "edgecolors": plots.INK, "linewidths": 0.7}
    axes.scatter(*(side[alarm] for side in place), s=52, **ring)
    axes.axis("off")
    return found / (found + wrong)


# --8<-- [end:draw_crowd]


# --8<-- [start:contenders]
def contenders(x: Array, y: Array) -> dict:
    """Each model as a function of new rows that gives p(fraud)."""
    line = LogisticRegression(class_weight="balanced", max_iter=1000)
    gauss = QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=0.1)
    heavy, share = train(x, y, weights="balanced"), y.mean()
    models = {
        "logistic": train(x, y),
        "balanced weights": heavy,  # the sigmoid is fitted to held-out parts
        "weights + sigmoid": CalibratedClassifierCV(
            make_pipeline(StandardScaler(), line)).fit(x, y),
        "boosting": train_boosting(x, y),
        "boosting, balanced": train_boosting(x, y, weights="balanced"),
        "class Gaussians": make_pipeline(StandardScaler(), gauss).fit(x, y),
    }  # fmt: skip
    ask = {"never": lambda new: np.full(len(new), share)}
    ask |= {name: partial(rare, model) for name, model in models.items()}
    ask["undone weights"] = lambda new: undo_weights(rare(heavy, new), share)
    return ask


def rare(model, x: Array) -> Array:
    """p of class 1."""
    return predict_proba(model, x)[:, 1]


# --8<-- [end:contenders]


def quality(p: Array, y: Array, *, above: float) -> dict:
    """The numbers of the table for one model on one test set."""
    return {
        "accuracy": ((p > 0.5) == y).mean(),
        "ap": average_precision(p, y),
        "ece": calibration_error(p, y),
        "even": cost(p, y, above=0.5),
        "priced": cost(p, y, above=above),
        "caught": (p > above)[y == 1].mean(),
        "alarms": (p > above).mean(),
    }


def study(*, seeds: int = 10, n: int = 20_000) -> dict:
    """Every contender on fresh simulated payments, then on thinned tumours, over seeds."""

    def payments(seed):
        old, new = simulate(n, seed=2 * seed), simulate(n, seed=2 * seed + 1)
        return digits.Split(old.x, old.y, new.x, new.y)

    result: dict = {"payments": {}, "tumours": {}}
    for world, draw in (("payments", payments), ("tumours", lambda seed: tumours(seed=seed))):
        found: dict = {}
        for split in (draw(seed) for seed in range(seeds)):
            for name, ask in contenders(split.x_train, split.y_train).items():
                row = quality(ask(split.x_test), split.y_test, above=3 / 120)
                found.setdefault(name, []).append(list(row.values()))
        print(f"{world:<20}right  AP             ECE            cost, 1/2  1/40")
        for name, values in found.items():
            mean, sd = np.mean(values, axis=0), np.std(values, axis=0, ddof=min(1, seeds - 1))
            print(f"{name:<20}{mean[0]:.3f}  {mean[1]:.3f} ± {sd[1]:.3f}", end="  ")
            print(f"{mean[2]:.3f} ± {sd[2]:.3f}  {mean[3]:>7.0f}  {mean[4]:>8.0f} ± {sd[4]:.0f}")
            names = [*row, *(f"{field}_sd" for field in row)]
            key = name.replace(",", "").replace("+ ", "").replace(" ", "_")
            result[world][key] = dict(zip(names, [*mean.tolist(), *sd.tolist()]))
        result[world]["lowered"] = lowered(found)
        logistic, boosting = result[world]["lowered"].values()
        print(f"weights lower AP: logistic in {logistic} of {seeds}, boosting in {boosting}\n")
    return result


def lowered(found: dict) -> dict:
    """In how many draws weights lower the average precision, which is column 1 of a table."""
    pairs = {"logistic": "balanced weights", "boosting": "boosting, balanced"}
    table = {name: np.array(values)[:, 1] for name, values in found.items()}
    return {plain: int((table[heavy] < table[plain]).sum()) for plain, heavy in pairs.items()}
