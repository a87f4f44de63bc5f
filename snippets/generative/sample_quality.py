"""Judging samples: a judge with known eyes, and sets of images that fool one measure each."""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from snippets.discriminative import convolutional_networks as cnn
from snippets.generative import naive_bayes
from snippets.shared import digits
from snippets.shared import sample_quality as kit
from snippets.shared.sample_quality import rounded

Array = np.ndarray


def train(x: Array, y: Array, *, epochs=30, seed=0) -> cnn.CNN:
    """A judge for images (n, 64), labels (n,): the convolutional network.

    With the training digits and these defaults it is the kept judge.
    """
    return cnn.train(rounded(x), y, epochs=epochs, seed=seed)


def kept_judge() -> cnn.CNN:
    """The judge of the whole section, from its kept weights."""
    model = cnn.CNN()
    model.load_state_dict(kit.judge_weights())
    return model


def predict_proba(model: cnn.CNN, x: Array) -> Array:
    """p(y|x) for images (n, 64): an array (n, classes)."""
    return cnn.predict_proba(model, rounded(x))


@torch.no_grad()
def encode(model: cnn.CNN, x: Array) -> Array:
    """What the judge sees: the means of its last maps, (n, 64)."""
    return features(model, as_images(rounded(x))).double().numpy()


def as_images(x: Array) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8)


def features(model: cnn.CNN, images: torch.Tensor) -> torch.Tensor:
    return model.maps(images)[-1].mean(dim=(2, 3))  # (n, 64)


# --8<-- [start:copies]
def real_resampled(x: Array, y: Array, labels: Array, random) -> Array:
    """A training image of each wanted class: nothing is learned."""
    return x[[random.choice(np.flatnonzero(y == k)) for k in labels]]


def noisy_copies(x, y, labels, random):
    """The same, with noise of 0.1 in every pixel."""
    noise = 0.1 * random.standard_normal((len(labels), 64))
    return real_resampled(x, y, labels, random) + noise


def hidden_copies(x, y, labels, random):
    """Copies, 45 in a hundred, hidden among draws from Gaussians."""
    fake = class_gaussian(x, y, labels, random, ridge=1e-6)
    copy = random.random(len(labels)) < 0.45
    fake[copy] = real_resampled(x, y, labels[copy], random)
    return fake


def hundred_images(x, y, labels, random):
    """Ten training images of each class, over and over."""
    rows = [random.choice(np.flatnonzero(y == k), 10, replace=False)
            for k in np.unique(y)]
    few = np.concatenate(rows)
    return real_resampled(x[few], y[few], labels, random)


# --8<-- [end:copies]
def class_means(x, y, labels, random):
    """The mean image of the class, and no other."""
    return np.array([x[y == k].mean(axis=0) for k in np.unique(y)])[labels]


def class_gaussian(x, y, labels, random, *, ridge=0.005):
    """Draws from a full Gaussian for each class: an honest generator."""
    fake = np.zeros((len(labels), 64))
    for k in np.unique(labels):
        own, some = x[y == k], labels == k
        cov = np.cov(own.T) + ridge * np.eye(64)
        fake[some] = random.multivariate_normal(
            own.mean(axis=0), cov, some.sum(), method="cholesky")
    return fake


def from_naive_bayes(x, y, labels, random):
    """Draws from the lesson's naive Bayes: every pixel by itself."""
    model = naive_bayes.train(x, y)
    return naive_bayes.sample(model, labels, seed=random.integers(2**32))


def noise(x, y, labels, random):
    """Each of the 17 values of a pixel alike."""
    return random.integers(0, 17, (len(labels), 64)) / 16


SETS = {
    "real_resampled": real_resampled,
    "noisy_copies": noisy_copies,
    "hidden_copies": hidden_copies,
    "hundred_images": hundred_images,
    "class_gaussian": class_gaussian,
    "naive_bayes": from_naive_bayes,
    "five_digits": real_resampled,
    "class_means": class_means,
    "noise": noise,
}


def fakes(name: str, *, n=1440, seed=0) -> tuple[Array, Array]:
    """A set by its name: images (n, 64) in sixteenths, labels (n,)."""
    x, y, _, _ = digits.load_split(seed=0)
    labels = np.arange(n) % (5 if name == "five_digits" else 10)
    fake = SETS[name](x, y, labels, np.random.default_rng(seed))
    return rounded(fake), labels


# --8<-- [start:copied]
def copied_share(fake: Array, train: Array, test: Array) -> float:
    """Share of fakes that lie nearer to a training image than 99 of 100
    test images do; 0.01 is expected of new images (n, 64).
    """
    near = [cdist(x, train).min(axis=1) for x in (fake, test)]
    return float((near[0] < np.quantile(near[1], 0.01)).mean())


# --8<-- [end:copied]
# --8<-- [start:please]
def please(judge: torch.nn.Module, wanted: Array, *,
           steps=100, rate=0.6, seed=0) -> Array:
    """Noise, moved until the judge sees in it what it sees in `wanted`.

    wanted: (n, 64); returns images (n, 64) in sixteenths.
    """
    goal = torch.tensor(encode(judge, wanted), dtype=torch.float32)
    random = torch.Generator().manual_seed(seed)
    ink = 2 * torch.randn(len(goal), 1, 8, 8, generator=random)
    ink.requires_grad_()
    adam = torch.optim.Adam([ink], lr=rate)
    for _ in range(steps):
        seen = features(judge, torch.sigmoid(ink))
        loss = ((seen - goal) ** 2).sum(dim=1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    images = torch.sigmoid(ink).detach().double().numpy()
    return rounded(images.reshape(-1, 64))


# --8<-- [end:please]

COLUMNS = ("fd", "precision", "recall", "auc", "tstr", "copying", "copied")


def study(*, seeds: int = 3, images: int = 1440, judges: int = 3, epochs: int = 30) -> dict:
    """Every set by every measure, over draws; then Fréchet distances by judges trained anew."""
    x, y, new, _ = digits.load_split(seed=0)
    table: dict = {}
    for name in SETS:
        rows = []
        for seed in range(seeds):
            fake, labels = fakes(name, n=images, seed=seed)
            found = kit.assess(fake, labels=labels)
            rows.append(found | {"copied": copied_share(fake, x, new)})
        table[name] = kit.spread(rows)
    report(table)
    table["judges"] = by_judges(x, y, new, images=images, judges=judges, epochs=epochs)
    return table


def report(table: dict) -> None:
    """Print the mean of each measure, and the largest standard deviation in its column."""
    print(f"{'':<16}{'FD':>6}{'prec.':>8}{'recall':>8}{'AUC':>7}{'TSTR':>7}"
          f"{'copying':>9}{'copied':>8}")  # fmt: skip
    rows = [[row[c] for c in COLUMNS] for row in table.values()]
    rows.append(np.max([[row[f"{c}_sd"] for c in COLUMNS] for row in table.values()], axis=0))
    for name, row in zip([*table, "± at most"], rows):
        cells = (f"{cell:>{wide}.2f}" for cell, wide in zip(row, (6, 8, 8, 7, 7, 9, 8)))
        print(f"{name.replace('_', ' '):<16}" + "".join(cells))


def by_judges(x: Array, y: Array, new: Array, *, images: int, judges: int, epochs: int) -> dict:
    """FD of each set for the kept judge and others; which pairs change their order?"""
    eyes = [kept_judge()] + [train(x, y, epochs=epochs, seed=1 + k) for k in range(judges)]
    sets = {name: fakes(name, n=images)[0] for name in SETS}
    fd = {name: [kit.frechet_distance(encode(judge, fake), encode(judge, new)) for judge in eyes]
          for name, fake in sets.items()}  # fmt: skip
    heads = "".join(f"{f'no. {k + 1}':>8}" for k in range(judges))
    print(f"\n{'FD by judge':<16}{'kept':>6}{heads}")
    for name, row in fd.items():
        cells = "".join(f"{value:>8.2f}" for value in row[1:])
        print(f"{name.replace('_', ' '):<16}{row[0]:>6.2f}{cells}")
    pairs = [(a, b) for a in SETS for b in SETS if fd[a][0] < fd[b][0]]
    swapped = [pair for pair in pairs if any(a > b for a, b in zip(fd[pair[0]], fd[pair[1]]))]
    print(f"pairs in another order for some judge: {len(swapped)} of {len(pairs)}")
    spread = {name: kit.spread([{"fd": value} for value in row]) for name, row in fd.items()}
    return spread | {"pairs": len(pairs), "swapped": len(swapped)}
