"""Gaussian mixtures: a density with a closed answer for labels, new images and hidden pixels."""

# --8<-- [start:imports]
from time import process_time
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from sklearn.impute import KNNImputer
from sklearn.metrics import adjusted_rand_score
from sklearn.svm import SVC

from snippets.shared import digits, sample_quality

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:model]
class Mixture(NamedTuple):
    """K Gaussians in d dimensions, each with a weight and a class."""

    weight: Array  # (K,) w, how much of the data is component k's
    mean: Array  # (K, d) mu
    covariance: Array  # (K, d, d) Sigma, the ridge included
    label: Array  # (K,) the class that a component belongs to
    ridge: float  # what was added to each variance
    history: Array  # (steps,) mean log p(x) of the training data


# --8<-- [end:model]
# --8<-- [start:checks]
def checked(model, x, missing) -> tuple[Array, Array]:
    """x with 0 where it is hidden, and what is hidden, both (n, d)."""
    x = digits.check_images(x, pixels=model.mean.shape[1])
    missing = np.zeros(x.shape, bool) if missing is None else missing
    hidden = np.asarray(missing)
    if hidden.shape != x.shape or hidden.dtype != bool:
        raise ValueError(f"expected missing to be bool, shape {x.shape}")
    x = np.where(hidden, 0, x)
    if not np.isfinite(x).all():
        raise ValueError("expected finite pixels: mark NaN as missing")
    return x, hidden


def inked(x: Array) -> Array:
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected ink in [0, 1]: divide by 16, mark NaN")
    return np.array(x, float)


def roots(covariance: Array) -> Array:
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        message = "a covariance is singular: train with a larger ridge"
        raise ValueError(message) from None


# --8<-- [end:checks]
# --8<-- [start:log_joint]
def log_joint(model: Mixture, x: Array, missing=None) -> Array:
    """log p(x, k) of what is seen, in nats: (n, K).

    x: (n, d), any finite numbers; missing: (n, d), True where hidden.
    A Gaussian is integrated over a pixel by crossing out its row and column.
    """
    x, hidden = checked(model, x, missing)
    scores = np.empty((len(x), len(model.weight)))
    for pattern in np.unique(hidden, axis=0):
        rows, seen = (hidden == pattern).all(axis=1), ~pattern
        gap = x[rows][:, seen] - model.mean[:, None, seen]  # (K, rows, seen)
        root = roots(model.covariance[:, seen][:, :, seen])
        z = np.linalg.solve(root, gap.swapaxes(1, 2))  # (K, seen, rows)
        size = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        size = size + seen.sum() * np.log(2 * np.pi) / 2  # (K,)
        scores[rows] = -(z**2).sum(axis=1).T / 2 - size
    return scores + np.log(model.weight)


# --8<-- [end:log_joint]
# --8<-- [start:m_step]
def m_step(x: Array, share: Array, ridge: float) -> Mixture:
    """Weights, means, covariances of x (n, d), counted by share (n, K)."""
    count = share.sum(axis=0) + 1e-14  # an empty component stays finite
    mean = share.T @ x / count[:, None]
    gap = x - mean[:, None]  # (K, n, d)
    spread = (gap * share.T[:, :, None]).swapaxes(1, 2) @ gap
    cov = spread / count[:, None, None] + ridge * np.eye(x.shape[1])
    label = np.zeros(len(count), int)
    return Mixture(count / count.sum(), mean, cov, label, ridge, np.empty(0))


# --8<-- [end:m_step]
# --8<-- [start:em]
def em(x: Array, *, components, ridge=0.01, steps=10, seed=0) -> Mixture:
    """Fit x (n, d) without labels; k-means makes the first shares.

    Source: Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1977.
    """
    if not 0 < components <= len(x):
        raise ValueError(f"expected 1 to {len(x)} components")
    start = KMeans(components, n_init=1, random_state=seed).fit_predict(x)
    share, history = np.eye(components)[start], []
    for _ in range(steps):
        model = m_step(x, share, ridge)
        joint = log_joint(model, x)
        log_p = logsumexp(joint, axis=1, keepdims=True)
        share = np.exp(joint - log_p)  # E step: p(k|x), rows sum to one
        history.append(log_p.mean())
    return model._replace(history=np.array(history))


# --8<-- [end:em]
# --8<-- [start:train]
def train(
    x: Array, y: Array, *, components=4, ridge=0.01, steps=10, seed=0
) -> Mixture:  # fmt: skip
    """A mixture for each class, joined into one of all components.

    x: (n, d) in [0, 1]; y: (n,) labels 0, 1, ... each at least once.
    """
    x = inked(digits.check_images(x, pixels=np.shape(x)[-1]))
    y = digits.check_labels(y, count=len(x))
    settings = {"ridge": ridge, "steps": steps, "seed": seed}
    groups = [x[y == label] for label in np.unique(y)]
    share = np.array([len(group) / len(x) for group in groups])  # p(y)
    fits = [em(g, components=components, **settings) for g in groups]
    return Mixture(
        weight=np.concatenate([p * f.weight for p, f in zip(share, fits)]),
        mean=np.concatenate([fit.mean for fit in fits]),
        covariance=np.concatenate([fit.covariance for fit in fits]),
        label=np.repeat(np.arange(len(groups)), components),
        ridge=ridge,
        history=share @ [fit.history for fit in fits],
    )


# --8<-- [end:train]
# --8<-- [start:verbs]
def log_prob(model: Mixture, x: Array, missing=None) -> Array:
    """log p(x), a density, of what is seen; (n,) nats."""
    return logsumexp(log_joint(model, x, missing), axis=1)


def predict_proba(model: Mixture, x: Array, missing=None) -> Array:
    """p(y|what is seen): (n, classes). Components of a class add up."""
    x, hidden = checked(model, x, missing)
    share = softmax(log_joint(model, inked(x), hidden), axis=1)  # p(k|x)
    return share @ np.eye(model.label.max() + 1)[model.label]


# --8<-- [end:verbs]
# --8<-- [start:sample]
def sample(model: Mixture, labels, *, keep_ridge=False, seed=0) -> Array:
    """A component of the class asked for, then its Gaussian: (n, d)."""
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    if not np.isin(labels, model.label).all():
        raise ValueError(f"expected labels 0 to {model.label.max()}")
    weight = np.where(labels[:, None] == model.label, model.weight, 0)
    steps = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
    k = (rng.random((len(labels), 1)) >= steps[:, :-1]).sum(axis=1)
    return draw(model, k, rng, keep_ridge=keep_ridge).clip(0, 1)


def draw(model: Mixture, k: Array, rng, *, keep_ridge=False) -> Array:
    """A draw of each component in k (n,), without the ridge: (n, d).

    The ridge keeps densities finite. As part of a draw it is only noise.
    """
    value, vector = np.linalg.eigh(model.covariance)
    value = value - (0 if keep_ridge else model.ridge)
    root = (vector * np.sqrt(value.clip(0))[:, None]) @ vector.swapaxes(1, 2)
    z = rng.standard_normal((len(k), model.mean.shape[1]))
    return model.mean[k] + np.einsum("nde,ne->nd", root[k], z)


# --8<-- [end:sample]
# --8<-- [start:condition]
def condition(model: Mixture, image: Array, hidden: Array) -> Mixture:
    """p(hidden pixels|seen pixels) of one image: again a mixture.

    image: (d,), hidden: (d,) of bool. Weights move to the components that
    explain what is seen; means and covariances are each component's own.
    """
    seen, cov = ~hidden, model.covariance
    weight = softmax(log_joint(model, image[None], hidden[None])[0])
    across = cov[:, seen][:, :, hidden]  # (K, seen, hidden)
    pull = np.linalg.solve(cov[:, seen][:, :, seen], across).swapaxes(1, 2)
    gap = image[seen] - model.mean[:, seen]
    mean = model.mean[:, hidden] + np.einsum("khs,ks->kh", pull, gap)
    cov = cov[:, hidden][:, :, hidden] - pull @ across
    return model._replace(weight=weight, mean=mean, covariance=cov)


def moments(model: Mixture) -> tuple[Array, Array]:
    """Mean and standard deviation of each pixel: two arrays (d,)."""
    mean = model.weight @ model.mean
    within = np.diagonal(model.covariance, axis1=1, axis2=2)
    square = model.weight @ (within + (model.mean - mean) ** 2)
    return mean, np.sqrt(square)


# --8<-- [end:condition]
# --8<-- [start:impute]
def fill_in(model: Mixture, x: Array, missing) -> tuple[Array, Array]:
    """Hidden pixels by their mean, and their spread: (n, d) each."""
    x, hidden = checked(model, x, missing)
    filled, spread = inked(x), np.zeros(x.shape)
    for row in np.flatnonzero(hidden.any(axis=1)):
        h = hidden[row]
        mean, spread[row, h] = moments(condition(model, x[row], h))
        filled[row, h] = mean.clip(0, 1)
    return filled, spread


def impute(model: Mixture, x: Array, missing) -> Array:
    """Images (n, d) in [0, 1] with hidden pixels at their mean."""
    return fill_in(model, x, missing)[0]


# --8<-- [end:impute]
# --8<-- [start:denoise]
def denoise(model: Mixture, x: Array, *, sigma=0.3) -> Array:
    """The mean of clean images, given x = clean + N(0, sigma²): (n, d)."""
    x, _ = checked(model, x, None)
    noise = sigma**2 * np.eye(x.shape[1])
    noisy = model._replace(covariance=model.covariance + noise)
    share = softmax(log_joint(noisy, x), axis=1)  # p(k|x)
    gap = (x - model.mean[:, None]).swapaxes(1, 2)  # (K, d, n)
    pull = model.covariance @ np.linalg.solve(noisy.covariance, gap)
    return share @ model.mean + np.einsum("nk,kdn->nd", share, pull)


# --8<-- [end:denoise]
# --8<-- [start:log_mass]
def log_mass(model: Mixture, x: Array, *, draws=8, seed=0) -> Array:
    """A lower bound on log P(x) of images in sixteenths; (n,) nats.

    P is the density's integral over a cell around x. The mean of log p in
    the cell lies below it (Jensen). Theis et al., ICLR 2016.
    """
    rng, total = np.random.default_rng(seed), np.zeros(len(x))
    for _ in range(draws):
        total += log_prob(model, x + rng.uniform(-1, 1, x.shape) / 32)
    return total / draws - x.shape[1] * np.log(16)


# --8<-- [end:log_mass]


def contest(split, *, seed: int, images: int, keep_ridge=False, **settings) -> dict:
    """Train, draw and be judged: one row of the section's comparison."""
    start = process_time()
    model = train(split.x_train, split.y_train, seed=seed, **settings)
    trained, labels = process_time(), np.arange(images) % 10
    x = sample(model, labels, keep_ridge=keep_ridge, seed=seed)
    drawn, (count, d) = process_time(), model.mean.shape
    return sample_quality.assess(x, labels=labels) | {
        "bits": sample_quality.bits_per_dim(log_mass(model, split.x_test)),
        "seconds": trained - start,
        "draw_seconds": drawn - trained,
        "parameters": count * (1 + d + d * (d + 1) // 2),
    }


def copies(split, *, seed: int, images: int) -> dict:
    """The same measures for training images, drawn with replacement."""
    labels, rng = np.arange(images) % 10, np.random.default_rng(seed)
    groups = [np.flatnonzero(split.y_train == label) for label in range(10)]
    x = split.x_train[[rng.choice(groups[label]) for label in labels]]
    return sample_quality.assess(x, labels=labels)


def label_and_fill(split, rng) -> dict:
    """Accuracy with all and half of the pixels, error and coverage of what is filled in."""
    x, y, new, truth = split
    hidden = rng.random(new.shape) < 0.5
    machine = SVC(C=10, gamma=0.256).fit(x, y)
    nearest = KNNImputer(n_neighbors=5).fit(x).transform(np.where(hidden, np.nan, new))
    whole, half = {"svm": machine.score(new, truth)}, {"svm": machine.score(nearest, truth)}
    error, covered = {"neighbours": ((nearest - new)[hidden] ** 2).mean()}, {}
    for name, components in (("gaussian", 1), ("mixture", 4)):
        model = train(x, y, components=components)
        filled, spread = fill_in(model, new, hidden)
        gap = (filled - new)[hidden]
        whole[name] = (predict_proba(model, new).argmax(axis=1) == truth).mean()
        half[name] = (predict_proba(model, new, hidden).argmax(axis=1) == truth).mean()
        error[name] = (gap**2).mean()
        covered[name] = (abs(gap) < 1.645 * spread[hidden]).mean()
    return {"whole": whole, "half_hidden": half, "filled": error, "within_90": covered}


def denoised(split, rng) -> dict:
    """Squared error after noise of 0.3 is taken out."""
    x, y, new, _ = split
    noisy = new + 0.3 * rng.standard_normal(new.shape)
    wide = 0.3**2 + 0.15**2  # 0.15 around each training image, the best on validation
    near = softmax(-((noisy[:, None] - x) ** 2).sum(axis=2) / (2 * wide), axis=1) @ x
    pca = PCA(16).fit(x)
    cleaned = {
        "pca": pca.inverse_transform(pca.transform(noisy)),
        "training_images": noisy + 0.3**2 / wide * (near - noisy),
        "gaussian": denoise(train(x, y, components=1), noisy, sigma=0.3),
        "mixture": denoise(train(x, y), noisy, sigma=0.3),
    }
    return {name: ((answer - new) ** 2).mean() for name, answer in cleaned.items()}


def grouped(split, seed) -> dict:
    """Adjusted Rand index of ten groups, found without labels, against the labels."""
    x, y, _, _ = split
    found = {
        "k_means": KMeans(10, n_init=10, random_state=seed).fit_predict(x),
        "ward": AgglomerativeClustering(10).fit_predict(x),
        "mixture": log_joint(em(x, components=10, seed=seed), x).argmax(axis=1),
    }
    return {name: adjusted_rand_score(y, groups) for name, groups in found.items()}


RIVALS = {
    "mixture_of_4": {},
    "ridge_kept": {"keep_ridge": True},
    "one_gaussian": {"components": 1},
    "small_ridge": {"components": 1, "ridge": 1e-3},  # of those tried, best bits on validation
    "mixture_of_16": {"components": 16},
}


def study(*, seeds: int = 3, splits: int = 5, images: int = 1440) -> dict:
    """Draws over seeds of split 0, the other uses over splits: means and spreads."""
    table, size = {}, {"images": images}
    for name, settings in RIVALS.items():
        rows = [contest(digits.load_split(), seed=k, **size, **settings) for k in range(seeds)]
        table[name] = sample_quality.spread(rows)
    rows = [copies(digits.load_split(), seed=k, **size) for k in range(seeds)]
    table["copies"] = sample_quality.spread(rows)
    names = {"fd": "FD", "precision": "prec.", "recall": "recall", "auc": "AUC", "tstr": "TSTR"}
    show("draws", table, names | {"copying": "copying", "bits": "bits"})
    runs = []
    for seed in range(splits):
        split, rng = digits.load_split(seed=seed), np.random.default_rng(seed)
        uses = label_and_fill(split, rng)
        runs.append(uses | {"denoised": denoised(split, rng), "grouped": grouped(split, seed)})
    uses = {use: sample_quality.spread([run[use] for run in runs]) for use in runs[0]}
    for use, row in uses.items():
        print(f"\n{use.replace('_', ' ')}")
        for name in runs[0][use]:
            print(f"  {name.replace('_', ' '):<17}{row[name]:.4f} ± {row[name + '_sd']:.4f}")
    return {"contest": table["mixture_of_4"], "draws": table, "uses": uses}


def show(title: str, table: dict, columns: dict) -> None:
    """A line of means and a line of spreads for each row; columns: key → heading."""
    print(f"{title:<14}" + "".join(f"{name:>8}" for name in columns.values()))
    for name, row in table.items():
        for first, end, sign in ((name.replace("_", " "), "", ""), ("", "_sd", "±")):
            cells = (f"{sign}{row[c + end]:.2f}" if c in row else "" for c in columns)
            print(f"{first:<14}" + "".join(f"{cell:>8}" for cell in cells).rstrip())
