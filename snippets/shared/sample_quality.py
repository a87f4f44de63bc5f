"""How good is a set of generated digits? One kit, the same for every generator of this site.

Each function answers one question and can be fooled when it is asked alone: read them together.
Images are (n, 64) in [0, 1]; they are rounded to sixteenths first, as real ones are.
"""

# --8<-- [start:imports]
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import cdist
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.svm import SVC
from torch.nn.functional import conv2d, max_pool2d

from snippets.shared import digits

Array = np.ndarray
JUDGE = Path(digits.__file__).parents[1] / "data/judge/judge.safetensors"
# --8<-- [end:imports]


# --8<-- [start:rounded]
def rounded(x: Array) -> Array:
    """Images (n, 64), clipped to [0, 1] and rounded to sixteenths.

    Raises ValueError when pixels are not finite or not 64 a row.
    """
    x = digits.check_images(x)
    if not np.isfinite(x).all():
        raise ValueError("expected finite pixels, got NaN or infinity")
    return np.round(16 * x.clip(0, 1)) / 16


# --8<-- [end:rounded]
# --8<-- [start:judge]
@cache
def judge_weights() -> dict[str, torch.Tensor]:
    """The convolutional lesson's network, trained on the training digits."""
    return load_file(JUDGE)


@torch.no_grad()
def ask_judge(x: Array) -> tuple[Array, Array]:
    """What the judge sees and says: features (n, 64), p(y|x) (n, 10).

    A feature is the mean of one of its 64 last maps over the image.
    """
    w = judge_weights()
    maps = torch.tensor(rounded(x), dtype=torch.float32).view(-1, 1, 8, 8)
    for layer in ("first", "second", "third"):
        weight, bias = w[f"{layer}.weight"], w[f"{layer}.bias"]
        maps = torch.relu(conv2d(maps, weight, bias, padding=1))
        maps = maps if layer == "first" else max_pool2d(maps, 2)
    scores = maps.flatten(1) @ w["last.weight"].T + w["last.bias"]
    seen = maps.mean(dim=(2, 3)).double().numpy()  # (n, 64)
    return seen, torch.softmax(scores.double(), dim=1).numpy()


# --8<-- [end:judge]
# --8<-- [start:frechet]
def frechet_distance(a: Array, b: Array) -> float:
    """Distance of two clouds (n, d), (m, d), each taken for a Gaussian.

    |mean gap|² + tr(A + B - 2 (AB)^½); 0 if mean and covariance agree.
    Source: Heusel et al., NeurIPS 2017, which names it FID.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("expected at least two rows on each side")
    gap = a.mean(axis=0) - b.mean(axis=0)
    cov_a, cov_b = np.atleast_2d(np.cov(a.T), np.cov(b.T))
    # The trace of a root is the sum of the roots of the eigenvalues.
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(0)).sum()
    spread = np.trace(cov_a) + np.trace(cov_b)
    return float(max(gap @ gap + spread - 2 * root, 0))


# --8<-- [end:frechet]
# --8<-- [start:precision_recall]
def precision_recall(fake: Array, real: Array, *, k=5) -> tuple[float, float]:
    """Share of fakes among the reals, and of reals among the fakes.

    "Among" is: nearer to some member than its k-th nearest fellow is.
    Source: Kynkäänniemi et al., NeurIPS 2019.
    """
    if min(len(fake), len(real)) <= k:
        raise ValueError(f"expected more than k={k} rows on each side")
    return covered(fake, real, k=k), covered(real, fake, k=k)


def covered(points: Array, cloud: Array, *, k: int) -> float:
    """Share of the points in a ball around a member of the cloud."""
    reach = np.sort(cdist(cloud, cloud), axis=1)[:, k]  # [:, 0] is itself
    return float((cdist(points, cloud) <= reach).any(axis=1).mean())


# --8<-- [end:precision_recall]
# --8<-- [start:two_sample]
def two_sample_auc(fake: Array, real: Array, *, seed=0) -> float:
    """How well a random forest tells unseen fakes from reals, by pixels.

    0.5 is not at all, 1 always. As many fakes as reals.
    Source: Lopez-Paz & Oquab, ICLR 2017 (there by accuracy).
    """
    if len(fake) != len(real):
        raise ValueError(f"expected {len(real)} fakes, got {len(fake)}")
    x, y = np.vstack([fake, real]), np.repeat([1, 0], len(real))
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    forest = RandomForestClassifier(100, random_state=seed)
    says = cross_val_predict(forest, x, y, cv=folds, method="predict_proba")
    return float(roc_auc_score(y, says[:, 1]))


# --8<-- [end:two_sample]
# --8<-- [start:labels]
def train_on_synthetic(
    fake: Array,
    labels: Array,
    x: Array,
    y: Array,
) -> float:
    """Accuracy on real x, y of an SVM that has seen only the fakes.

    Source: Esteban, Hyland & Rätsch, arXiv:1706.02633, 2017.
    """
    if len(np.unique(labels)) < 2:
        return float(np.mean(y == labels[0]))  # it knows one answer
    machine = SVC(C=10, gamma=0.02 * 64 / 5).fit(fake, labels)
    return float(machine.score(x, y))


# --8<-- [end:labels]
# --8<-- [start:copying]
def copying_ratio(fake: Array, train: Array, test: Array) -> float:
    """Distance to the nearest training image, beside real new images'.

    Medians. 0 is copying, 1 as far as test images are, above 1 further.
    """
    near = [np.median(cdist(x, train).min(axis=1)) for x in (fake, test)]
    return float(near[0] / near[1])


# --8<-- [end:copying]
# --8<-- [start:bits]
def bits_per_dim(log_p: Array, *, dims: int = 64) -> float:
    """Mean cost of a pixel, from log p(x) of whole images (n,) in nats.

    p must be a probability of images in sixteenths, not a density.
    """
    return float(-np.mean(log_p) / dims / np.log(2))


# --8<-- [end:bits]
# --8<-- [start:assess]
def assess(fake: Array, *, labels: Array | None = None) -> dict[str, float]:
    """All measures of fakes (n, 64); labels (n,), if they were asked for."""
    x, _, test, y_test = digits.load_split(seed=0)
    fake = rounded(fake)
    if len(fake) == 0 or len(fake) % len(test):
        raise ValueError(
            f"expected a multiple of 360 images, got {len(fake)}",
        )
    seen, says = ask_judge(fake)
    real, _ = ask_judge(test)
    # The parts are consecutive, so fakes must not be sorted by class.
    parts = [slice(i, i + 360) for i in range(0, len(fake), 360)]
    balls = [precision_recall(seen[part], real) for part in parts]
    precision, recall = np.mean(balls, axis=0)
    found = {
        "fd": frechet_distance(seen, real),
        "precision": float(precision),
        "recall": float(recall),
        "auc": float(np.mean([two_sample_auc(fake[p], test) for p in parts])),
        "copying": copying_ratio(fake, x, test),
    }
    if labels is not None:
        labels = digits.check_labels(labels, count=len(fake))
        found["tstr"] = train_on_synthetic(fake, labels, test, y_test)
        found["agreement"] = float((says.argmax(axis=1) == labels).mean())
    return found


# --8<-- [end:assess]
# --8<-- [start:spread]
def spread(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each column and, as `name_sd`, its standard deviation.

    One row for each seed; of one row the deviation is 0.
    """
    if not rows:
        raise ValueError("expected at least one row")
    found = {}
    for name in rows[0]:
        column = np.array([row[name] for row in rows], dtype=float)
        found[name] = float(column.mean())
        found[f"{name}_sd"] = float(column.std(ddof=min(1, len(rows) - 1)))
    return found


# --8<-- [end:spread]
