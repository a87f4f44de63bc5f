"""Neural networks: layers of weighted sums, each bent, with the chain rule written out."""

# --8<-- [start:imports]
import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgba
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from snippets.shared import digits, metrics, plots

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:draw_fences]
def draw_fences(fit, x: Array, y: Array, *, axes) -> None:
    """Two classes by two features (n, 2): points, boundary, hidden units."""
    ranges = zip(x.min(axis=0) - 0.03, x.max(axis=0) + 0.03)
    sides = [np.linspace(low, high, 60) for low, high in ranges]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    p = fit.predict_proba(grid)[:, 1].reshape(60, 60)
    tints = [to_rgba(plots.SERIES[k], 0.22) for k in (0, 1)]
    axes.contourf(*sides, p, [0, 0.5, 1], colors=tints)
    axes.contour(*sides, p, [0.5], colors=plots.INK, linewidths=2)
    thin = {"colors": plots.MUTED, "linestyles": "--", "linewidths": 0.9}
    if isinstance(fit, MLPClassifier):
        for unit in (grid @ fit.coefs_[0] + fit.intercepts_[0]).T:
            axes.contour(*sides, unit.reshape(60, 60), [0], **thin)
    for k, mark in enumerate("os"):
        axes.scatter(*x[y == k].T, s=9, marker=mark, lw=0, rasterized=True)


# --8<-- [end:draw_fences]
# --8<-- [start:model]
class Model(NamedTuple):
    weights: list[Tensor]  # one for each layer: (inputs, outputs)
    biases: list[Tensor]  # (outputs,)


def start(sizes: list[int], *, seed: int = 0) -> Model:
    """Random weights, so that the units of a layer can become different.

    The root keeps the spread of the sums alike from layer to layer
    (He et al., ICCV 2015).
    """
    random = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(inputs, outputs, generator=random) * (2 / inputs) ** 0.5
        for inputs, outputs in pairwise(sizes)
    ]
    return Model(weights, [torch.zeros(size) for size in sizes[1:]])


def forward(model: Model, x: Tensor) -> list[Tensor]:
    """Every layer for images (n, pixels): images, hidden layers, scores."""
    layers = [x]
    for weight, bias in zip(*model):
        z = layers[-1] @ weight + bias  # (n, outputs)
        layers.append(z.clamp(min=0))  # ReLU: off below zero
    layers[-1] = z  # the scores stay as they are
    return layers


# --8<-- [end:model]
# --8<-- [start:predict_proba]
def as_tensor(x: Array, *, pixels: int) -> Tensor:
    x = digits.check_images(x, pixels=pixels)
    if np.isnan(x).any():
        raise ValueError("expected numbers, got NaN: fill in missing pixels")
    return torch.tensor(x, dtype=torch.float32)


def predict_proba(model: Model, x: Array) -> Array:
    """p(y|x) for images (n, pixels): an array (n, classes), rows sum to 1."""
    scores = forward(model, as_tensor(x, pixels=len(model.weights[0])))[-1]
    return torch.softmax(scores.double(), dim=1).numpy()


# --8<-- [end:predict_proba]
# --8<-- [start:backward]
def loss(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Mean of -log p(y|x), in nats."""
    log_p = torch.log_softmax(forward(model, x)[-1], dim=1)
    return -log_p[torch.arange(len(y)), y].mean()


def backward(model: Model, layers: list[Tensor], y: Tensor) -> Model:
    """The slope of the loss in every weight and bias, last layer first."""
    delta = torch.softmax(layers[-1], dim=1)
    delta[torch.arange(len(y)), y] -= 1  # probability minus what happened
    delta /= len(y)  # (n, classes): slope of the loss in each score
    slopes = Model([], [])
    for k in reversed(range(len(model.weights))):
        slopes.weights.insert(0, layers[k].T @ delta)
        slopes.biases.insert(0, delta.sum(dim=0))
        if k > 0:  # pass the blame on, but not to units that were off
            delta = (delta @ model.weights[k].T) * (layers[k] > 0)
    return slopes


# --8<-- [end:backward]
# --8<-- [start:move]
def move(model: Model, speed: Model, slopes: Model, *, rate, keep) -> None:
    """One step downhill, in place; `keep` of the speed is carried along."""
    for part in zip(model, speed, slopes):  # weights, then biases
        for p, v, slope in zip(*part):
            v.mul_(keep).sub_(slope, alpha=rate)
            p.add_(v)


# --8<-- [end:move]
# --8<-- [start:train]
def train(x: Array, y: Array, *, hidden=(128,), epochs=60, batch=32,
          rate=0.1, momentum=0.9, decay=1e-3, seed=0, vary=None,
          watch=None) -> Model:  # fmt: skip
    """Go downhill, one batch at a time; the steps shrink to nothing.

    x: (n, pixels); y: (n,) labels 0..K-1. decay: pull of weights to zero.
    vary(x, random) gives other versions of a batch; watch(model) looks on.
    """
    x = as_tensor(x, pixels=np.shape(x)[-1])
    y = torch.tensor(digits.check_labels(y, count=len(x)))
    random = torch.Generator().manual_seed(seed)
    model = start([x.shape[1], *hidden, int(y.max()) + 1], seed=seed)
    speed = Model(*([torch.zeros_like(p) for p in part] for part in model))
    left = steps = epochs * -(-len(x) // batch)
    for _ in range(epochs):
        for some in torch.randperm(len(x), generator=random).split(batch):
            images = x[some] if vary is None else vary(x[some], random)
            slopes = backward(model, forward(model, images), y[some])
            for slope, weight in zip(slopes.weights, model.weights):
                slope.add_(weight, alpha=decay)
            pace = rate * left / steps
            move(model, speed, slopes, rate=pace, keep=momentum)
            left -= 1
        if watch is not None:
            watch(model)
    return model


# --8<-- [end:train]
# --8<-- [start:jitter]
def jitter(x: Tensor, random: torch.Generator, *, turn=15.0, shift=1.0):
    """Each image (n, 64) turned and shifted by chance: degrees, pixels."""
    by = 2 * torch.rand(len(x), 3, generator=random) - 1  # (n, 3)
    # Half the width of an image counts as 1, so a pixel is a quarter.
    scale = torch.tensor([turn * torch.pi / 180, shift / 4, shift / 4])
    angle, across, up = (by * scale).T
    rows = angle.cos(), -angle.sin(), across, angle.sin(), angle.cos(), up
    maps = torch.stack(rows, dim=1).view(-1, 2, 3)
    images = x.view(-1, 1, 8, 8)
    places = affine_grid(maps, images.shape, align_corners=False)
    return grid_sample(images, places, align_corners=False).view(-1, 64)


# --8<-- [end:jitter]
# --8<-- [start:draw_network]
def draw_network(model: Model, image: Array) -> None:
    """One image on its way through one hidden layer: every number is real."""
    hidden = forward(model, as_tensor(image[None], pixels=64))[1][0]
    p = predict_proba(model, image[None])[0]
    votes = (hidden[:, None] * model.weights[1]).numpy()  # what each adds
    at, out = (np.linspace(9.6, 0.4, size) for size in votes.shape)
    _, axes = plots.subplots(width=6.2, height=4.7)
    show_ink(axes, image, (0, 2.4, 3.8, 6.2), plots.INK)
    columns = model.weights[0].T.numpy() / float(model.weights[0].abs().max())
    for y, weight, ink in zip(at, columns, hidden / hidden.max()):
        for sign, colour in zip((1, -1), plots.SERIES):
            box = 3.6, 4.3, y - 0.35, y + 0.35
            show_ink(axes, sign * weight, box, colour)
        axes.barh(y, 1.3 * ink, left=4.4, height=0.45, color=plots.INK)
    draw_votes(axes, at, out, votes, p)
    for x, word in ((0, "image"), (3.6, "hidden layer"), (9.1, "output")):
        axes.text(x, 10.5, word)
    axes.set(xlim=(-0.1, 12.2), ylim=(-0.1, 11), aspect="equal")
    axes.axis("off")


# --8<-- [end:draw_network]
# --8<-- [start:draw_votes]
def draw_votes(axes, at, out, votes: Array, p: Array) -> None:
    """Lines from the units to the two likeliest classes, and p(y|x)."""
    for label in np.argsort(p)[-2:]:
        for y, add in zip(at, votes[:, label]):
            style = {"color": plots.SERIES[int(add < 0)], "marker": ""}
            style |= {"ls": "-" if add > 0 else "--"}
            width = 4 * abs(add) / np.abs(votes).max()
            axes.plot([5.9, 8.9], [y, out[label]], lw=width, **style)
    axes.barh(out, 1.5 * p, left=9.5, height=0.6, color=plots.INK)
    for label, y in enumerate(out):
        axes.text(9.2, y, label, ha="center", va="center")
        words = f"{p[label]:.2f}"
        axes.text(9.6 + 1.5 * p[label], y, words, va="center", size=8)


def show_ink(axes, image: Array, box: tuple, colour: str) -> None:
    """Positive values (64,) as ink, framed: (left, right, low, high)."""
    style = {"extent": box, "cmap": plots.ink_map(colour)}
    axes.imshow(image.clip(min=0).reshape(8, 8), vmin=0, vmax=1,
                interpolation="none", **style)
    side = box[1] - box[0]
    axes.add_patch(plt.Rectangle((box[0], box[2]), side, side, fill=False,
                                 lw=0.3, ec=plots.MUTED))


# --8<-- [end:draw_votes]


SHAPES = [(), (4,), (16,), (64,), (128,), (256,), (128,) * 2, (128,) * 3, (128,) * 4]
RECIPES = {
    "plain": {},
    "decay 0.01": {"decay": 0.01},
    "16 hidden units": {"hidden": (16,)},
    "jitter": {"vary": jitter},
}
MEASURES = metrics.accuracy, metrics.log_loss, metrics.expected_calibration_error


def chosen_rate(x: Array, y: Array, *, rates: tuple = (0.03, 0.1), **settings) -> float:
    """The rate with the best log loss on a validation part of the training images."""
    part, losses = digits.hold_out(x, y), []
    for rate in rates:
        model = train(part.x_train, part.y_train, rate=rate, **settings)
        losses.append(metrics.log_loss(predict_proba(model, part.x_test), part.y_test))
    return rates[int(np.argmin(losses))]


def stopped_early(x: Array, y: Array, new: Array, *, epochs: int, seed: int) -> Array:
    """p(y|new) at the epoch that was best on a fifth of the images, kept aside to judge by."""
    part, best = digits.hold_out(x, y, size=len(x) // 5), [np.inf, None]

    def watch(model):
        judged = metrics.log_loss(predict_proba(model, part.x_test), part.y_test)
        if judged < best[0]:
            best[:] = judged, predict_proba(model, new)

    train(part.x_train, part.y_train, epochs=epochs, seed=seed, watch=watch)
    return best[1]


def few_images(split: digits.Split, *, few: int, epochs: int, seed: int) -> dict:
    """Ways to make more of few images: name -> p(y|x) of the test images."""
    x, y, new, _ = split
    parts = [digits.hold_out(x, y, size=len(x) - few * k, seed=seed)[:2] for k in (1, 2, 4)]
    small, settings = parts[0], {"seed": seed, "epochs": epochs}
    found = {
        name: predict_proba(train(*small, **settings, **recipe), new)
        for name, recipe in RECIPES.items()
    }
    found["stopped early"] = stopped_early(*small, new, **settings)
    five = [predict_proba(train(*small, epochs=epochs, seed=100 + k), new) for k in range(5)]
    found["mean of 5 networks"] = np.mean(five, axis=0)
    for times, more in zip((2, 4), parts[1:]):  # as many steps for each
        model = train(*more, seed=seed, epochs=max(1, epochs // times))
        found[f"{times} times the images"] = predict_proba(model, new)
    found["SVM"] = np.eye(10)[SVC(C=10).fit(*small).predict(new)]
    return found


def by_parts(fit: Callable, *, folds: int = 5) -> list[float]:
    """Accuracy on contiguous parts of the file, each left out once: mostly new hands.

    fit(x, y, new) gives p(y|new).
    """
    images, labels = load_digits(return_X_y=True)
    scores = []
    for part in np.array_split(np.arange(len(images)), folds):
        rest = np.setdiff1d(np.arange(len(images)), part)
        p = fit(images[rest] / 16, labels[rest], images[part] / 16)
        scores.append(metrics.accuracy(p, labels[part]))
    return scores


def row(name: str, results: list, *, more: str = "") -> dict:
    """Print mean ± standard deviation of the accuracy, and the other measures; return them."""
    (accuracy, loss_, ece), sd = np.mean(results, axis=0), np.std(results, axis=0, ddof=1)[0]
    tail = f"{loss_:<10.3f}{ece:.3f}" if "SVM" not in name else ""  # it only decides
    print(f"{name:<22}{accuracy:.3f} ± {sd:.3f}  {tail}{more}".rstrip())
    return {"accuracy": accuracy, "sd": sd, "log_loss": loss_, "ece": ece}


def study(
    *, seeds: int = 10, epochs: int = 60, few: int = 100, shapes: list = SHAPES, folds: int = 5
) -> dict:
    """Depth and width, new hands, and what helps when only few images are there."""
    splits, table, found = [digits.load_split(seed=s) for s in range(seeds)], {}, {}
    print("hidden layers         accuracy       log loss  ECE      weights")
    for shape in shapes:
        results, settings = [], {"hidden": shape, "epochs": epochs}
        for seed, (x, y, new, truth) in enumerate(splits):
            rate = chosen_rate(x, y, seed=seed, **settings)
            model = train(x, y, rate=rate, seed=seed, **settings)
            results.append([measure(predict_proba(model, new), truth) for measure in MEASURES])
        name, size = " × ".join(map(str, shape)) or "none", sum(w.numel() for w in model.weights)
        table["h" + "_".join(map(str, shape))] = row(name, results, more=f"{size:>11,}")
    print("\nparts of the file left out")
    for name, settings in (("plain", {}), ("jitter", {"vary": jitter})):
        parts = by_parts(
            lambda x, y, new: predict_proba(train(x, y, epochs=epochs, **settings), new),  # noqa: B023
            folds=folds,
        )
        print(f"128 hidden, {name:<10}{np.mean(parts):.3f}, last part {parts[-1]:.3f}")
        table[f"parts_{name}"] = {"mean": float(np.mean(parts)), "last": parts[-1]}
    for seed, split in enumerate(splits):
        for name, p in few_images(split, few=few, epochs=5 * epochs, seed=seed).items():
            found.setdefault(name, []).append([measure(p, split.y_test) for measure in MEASURES])
    print(f"\n{few} images            test accuracy  log loss  ECE")
    table["few"] = {re.sub(r"\W", "_", name): row(name, f) for name, f in found.items()}
    return table
