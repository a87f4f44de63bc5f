"""Naive Bayes: learn what each class looks like, pixel by pixel; let Bayes' rule choose."""

# --8<-- [start:imports]
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from sklearn import discriminant_analysis, ensemble, model_selection
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from snippets.shared import digits, metrics

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:train]
class NaiveBayes(NamedTuple):
    """A prior per class, a Gaussian per class and pixel; Maron, 1961."""

    prior: Array  # (classes,) p(y)
    mean: Array  # (classes, pixels) centre of p(x_j|y)
    variance: Array  # (classes, pixels) its spread, squared


def train(x: Array, y: Array, *, floor: float = 0.01) -> NaiveBayes:
    """Maximum likelihood: count the classes, average their pixels.

    x: (n, pixels) in [0, 1]; y: (n,) labels 0, 1, ... each at least once.
    floor: added to every variance, because a blank pixel never varies.
    """
    x, y = digits.check_images(x, pixels=np.shape(x)[-1]), np.asarray(y)
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected ink in [0, 1] in every pixel")
    seen = np.unique(y)
    if y.shape != (len(x),) or (seen != np.arange(len(seen))).any():
        raise ValueError("expected a label per image, 0, 1, ... none unused")
    groups = [x[y == label] for label in seen]
    return NaiveBayes(
        prior=np.array([len(group) / len(x) for group in groups]),
        mean=np.array([group.mean(axis=0) for group in groups]),
        variance=np.array([group.var(axis=0) for group in groups]) + floor,
    )


# --8<-- [end:train]
# --8<-- [start:evidence]
def evidence(model: NaiveBayes, x, missing=None) -> Array:
    """log p(x_j|y), pixel by pixel: an array (n, classes, pixels).

    x: (n, pixels) in [0, 1]; missing: the same shape, True where hidden.
    A hidden pixel integrates to one, so it says log 1 = 0; NaN is fine there.
    """
    x = digits.check_images(x, pixels=model.mean.shape[1])
    missing = np.zeros(x.shape, bool) if missing is None else missing
    hidden = np.asarray(missing)
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
def log_joint(model: NaiveBayes, x, missing=None) -> Array:
    """log p(x, y): the prior and one vote per pixel; (n, classes)."""
    return np.log(model.prior) + evidence(model, x, missing).sum(axis=2)


def log_prob(model: NaiveBayes, x, missing=None) -> Array:
    """log p(x) of what is seen, in nats, summed over the classes; (n,)."""
    return logsumexp(log_joint(model, x, missing), axis=1)


def predict_proba(model: NaiveBayes, x, missing=None) -> Array:
    """p(y|x) = p(x, y) / p(x); (n, classes), rows sum to one."""
    joint = log_joint(model, x, missing)
    # In logs: a product of 64 densities would soon leave a float's range.
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


# --8<-- [end:bayes]
# --8<-- [start:sample]
def sample(model: NaiveBayes, labels, *, seed: int = 0) -> Array:
    """One image per label; every pixel drawn alone, cut to [0, 1]."""
    labels = np.asarray(labels)
    if not np.isin(labels, np.arange(len(model.prior))).all():
        raise ValueError(f"expected labels 0 to {len(model.prior) - 1}")
    rng, spread = np.random.default_rng(seed), np.sqrt(model.variance)
    return np.clip(rng.normal(model.mean[labels], spread[labels]), 0, 1)


def impute(model: NaiveBayes, x, missing) -> Array:
    """Fill hidden pixels with their mean under p(y|what is seen)."""
    expected = predict_proba(model, x, missing) @ model.mean
    return np.where(missing, expected, x)


def correlation_below(x: Array, centre: Array) -> float:
    """How a pixel goes with the one below, once the mean is taken off."""
    rows = (x - centre).reshape(-1, 8, 8)
    upper, lower = rows[:, :-1].ravel(), rows[:, 1:].ravel()
    return float(np.corrcoef(upper, lower)[0, 1])


# --8<-- [end:sample]


def full_proba(split, ridge: float, x, missing=None) -> Array:
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


def conditional_fill(split, x, missing, *, ridge: float = 0.01) -> Array:
    """Hidden pixels expected from the seen ones under one Gaussian for all classes together."""
    mean, cov = split.x_train.mean(axis=0), np.cov(split.x_train.T) + ridge * np.eye(64)
    filled = x.copy()
    for image, hidden in zip(filled, missing):
        gap = np.linalg.solve(cov[np.ix_(~hidden, ~hidden)], (image - mean)[~hidden])
        image[hidden] = mean[hidden] + cov[np.ix_(hidden, ~hidden)] @ gap
    return filled


def contenders(split) -> dict:
    """Each model as a list of candidates, functions of new images; validation will choose."""
    x, y = split.x_train, split.y_train

    def library(make, *settings):
        return [make(setting).fit(x, y).predict_proba for setting in settings]

    def lda(shrinkage):
        machine = discriminant_analysis.LinearDiscriminantAnalysis
        return machine(solver="lsqr", shrinkage=shrinkage)

    def tied(model):  # one variance per pixel, the same for every class
        return model._replace(variance=np.tile(model.prior @ model.variance, (10, 1)))

    floors, ridges = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), (1e-3, 3e-3, 1e-2, 3e-2)
    fitted = [train(x, y, floor=floor) for floor in floors]
    return {
        "nb_library_floor": library(lambda v: GaussianNB(var_smoothing=v), 1e-9),
        "naive_bayes": [partial(predict_proba, model) for model in fitted],
        "nb_tied_variances": [partial(predict_proba, tied(model)) for model in fitted],
        "lda": library(lda, 1e-3, 1e-2, 1e-1),
        "full_gaussian": [partial(full_proba, split, r) for r in ridges],
        "logistic": library(lambda c: LogisticRegression(C=c, max_iter=5000), 1, 10, 100),
    }


def compare_whole(split, x, y, *, seed: int) -> dict:
    """Accuracy and log loss of each model's candidate that is best on validation."""
    valid, result = digits.hold_out(split.x_train, split.y_train, seed=seed), {}
    tried, final = contenders(valid), contenders(split)
    for name in final:
        held = [metrics.accuracy(f(valid.x_test), valid.y_test) for f in tried[name]]
        p = final[name][int(np.argmax(held))](x)
        result[name] = {"accuracy": metrics.accuracy(p, y), "log_loss": metrics.log_loss(p, y)}
    return result


def compare_hidden(split, x, y, *, seed: int) -> dict:
    """Accuracy with pixels hidden: drop the factor, or fill in for logistic regression."""
    random, result = np.random.default_rng(seed).random(x.shape), {}
    masks = {f"random_{share}": random < share / 100 for share in (0, 25, 50, 75, 90)}
    masks |= {"lower_half": np.indices(x.shape)[1] >= 32, "dark_ink": x > 0.5}
    model = train(split.x_train, split.y_train)
    line = LogisticRegression(C=10, max_iter=5000).fit(split.x_train, split.y_train)
    for name, missing in masks.items():
        mean_filled = np.where(missing, split.x_train.mean(axis=0), x)
        result[name] = {
            "nb": metrics.accuracy(predict_proba(model, x, missing), y),
            "lr_mean": line.score(mean_filled, y),
            "lr_cond": line.score(conditional_fill(split, x, missing), y),
            "full": metrics.accuracy(full_proba(split, 0.01, x, missing), y),
        }
    return result


def compare_draws(split, x, y, *, seed: int) -> dict:
    """Drawn without a floor: neighbours' correlation; can a forest tell (0.5: it cannot)?"""
    model, rng = train(split.x_train, split.y_train, floor=0), np.random.default_rng(seed)
    covariances = [np.cov(split.x_train[split.y_train == k].T) for k in range(10)]
    full = np.array([rng.multivariate_normal(model.mean[k], covariances[k]) for k in y])
    draws = {"real": x, "naive_bayes": sample(model, y, seed=seed), "full_gaussian": full}
    reference, is_real, result = split.x_train[: len(x)], np.repeat([1, 0], len(x)), {}
    for name, drawn in draws.items():
        drawn = np.round(np.clip(drawn, 0, 1) * 16) / 16  # real ink comes in sixteenths
        both = np.vstack([reference, drawn])
        forest = ensemble.RandomForestClassifier(100, random_state=seed)
        score = model_selection.cross_val_score
        folds = score(forest, both, is_real, cv=5, scoring="roc_auc")
        below = correlation_below(drawn, model.mean[y])
        result[name] = {"correlation": below, "forest_auc": float(folds.mean())}
    return result


def study(*, seeds: int = 5, images: int = 360) -> dict:
    """Every comparison on several splits: mean and spread over them, printed and returned."""
    runs = []
    for seed in range(seeds):
        split = digits.load_split(seed=seed)
        x, y = split.x_test[:images], split.y_test[:images]
        compare = {"whole": compare_whole, "hidden": compare_hidden, "draws": compare_draws}
        runs.append({name: f(split, x, y, seed=seed) for name, f in compare.items()})
    means: dict = {}
    for table, rows in runs[0].items():
        print(f"{table:<18}" + "".join(f"{name:>15}" for name in next(iter(rows.values()))))
        for row, cells in rows.items():
            values = np.array([list(run[table][row].values()) for run in runs])
            mean, spread = values.mean(axis=0), values.std(axis=0, ddof=min(1, seeds - 1))
            line = "".join(f"{m:>7.3f} ± {s:.3f}" for m, s in zip(mean, spread))
            print(f"{row.replace('_', ' '):<18}{line}")
            record = dict(zip(cells, mean.tolist())) | {
                f"{key}_spread": float(s) for key, s in zip(cells, spread)
            }
            means.setdefault(table, {})[row] = record
        print()
    return means
