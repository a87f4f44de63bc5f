"""Support vector machines: the widest gap between two classes, held open by the closest images."""

# --8<-- [start:imports]
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from snippets.shared import digits, metrics, plots

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:kernels]
def linear(a: Array, b: Array, *, gamma: float = 1.0) -> Array:
    """Products of rows: (n, features), (m, features) -> (n, m)."""
    return gamma * (a @ b.T)


def quadratic(a: Array, b: Array, *, gamma: float = 1.0) -> Array:
    """Products of all squares and pairs of features, never written out."""
    return (1 + gamma * (a @ b.T)) ** 2


def rbf(a: Array, b: Array, *, gamma: float) -> Array:
    """Similarity that falls with the distance: 1 if equal, 0 far away."""
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.exp(-gamma * np.maximum(square, 0))


# --8<-- [end:kernels]


# --8<-- [start:solve]
def solve(k: Array, side: Array, *, c: float, gap=1e-3, steps=200_000):
    """Two images at a time, until no pair wants to move (SMO).

    k: (n, n) kernel; side: (n,) of -1 and 1. Returns the signed strength
    of each image, (n,), and the bias; Keerthi et al., 2001.
    """
    alpha, pull = np.zeros(len(side)), side.astype(float)
    for _ in range(steps):
        # pull = side - sum of strength * k: the bias that each would like.
        rise = np.where(side > 0, alpha < c, alpha > 0)
        fall = np.where(side > 0, alpha > 0, alpha < c)
        i = np.where(rise, pull, -np.inf).argmax()
        j = np.where(fall, pull, np.inf).argmin()
        if pull[i] - pull[j] < gap:
            return alpha * side, (pull[i] + pull[j]) / 2
        curve = max(k[i, i] + k[j, j] - 2 * k[i, j], 1e-12)
        step = min((pull[i] - pull[j]) / curve,
                   c - alpha[i] if side[i] > 0 else alpha[i],
                   alpha[j] if side[j] > 0 else c - alpha[j])
        alpha[i] += side[i] * step
        alpha[j] -= side[j] * step
        pull -= step * (k[:, i] - k[:, j])
    raise RuntimeError(f"pairs still move after {steps} steps: raise steps")


# --8<-- [end:solve]


# --8<-- [start:model]
class Machine(NamedTuple):
    images: Array  # (support vectors, features)
    strength: Array  # (support vectors, classes) signed
    bias: Array  # (classes,)
    kernel: partial  # of two arrays of images
    c: float
    slope: Array | None = None  # (classes,) until calibrate(): none
    offset: Array | None = None  # (classes,)


def scores(model: Machine, x: Array) -> Array:
    """One score a class, (n, classes): the largest wins. No probability."""
    x = digits.check_images(x, pixels=model.images.shape[1])
    if np.isnan(x).any():
        raise ValueError("expected numbers, got NaN: fill in missing pixels")
    return model.kernel(x, model.images) @ model.strength + model.bias


# --8<-- [end:model]


# --8<-- [start:train]
def train(x: Array, y: Array, *, c=10.0, gamma=0.25, kernel=rbf) -> Machine:
    """One machine for each class against all others.

    x: (n, features); y: (n,) labels 0..K-1. ValueError for bad input.
    """
    x = digits.check_images(x, pixels=np.shape(x)[-1])
    y = digits.check_labels(y, count=len(x))
    if np.isnan(x).any() or not (c > 0 and gamma > 0):
        raise ValueError("expected no NaN, c > 0 and gamma > 0")
    kernel = partial(kernel, gamma=gamma)
    k = kernel(x, x)
    solved = [solve(k, np.where(y == label, 1, -1), c=c)
              for label in range(y.max() + 1)]
    strength = np.column_stack([alphas for alphas, _ in solved])
    used = (strength != 0).any(axis=1)  # the others may be thrown away
    bias = np.array([b for _, b in solved])
    return Machine(x[used], strength[used], bias, kernel, c)


# --8<-- [end:train]


# --8<-- [start:platt]
def platt(score: Array, hit: Array) -> Array:
    """Slope and offset of p(hit) = 1 / (1 + exp(-slope * score - offset)).

    The targets stop short of 0 and 1, as if each side had one more image
    (Platt, 1999): otherwise a clean gap would give infinite slopes.
    """
    many, few = hit.sum() + 1, (~hit).sum() + 1
    target = np.where(hit, many / (many + 1), 1 / (few + 1))

    def loss(theta):
        z = theta[0] * score + theta[1]
        error = (expit(z) - target) / len(z)
        return ((np.logaddexp(0, z) - target * z).mean(),
                np.array([error @ score, error.sum()]))

    return minimize(loss, np.zeros(2), jac=True, tol=1e-9).x


# --8<-- [end:platt]


# --8<-- [start:left_out]
def left_out(model: Machine, x: Array, y: Array, *, folds=5, seed=0) -> Array:
    """Scores of images by machines that were not trained on them."""
    rows = np.random.default_rng(seed).permutation(len(x))
    found = np.zeros((len(x), len(model.bias)))
    for part in np.array_split(rows, folds):
        rest = np.setdiff1d(rows, part)
        again = train(x[rest], y[rest], c=model.c, kernel=model.kernel.func,
                      **model.kernel.keywords)
        found[part] = scores(again, x[part])
    return found


# --8<-- [end:left_out]
# --8<-- [start:calibrate]
def calibrate(model: Machine, x: Array, y: Array, *, folds=5) -> Machine:
    """Fit a sigmoid to each class, on scores of images that were left out."""
    found = left_out(model, x, y, folds=folds)
    fitted = [platt(f, y == label) for label, f in enumerate(found.T)]
    slope, offset = np.transpose(fitted)
    return model._replace(slope=slope, offset=offset)


def claims(model: Machine, x: Array) -> Array:
    """The probability of each class, asked alone: rows need not sum to 1."""
    if model.slope is None:
        raise ValueError("scores are no probabilities: calibrate() first")
    return expit(scores(model, x) * model.slope + model.offset)


def predict_proba(model: Machine, x: Array) -> Array:
    """p(y|x) for images (n, pixels): (n, classes), rows divided by their
    sum."""
    alone = claims(model, x)
    return alone / alone.sum(axis=1, keepdims=True)


# --8<-- [end:calibrate]


# --8<-- [start:draw_margin]
def draw_margin(x, side, images, *, c, show, axes) -> float:
    """Two features (n, 2): boundary, margin, rings on support vectors."""
    strength, bias = solve(x @ x.T, side, c=c, gap=1e-6)
    w = strength @ x
    ends = np.array([x[:, 0].min() - 0.05, x[:, 0].max() + 0.05])
    for level, width in ((-1, 0.8), (0, 2), (1, 0.8)):
        axes.plot(ends, (level - bias - w[0] * ends) / w[1], marker="",
                  color=plots.INK, lw=width, ls="-" if level == 0 else "--")
    for k, sign in enumerate((-1, 1)):
        own = side == sign
        axes.scatter(*x[own].T, s=12, marker="os"[k], lw=0, rasterized=True,
                     color=plots.SERIES[2 * k])
    axes.scatter(*x[strength != 0].T, s=45, ec=plots.INK, fc="none", lw=1)
    for k, shift in show.items():
        digit = OffsetImage(images[k].reshape(8, 8), cmap=plots.ink_map())
        digit.set_zoom(3)
        axes.add_artist(AnnotationBbox(
            digit, x[k], xybox=shift, boxcoords="offset points", pad=0.1,
            arrowprops={"arrowstyle": "-"}))
    low, high = x[:, 1].min() - 0.08, x[:, 1].max() + 0.08
    axes.set(xlim=ends, ylim=(low, high), aspect="equal")
    return 2 / float(np.linalg.norm(w))


# --8<-- [end:draw_margin]


def contenders() -> dict:
    """Name → (fit, candidate settings); fit(x, y, ...) gives a function of new images to scores."""

    def machine(x, y, **settings):
        return partial(scores, train(x, y, **settings))

    def neighbours(x, y, *, k):
        return KNeighborsClassifier(k).fit(x, y).predict_proba

    def logistic(x, y, *, c):
        return LogisticRegression(C=c, max_iter=5000).fit(x, y).decision_function

    def squares(x, y, **settings):
        targets = 2 * np.eye(y.max() + 1)[y] - 1
        return KernelRidge(kernel="rbf", **settings).fit(x, targets).predict

    widths, small = (0.12, 0.25, 0.5), (0.01, 0.1)
    return {
        "logistic regression": (logistic, [{"c": c} for c in (1, 10, 100)]),
        "nearest neighbours": (neighbours, [{"k": k} for k in (1, 3, 5)]),
        "SVM, linear": (partial(machine, kernel=linear, gamma=1), [{"c": c} for c in (0.1, 1)]),
        "SVM, quadratic": (
            partial(machine, kernel=quadratic),
            [{"gamma": g} for g in (0.1, 0.3, 1)],
        ),
        "SVM, RBF": (machine, [{"c": c, "gamma": g} for c in (1, 10) for g in widths]),
        "RBF, least squares": (squares, [{"alpha": a, "gamma": g} for a in small for g in widths]),
    }


def choose(fit, candidates: list[dict], x: Array, y: Array) -> dict:
    """The settings with the best accuracy on a validation part; of equals the first."""
    part = digits.hold_out(x, y)
    right = [
        metrics.accuracy(fit(*part[:2], **settings)(part.x_test), part.y_test)
        for settings in candidates
    ]
    return candidates[int(np.argmax(right))]


def three_readings(split, **settings) -> Array:
    """Log loss and calibration error of one machine's scores, read in three ways: (3, 2)."""
    model = train(*split[:2], **settings)
    seen = scores(model, split.x_train)
    on_seen = [platt(f, split.y_train == label) for label, f in enumerate(seen.T)]
    ways = [np.ones(10), np.zeros(10)], np.transpose(on_seen), calibrate(model, *split[:2])[-2:]
    rows = []
    for slope, offset in ways:
        p = predict_proba(model._replace(slope=slope, offset=offset), split.x_test)
        rows.append((metrics.log_loss(p, split.y_test),
                     metrics.expected_calibration_error(p, split.y_test)))
    return np.array(rows)


def study(*, seeds: int = 10, folds: int = 5) -> dict:
    """Every contender on random splits and on parts of the file; then three readings of a score."""
    images, labels = load_digits(return_X_y=True)
    images, result = images / 16, {}
    splits = [digits.load_split(seed=seed) for seed in range(seeds)]
    for part in np.array_split(np.arange(len(images)), folds):
        rest = np.setdiff1d(np.arange(len(images)), part)
        splits.append(digits.Split(images[rest], labels[rest], images[part], labels[part]))
    print("accuracy on:          random splits    parts of the file")
    for name, (fit, candidates) in contenders().items():
        settings = [choose(fit, candidates, *s[:2]) for s in splits]
        right = [metrics.accuracy(fit(*s[:2], **best)(s.x_test), s.y_test)
                 for s, best in zip(splits, settings)]
        mean, sd = np.mean(right[:seeds]), np.std(right[:seeds], ddof=min(1, seeds - 1))
        print(f"{name:<22}{mean:.3f} ± {sd:.3f}{np.mean(right[seeds:]):>14.3f}")
        key = name.replace(",", "").replace(" ", "_")
        result[key] = {"accuracy": float(mean), "sd": float(sd)}
        result[key]["parts"] = float(np.mean(right[seeds:]))
        if name == "SVM, RBF":
            chosen = settings[:seeds]
    read = np.mean([three_readings(s, **best) for s, best in zip(splits, chosen)], axis=0)
    print("\nprobabilities of the SVM with RBF   log loss   ECE")
    for name, row in zip(("squashed score", "Platt, seen images", "Platt, left out"), read):
        print(f"{name:<38}{row[0]:.3f}   {row[1]:.3f}")
        key = name.replace(",", "").replace(" ", "_").lower()
        result[key] = {"log_loss": float(row[0]), "ece": float(row[1])}
    return result
