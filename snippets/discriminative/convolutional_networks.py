"""Convolutional networks: the same small filter at every place of an image."""

# --8<-- [start:imports]
import re
from functools import partial

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from snippets.discriminative import neural_networks as dense
from snippets.shared import digits, metrics

Array = np.ndarray
LIGHT = partial(dense.jitter, turn=10.0, shift=0.5)
# --8<-- [end:imports]


# --8<-- [start:convolve]
def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Filters (out, in, 3, 3) over images (n, in, rows, columns), padded."""
    rows, columns = x.shape[2:]
    around = nn.functional.pad(x, (1, 1, 1, 1))  # blank paper on all sides
    maps = bias.view(1, -1, 1, 1)
    for i in range(3):
        for j in range(3):  # nine shifted copies, each with its own weight
            window = around[:, :, i:i + rows, j:j + columns]
            here = weight[:, :, i, j]  # (out, in)
            maps = maps + torch.einsum("nchw,oc->nohw", window, here)
    return maps  # (n, out, rows, columns)


# --8<-- [end:convolve]
# --8<-- [start:model]
class CNN(nn.Module):
    """Three layers of 3 x 3 filters, halved twice, and a linear layer."""

    def __init__(self, classes: int = 10, channels: int = 32):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.third = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.last = nn.Linear(2 * channels * 2 * 2, classes)
        for layer in (self.first, self.second, self.third):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps of (n, 1, rows, columns), each half as large."""
        first = torch.relu(self.first(x))  # (n, channels, 8, 8)
        second = torch.max_pool2d(torch.relu(self.second(first)), 2)
        third = torch.max_pool2d(torch.relu(self.third(second)), 2)
        return [first, second, third]  # the last: (n, 2 channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of images (n, 64): (n, classes)."""
        return self.last(self.maps(x.view(-1, 1, 8, 8))[-1].flatten(1))


# --8<-- [end:model]
# --8<-- [start:train]
def train(x: Array, y: Array, *, channels=32, epochs=30, batch=32,
          rate=0.03, momentum=0.9, decay=1e-3, seed=0,
          vary=LIGHT) -> CNN:  # fmt: skip
    """As for neural networks, with slopes by autograd and images varied.

    x: (n, 64); y: (n,) labels 0..K-1. vary=None shows them as they are.
    """
    x = dense.as_tensor(x, pixels=64)
    y = torch.tensor(digits.check_labels(y, count=len(x)))
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model = CNN(int(y.max()) + 1, channels)
    weights = list(model.parameters())
    speed = [torch.zeros_like(p) for p in weights]
    left = steps = epochs * -(-len(x) // batch)
    for _ in range(epochs):
        for some in torch.randperm(len(x), generator=random).split(batch):
            images = x[some] if vary is None else vary(x[some], random)
            loss = nn.functional.cross_entropy(model(images), y[some])
            slopes = torch.autograd.grad(loss, weights)
            pace = rate * left / steps
            step(weights, speed, slopes, decay=decay, rate=pace,
                 keep=momentum)
            left -= 1
    return model


# --8<-- [end:train]
# --8<-- [start:step]
@torch.no_grad()
def step(weights, speed, slopes, *, decay, rate, keep) -> None:
    for p, slope in zip(weights, slopes):
        if p.ndim > 1:  # the biases go free
            slope.add_(p, alpha=decay)
    dense.move([weights], [speed], [slopes], rate=rate, keep=keep)


# --8<-- [end:step]
# --8<-- [start:predict_proba]
@torch.no_grad()
def predict_proba(model: CNN, x: Array) -> Array:
    """p(y|x) for images (n, 64): an array (n, classes), rows sum to 1."""
    scores = model(dense.as_tensor(x, pixels=64))
    return torch.softmax(scores.double(), dim=1).numpy()


# --8<-- [end:predict_proba]
# --8<-- [start:saliency]
def gradient(model: CNN, x: Array, labels: Array) -> Array:
    """Slope of log p(label|x) in each pixel: (n, 64)."""
    images = dense.as_tensor(x, pixels=64).requires_grad_()
    log_p = torch.log_softmax(model(images), dim=1)
    chosen = log_p[torch.arange(len(images)), torch.tensor(labels)].sum()
    return torch.autograd.grad(chosen, images)[0].double().numpy()


def occlusion(model: CNN, x: Array, labels: Array) -> Array:
    """What log p(label|x) loses when a pixel is blanked: (n, 64)."""
    own, lost = np.arange(len(x)), np.zeros(x.shape)
    before = np.log(predict_proba(model, x)[own, labels])
    for pixel in range(64):
        blanked = x.copy()
        blanked[:, pixel] = 0
        after = np.log(predict_proba(model, blanked)[own, labels])
        lost[:, pixel] = before - after
    return lost


# --8<-- [end:saliency]
# --8<-- [start:look_alikes]
def draw_pair(x: Array, y: Array, *, n: int, seed: int, pair=(1, 8)):
    """n images of two digits, half of each, and all others: x, y, x, y."""
    both = np.isin(y, pair)
    x, y = x[both], (y[both] == pair[1]).astype(int)
    random = np.random.default_rng([n, seed])
    chosen = np.concatenate([
        random.choice(np.flatnonzero(y == label), n // 2, replace=False)
        for label in (0, 1)])
    rest = np.setdiff1d(np.arange(len(y)), chosen)
    return digits.Split(x[chosen], y[chosen], x[rest], y[rest])


def tell_apart(few: digits.Split, *, steps=150, seed=0) -> Array:
    """p(y|x) of the other images, by a network that saw only the few."""
    epochs = max(1, steps // -(-len(few.x_train) // 32))
    model = train(*few[:2], epochs=epochs, seed=seed)
    return predict_proba(model, few.x_test)


# --8<-- [end:look_alikes]
# --8<-- [start:slide]
def slide(x: Array, *, right: int) -> Array:
    """Images (n, 64) moved so many pixels right; what leaves is lost."""
    images = np.pad(x.reshape(-1, 8, 8), ((0, 0), (0, 0), (8, 8)))
    return images[:, :, 8 - right:16 - right].reshape(-1, 64)


# --8<-- [end:slide]
# --8<-- [start:agreement]
def agreement(a: Array, b: Array, shown: Array) -> Array:
    """Rank correlation of two maps over the pixels with ink: (n,)."""
    pairs = [(rankdata(p[ink]), rankdata(q[ink]))
             for p, q, ink in zip(a, b, shown)]
    return np.array([np.corrcoef(p, q)[0, 1] for p, q in pairs])


def blank_best(model: CNN, x: Array, labels: Array, rank: Array, *, most=12):
    """Mean p(label|x) after blanking the 0, 1, ... pixels ranked highest."""
    order, own = np.argsort(-rank, axis=1), np.arange(len(x))
    kept = []
    for count in range(most + 1):
        blanked = x.copy()
        np.put_along_axis(blanked, order[:, :count], 0, axis=1)
        kept.append(predict_proba(model, blanked)[own, labels].mean())
    return kept


# --8<-- [end:agreement]


RIVALS = {
    "logistic regression": lambda x, y: LogisticRegression(C=10, max_iter=9999).fit(x, y),
    "SVM": lambda x, y: SVC(C=10).fit(x, y),
}
SIZES = (50, 100, 200, 500)


def answers(name: str, x: Array, y: Array, new: Array, *, seed: int, epochs: int) -> Array:
    """What a contender says of new images, as rows of probabilities (0 or 1 from the SVM)."""
    if name == "SVM":
        return np.eye(y.max() + 1)[RIVALS[name](x, y).predict(new)]
    if name == "logistic regression":
        return RIVALS[name](x, y).predict_proba(new)
    if name == "dense network":
        return dense.predict_proba(dense.train(x, y, epochs=2 * epochs, seed=seed), new)
    vary = {"CNN": LIGHT, "CNN, no variation": None}[name]
    return predict_proba(train(x, y, epochs=epochs, seed=seed, vary=vary), new)


def whole_sets(splits: list, *, epochs: int) -> dict:
    """Accuracy on random splits, and on test images that slid one or two pixels sideways."""
    table = {}
    print("random splits         accuracy       log loss  ECE    slid by 1   by 2")
    for name in (*RIVALS, "dense network", "CNN, no variation", "CNN"):
        results, slid = [], []
        for seed, (x, y, new, truth) in enumerate(splits):
            moved = [new, *(slide(new, right=k) for k in (-1, 1, -2, 2))]
            p = answers(name, x, y, np.vstack(moved), seed=seed, epochs=epochs)
            first, *others = np.split(p, 5)
            results.append([measure(first, truth) for measure in dense.MEASURES])
            slid.append([metrics.accuracy(q, truth) for q in others])
        one, two = np.mean(slid, axis=0).reshape(2, 2).mean(axis=1)
        key = re.sub(r"\W+", "_", name)
        blank = " " * 15 if name == "SVM" else ""  # where its log loss would be
        table[key] = dense.row(name, results, more=f"{blank}{one:>9.3f}  {two:.3f}")
        table[key] |= {"slid_1": one, "slid_2": two}
    return table


def look_alikes(*, draws: int, steps: int) -> dict:
    """Ones and eights: accuracy for each number of images, over draws."""
    x, y = load_digits(return_X_y=True)
    table = {}
    print("\n1 or 8   logistic regression   SVM                   CNN")
    for n in (4, 10, 40, 100):
        found = {"lr": [], "svm": [], "cnn": []}
        for seed in range(draws):
            few = draw_pair(x / 16, y, n=n, seed=seed)
            for name, rival in zip(("lr", "svm"), RIVALS.values()):
                found[name].append(rival(*few[:2]).score(*few[2:]))
            p = tell_apart(few, steps=steps, seed=seed)
            found["cnn"].append(metrics.accuracy(p, few.y_test))
        table[f"n{n}"] = {
            name: {"mean": np.mean(v), "sd": np.std(v, ddof=1), "worst": min(v), "best": max(v)}
            for name, v in found.items()
        }
        cells = [
            f"{c['mean']:.3f} ± {c['sd']:.3f} ({c['worst']:.2f})" for c in table[f"n{n}"].values()
        ]
        print(f"{n:<9}" + "  ".join(cells))
    return table


def learning_curve(splits: list, *, epochs: int) -> dict:
    """All ten digits from 50 images on: how many are needed?"""
    table = {}
    print("\nten digits, images    logistic regression  SVM            CNN")
    for n in SIZES:
        found = {name: [] for name in (*RIVALS, "CNN")}
        for seed, (x, y, new, truth) in enumerate(splits):
            few = digits.hold_out(x, y, size=len(x) - n, seed=seed)
            for name, scores in found.items():
                longer = max(1, epochs * len(x) // (3 * n))  # a third of the steps
                p = answers(name, *few[:2], new, seed=seed, epochs=longer)
                scores.append(metrics.accuracy(p, truth))
        table[f"n{n}"] = {k.split()[0]: float(np.mean(v)) for k, v in found.items()}
        cells = (f"{np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}" for v in found.values())
        print(f"{n:<22}" + "  ".join(f"{cell:<{w}}" for cell, w in zip(cells, (19, 13, 13))))
    return table


def study(*, seeds: int = 5, epochs: int = 30, draws: int = 40, steps: int = 150) -> dict:
    """Whole training sets, new hands, look-alikes, and a learning curve."""
    splits = [digits.load_split(seed=seed) for seed in range(seeds)]
    table = whole_sets(splits, epochs=epochs)
    parts = dense.by_parts(lambda x, y, new: answers("CNN", x, y, new, seed=0, epochs=epochs))
    print(f"CNN, parts of the file left out: {np.mean(parts):.3f}, last part {parts[-1]:.3f}")
    table["parts"] = {"mean": float(np.mean(parts)), "last": parts[-1]}
    table["pair"] = look_alikes(draws=draws, steps=steps)
    table["curve"] = learning_curve(splits[:3], epochs=epochs)
    return table
