"""Logistic regression: one weighted sum of pixels per class, turned into probabilities."""

# --8<-- [start:imports]
from functools import partial
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.special import logsumexp
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from snippets.shared import digits, metrics, plots

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:model]
class Model(NamedTuple):
    weights: Array  # (pixels, classes)
    bias: Array  # (classes,)


def log_proba(model: Model, x: Array) -> Array:
    """log p(y|x) for images (n, pixels): an array (n, classes)."""
    x = digits.check_images(x, pixels=len(model.weights))
    scores = x @ model.weights + model.bias  # (n, classes)
    if np.isnan(scores).any():
        raise ValueError("expected numbers, got NaN: fill in missing pixels")
    # exp overflows from 710 on: logsumexp takes the largest score out first.
    return scores - logsumexp(scores, axis=1, keepdims=True)


def predict_proba(model: Model, x: Array) -> Array:
    """p(y|x) for images (n, pixels): an array (n, classes), rows sum to 1."""
    return np.exp(log_proba(model, x))


# --8<-- [end:model]


# --8<-- [start:loss]
def loss_and_gradient(model: Model, x: Array, y: Array, *, c: float) -> tuple:
    """Mean of -log p(y|x) plus the penalty, and the slope in each number."""
    n, own = len(x), np.arange(len(x))
    log_p = log_proba(model, x)
    penalty = (model.weights**2).sum() / (2 * c * n)  # the bias goes free
    error = np.exp(log_p)
    error[own, y] -= 1  # probability minus what happened: (n, classes)
    slope = x.T @ error / n + model.weights / (c * n)
    return penalty - log_p[own, y].mean(), Model(slope, error.mean(axis=0))


# --8<-- [end:loss]


# --8<-- [start:curvature]
def steepest_curvature(x: Array, *, c: float) -> Array:
    """No weights make the loss curve more than this (Boehning, 1992)."""
    n, with_one = len(x), np.column_stack([x, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], 1 / (c * n)), 0)
    return with_one.T @ with_one / (2 * n) + np.diag(penalty)


# --8<-- [end:curvature]


# --8<-- [start:train]
def train(x: Array, y: Array, *, c=10.0, flat=1e-6, steps=5000) -> Model:
    """Slide down the loss until it is flat. c: as in scikit-learn.

    x: (n, pixels); y: (n,) labels 0..K-1. Raises ValueError for bad input,
    RuntimeError when the loss is not flat after so many steps.
    """
    x = digits.check_images(x, pixels=np.shape(x)[-1])
    y = digits.check_labels(y, count=len(x))
    shrink = np.linalg.inv(steepest_curvature(x, c=c))
    theta = np.zeros((x.shape[1] + 1, y.max() + 1))  # weights, then bias
    velocity, k = np.zeros_like(theta), 0
    for _ in range(steps):
        ahead = theta + k / (k + 3) * velocity
        model = Model(ahead[:-1], ahead[-1])
        gradient = np.vstack(loss_and_gradient(model, x, y, c=c)[1])
        if np.abs(gradient).max() < flat:
            return model
        velocity = k / (k + 3) * velocity - shrink @ gradient
        theta, k = theta + velocity, k + 1
        if (gradient * velocity).sum() > 0:  # uphill: forget the momentum
            velocity, k = np.zeros_like(theta), 0
    raise RuntimeError(f"not flat after {steps} steps: raise steps")


# --8<-- [end:train]


# --8<-- [start:draw_boundary]
def draw_boundary(line: LogisticRegression, x, y, *, names, images, show):
    """Two classes by two features (n, 2): points, p(y|x), a few images."""
    _, axes = plots.subplots(height=4.2)
    ranges = zip(x.min(axis=0) - 0.04, x.max(axis=0) + 0.04)
    sides = [np.linspace(low, high, 30) for low, high in ranges]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    p = line.predict_proba(grid)[:, 1].reshape(30, 30)
    depths = (0, 0.3), (0, 0.1), (1, 0.1), (1, 0.3)
    tints = [to_rgba(plots.SERIES[k], depth) for k, depth in depths]
    axes.contourf(*sides, p, [0, 0.1, 0.5, 0.9, 1], colors=tints)
    rows = axes.contour(*sides, p, [0.1, 0.5, 0.9], colors=plots.INK)
    rows.set_linewidths([0.8, 2, 0.8])
    plt.clabel(rows, fmt=lambda level: f"p = {level:.1f}")
    for k, name in enumerate(names):
        axes.scatter(*x[y == k].T, s=14, marker="os"[k], lw=0)
        corner = {"x": 0.02 + 0.92 * k, "y": 0.92 - 0.89 * k, "size": 20}
        colour = {"color": plots.SERIES[k], "transform": axes.transAxes}
        axes.text(s=name, **corner, **colour)
    for k, shift in show.items():
        digit = OffsetImage(images[k].reshape(8, 8), cmap=plots.ink_map())
        digit.set_zoom(5)
        style = {"pad": 0.1, "arrowprops": {"arrowstyle": "-"}}
        where = {"xybox": shift, "boxcoords": "offset points"}
        axes.add_artist(AnnotationBbox(digit, x[k], **where, **style))
    return axes


# --8<-- [end:draw_boundary]


# --8<-- [start:draw_answers]
def draw_answers(x: Array, words: list[str], *, axes=None) -> None:
    """A row of images with a few lines of words under each."""
    if axes is None:
        _, axes = plots.subplots(height=1.4)
    plots.draw_digits(x, columns=len(x), axes=axes)
    for k, text in enumerate(words):
        axes.text(9 * k + 3.5, 9, text, ha="center", va="top", size=9)
    axes.set_ylim(9 + 2.6 * (1 + words[0].count("\n")), -0.5)


# --8<-- [end:draw_answers]


def contenders(x: Array, y: Array) -> dict:
    """Each model as a list of candidates: functions of new images that give probabilities."""

    def most_common(new):
        return np.tile(np.bincount(y) / len(y), (len(new), 1))

    def neighbours(new, *, k, extra):  # `extra` votes for each class: no probability is zero
        nearest = NearestNeighbors(n_neighbors=k).fit(x).kneighbors(new)[1]
        votes = np.eye(y.max() + 1)[y[nearest]].sum(axis=1) + extra
        return votes / votes.sum(axis=1, keepdims=True)

    def svm(new, *, c, gamma):
        machine = SVC(C=c, gamma=gamma)
        return CalibratedClassifierCV(machine, ensemble=False).fit(x, y).predict_proba(new)

    def logistic(new, *, c):
        return predict_proba(train(x, y, c=c, flat=1e-5), new)

    grid = [(k, extra) for k in (1, 3, 5) for extra in (0.01, 0.03, 0.1)]
    bends = [(c, gamma) for c in (1, 10) for gamma in (0.06, 0.13, 0.26)]
    return {
        "most common class": [most_common],
        "logistic regression": [partial(logistic, c=c) for c in (1, 3, 10, 30)],
        "nearest neighbours": [partial(neighbours, k=k, extra=extra) for k, extra in grid],
        "calibrated SVM": [partial(svm, c=c, gamma=gamma) for c, gamma in bends],
    }


def chosen(name: str, x: Array, y: Array, new: Array) -> Array:
    """Probabilities for new images from the candidate with the best validation log loss."""
    part = digits.hold_out(x, y)
    losses = [
        metrics.log_loss(candidate(part.x_test), part.y_test)
        for candidate in contenders(part.x_train, part.y_train)[name]
    ]
    return contenders(x, y)[name][int(np.argmin(losses))](new)


def leak(images: Array, *, window: int = 100) -> tuple[float, float]:
    """Share of images whose nearest neighbour stands within so many places in the file.

    Second: the share if the neighbour were any image of the file.
    """
    places = np.arange(len(images))
    nearest = NearestNeighbors().fit(images).kneighbors(n_neighbors=1)[1][:, 0]
    gap = np.abs(places[:, None] - places)
    chance = ((gap <= window).sum() - len(images)) / (gap.size - len(images))
    return float((np.abs(nearest - places) <= window).mean()), float(chance)


def quality(p: Array, y: Array) -> tuple[float, float, float]:
    """Accuracy, log loss and expected calibration error."""
    return (
        metrics.accuracy(p, y),
        metrics.log_loss(p, y),
        metrics.expected_calibration_error(p, y),
    )


def study(*, seeds: int = 10, folds: int = 5) -> dict:
    """Every contender on random splits, and on the file cut into contiguous parts."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    parts = np.array_split(np.arange(len(images)), folds)
    result = dict(zip(("near", "near_by_chance"), leak(images)))
    print("random split:         accuracy       log loss  ECE    | by parts: mean  last")
    for name in contenders(images, labels):
        splits = [digits.load_split(seed=seed) for seed in range(seeds)]
        rows = np.array([quality(chosen(name, *s[:3]), s.y_test) for s in splits])
        cut = []
        for part in parts:
            rest = np.setdiff1d(np.arange(len(images)), part)
            p = chosen(name, images[rest], labels[rest], images[part])
            cut.append(metrics.accuracy(p, labels[part]))
        (accuracy, loss, ece), sd = rows.mean(axis=0), rows[:, 0].std(ddof=1)
        print(f"{name:<22}{accuracy:.3f} ± {sd:.3f}  {loss:<8.3f}  {ece:.3f}", end="  | ")
        print(f"{np.mean(cut):>14.3f} {cut[-1]:.3f}")
        row = {"accuracy": accuracy, "sd": sd, "log_loss": loss, "ece": ece}
        row |= {"parts": np.mean(cut), "last": cut[-1]}
        result[name.replace(" ", "_")] = {key: float(value) for key, value in row.items()}
    return result
