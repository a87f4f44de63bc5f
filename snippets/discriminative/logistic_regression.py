"""Logistic regression: one weighted sum of pixels per class, turned into probabilities."""

# --8<-- [start:imports]
from functools import partial
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from snippets.shared import metrics
from snippets.shared.digits import check_images, hold_out, load_split
from snippets.shared.plots import INK, MARKERS, MUTED, SERIES
from snippets.shared.plots import draw_digits, ink_map, subplots

# --8<-- [end:imports]


# --8<-- [start:model]
class Model(NamedTuple):
    weights: np.ndarray  # (pixels, classes)
    bias: np.ndarray  # (classes,)


def log_proba(model: Model, x: np.ndarray) -> np.ndarray:
    """log p(y|x) for images (n, pixels): an array (n, classes)."""
    x = check_images(x, pixels=len(model.weights))
    scores = x @ model.weights + model.bias  # (n, classes)
    if np.isnan(scores).any():
        raise ValueError("expected numbers, got NaN: fill in missing pixels")
    # logsumexp takes the largest score out first, so exp cannot overflow.
    return scores - logsumexp(scores, axis=1, keepdims=True)


def predict_proba(model: Model, x: np.ndarray) -> np.ndarray:
    """p(y|x) for images (n, pixels): an array (n, classes), rows sum to 1."""
    return np.exp(log_proba(model, x))


# --8<-- [end:model]


# --8<-- [start:loss]
def loss_and_gradient(
    model: Model, x: np.ndarray, y: np.ndarray, *, c: float
) -> tuple[float, Model]:
    """Mean of -log p(y|x) plus the penalty, and its slope in every number."""
    n, own = len(x), np.arange(len(x))
    log_p = log_proba(model, x)
    penalty = (model.weights**2).sum() / (2 * c * n)  # the bias goes free
    error = np.exp(log_p)
    error[own, y] -= 1  # probability minus what happened: (n, classes)
    slope = x.T @ error / n + model.weights / (c * n)
    return penalty - log_p[own, y].mean(), Model(slope, error.mean(axis=0))


# --8<-- [end:loss]


def check_labels(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return y as ints 0..K-1, one for each row of x, or say what is wrong."""
    y = np.asarray(y)
    if y.shape != (len(x),):
        raise ValueError(f"expected {len(x)} labels, one for each image, got shape {y.shape}")
    seen = np.unique(y)
    if len(seen) < 2 or not np.array_equal(seen, np.arange(len(seen))):
        raise ValueError(f"expected labels 0, 1, ... K-1, each at least once, got {seen}")
    return y.astype(int)


# --8<-- [start:train]
def train(x, y, *, c: float = 10.0, tolerance=1e-6, steps=5000) -> Model:
    """Slide down the loss until it is flat; c as in scikit-learn.

    x: (n, pixels); y: (n,) labels 0..K-1. ValueError for bad input,
    RuntimeError if not flat after so many steps. Bound: Boehning, 1992.
    """
    x, y = check_images(x, pixels=np.shape(x)[-1]), check_labels(x, y)
    if not 0 < c < np.inf:
        raise ValueError(f"expected 0 < c < infinity, got {c}")
    inverse = np.linalg.inv(steepest_curvature(x, c=c))
    theta = np.zeros((x.shape[1] + 1, y.max() + 1))  # weights, then bias
    velocity, k = np.zeros_like(theta), 0
    for _ in range(steps):
        ahead = theta + k / (k + 3) * velocity
        model = Model(ahead[:-1], ahead[-1])
        gradient = np.vstack(loss_and_gradient(model, x, y, c=c)[1])
        if np.abs(gradient).max() < tolerance:
            return model
        velocity = k / (k + 3) * velocity - inverse @ gradient
        uphill = (gradient * velocity).sum() > 0  # the momentum overshot
        theta, velocity = theta + velocity * (not uphill), velocity * (not uphill)
        k = 0 if uphill else k + 1
    raise RuntimeError(f"not flat after {steps} steps: raise steps or lower c")


# --8<-- [end:train]
