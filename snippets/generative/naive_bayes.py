"""Naive Bayes: learn what each class looks like, pixel by pixel; let Bayes' rule choose."""

# --8<-- [start:imports]
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from snippets.shared.digits import check_images, hold_out, load_split
from snippets.shared.metrics import accuracy, calibration_table, log_loss
from snippets.shared.plots import INK, MUTED, SERIES
from snippets.shared.plots import draw_digits, ink_map, subplots

# --8<-- [end:imports]


# --8<-- [start:train]
class NaiveBayes(NamedTuple):
    prior: np.ndarray  # (classes,) p(y)
    mean: np.ndarray  # (classes, pixels) centre of p(x_j|y)
    variance: np.ndarray  # (classes, pixels) its spread, squared


def train(x: np.ndarray, y: np.ndarray, *, floor: float = 0.01) -> NaiveBayes:
    """Maximum likelihood: count the classes, average their pixels.

    x: (n, pixels) in [0, 1]; y: (n,) labels 0, 1, ... each at least once.
    floor: added to every variance, because a blank pixel never varies.
    """
    x = check_images(x, pixels=np.shape(x)[-1])
    seen = np.unique(y)
    if len(y) != len(x) or not np.array_equal(seen, np.arange(len(seen))):
        raise ValueError("expected one label per image, 0, 1, ... none unused")
    groups = [x[y == label] for label in seen]
    return NaiveBayes(
        prior=np.array([len(group) / len(x) for group in groups]),
        mean=np.array([group.mean(axis=0) for group in groups]),
        variance=np.array([group.var(axis=0) for group in groups]) + floor,
    )


# --8<-- [end:train]
# --8<-- [start:evidence]
def evidence(model: NaiveBayes, x, missing=None) -> np.ndarray:
    """log p(x_j|y), pixel by pixel: an array (n, classes, pixels).

    x: (n, pixels) in [0, 1]; missing: the same shape, True where hidden.
    A hidden pixel integrates to one, so it says log 1 = 0; NaN is fine there.
    """
    x = check_images(x, pixels=model.mean.shape[1])
    hidden = np.zeros(x.shape, bool) if missing is None else missing
    if hidden.shape != x.shape or hidden.dtype != bool:
        raise ValueError(f"expected missing to be bool, shape {x.shape}")
    if not (((x >= 0) & (x <= 1)) | hidden).all():
        raise ValueError("expected ink in [0, 1], or a pixel marked missing")
    if not (model.variance > 0).all():
        raise ValueError("a pixel never varies: train with floor > 0")
    gap = np.where(hidden, 0, x)[:, None] - model.mean
    log_density = -(gap**2) / (2 * model.variance)
    log_density -= np.log(2 * np.pi * model.variance) / 2
    return np.where(hidden[:, None], 0, log_density)


# --8<-- [end:evidence]
# --8<-- [start:bayes]
def log_joint(model: NaiveBayes, x, missing=None) -> np.ndarray:
    """log p(x, y): the prior and one vote per pixel; (n, classes)."""
    return np.log(model.prior) + evidence(model, x, missing).sum(axis=2)


def log_prob(model: NaiveBayes, x, missing=None) -> np.ndarray:
    """log p(x) of what is seen, in nats, summed over the classes; (n,)."""
    return logsumexp(log_joint(model, x, missing), axis=1)


def predict_proba(model: NaiveBayes, x, missing=None) -> np.ndarray:
    """p(y|x) = p(x, y) / p(x); (n, classes), rows sum to one."""
    joint = log_joint(model, x, missing)
    # In logs: a product of 64 densities would soon leave a float's range.
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


# --8<-- [end:bayes]
# --8<-- [start:sample]
def sample(model: NaiveBayes, labels, *, seed: int = 0) -> np.ndarray:
    """One image per label; every pixel drawn alone, cut to [0, 1]."""
    noise = np.random.default_rng(seed).normal(
        size=(len(labels), model.mean.shape[1])
    )
    x = model.mean[labels] + noise * np.sqrt(model.variance[labels])
    return np.clip(x, 0, 1)  # a Gaussian also draws less than no ink


def impute(model: NaiveBayes, x, missing) -> np.ndarray:
    """Fill hidden pixels with their mean under p(y|what is seen)."""
    expected = predict_proba(model, x, missing) @ model.mean
    return np.where(missing, expected, x)


def correlation_below(x: np.ndarray, centre: np.ndarray) -> float:
    """How a pixel goes with the one below, centre (n, 64) taken out."""
    rows = (x - centre).reshape(-1, 8, 8)
    return np.corrcoef(rows[:, :-1].ravel(), rows[:, 1:].ravel())[0, 1]


# --8<-- [end:sample]


def full_proba(split, ridge: float, x, missing=None) -> np.ndarray:
    """The baseline that keeps correlations: a full Gaussian per class, hidden pixels dropped."""
    missing = np.zeros(x.shape, bool) if missing is None else missing
    joint = np.zeros((len(x), 10))
    for label in range(10):
        group = split.x_train[split.y_train == label]
        mean, cov = group.mean(axis=0), np.cov(group.T) + ridge * np.eye(64)
        for row, (image, hidden) in enumerate(zip(x, missing)):
            factor = np.linalg.cholesky(cov[np.ix_(~hidden, ~hidden)])
            gap = np.linalg.solve(factor, (image - mean)[~hidden])
            volume = np.log(np.diag(factor)).sum()
            joint[row, label] = np.log(len(group)) - volume - gap @ gap / 2
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


def conditional_fill(split, x, missing, *, ridge: float = 0.01) -> np.ndarray:
    """Hidden pixels expected from the seen ones under one Gaussian for all classes together."""
    mean, cov = split.x_train.mean(axis=0), np.cov(split.x_train.T) + ridge * np.eye(64)
    filled = x.copy()
    for image, hidden in zip(filled, missing):
        gap = np.linalg.solve(cov[np.ix_(~hidden, ~hidden)], (image - mean)[~hidden])
        image[hidden] = mean[hidden] + cov[np.ix_(hidden, ~hidden)] @ gap
    return filled


def rivals() -> dict:
    """Name: (settings to try on validation, a function that fits one and predicts p(y|x))."""

    def ours(split, floor, x):
        return predict_proba(train(split.x_train, split.y_train, floor=floor), x)

    def library(make):
        # Times 16, because the multinomial counts ink.
        return lambda s, c, x: make(c).fit(s.x_train * 16, s.y_train).predict_proba(x * 16)

    return {
        "naive Bayes, library floor": ((1e-9,), ours),
        "naive Bayes": ((1e-3, 3e-3, 1e-2, 3e-2, 1e-1), ours),
        "Bernoulli naive Bayes": ((1,), library(lambda c: BernoulliNB(alpha=c, binarize=8))),
        "multinomial naive Bayes": ((1,), library(lambda c: MultinomialNB(alpha=c))),
        "shared covariance (LDA)": ((0.001, 0.01, 0.1), library(
            lambda c: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=c))),
        "full Gaussian": ((1e-3, 3e-3, 1e-2, 3e-2), full_proba),
        "logistic regression": ((1, 10, 100), library(
            lambda c: LogisticRegression(C=c / 256, max_iter=5000))),
    }
