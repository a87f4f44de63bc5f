"""Object detection: which objects are in a picture, and where, in one pass of a small network."""

# --8<-- [start:imports]
from functools import partial
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from snippets.shared import digits, plots

Array = np.ndarray
STRIDE = 4  # pixels from one cell of the maps to the next
# --8<-- [end:imports]


# --8<-- [start:objects]
class Objects(NamedTuple):
    """What is on one canvas, or what a detector says is on it."""

    boxes: Array  # (k, 4): left, top, right, bottom in pixels
    labels: Array  # (k,)
    scores: Array  # (k,), higher is surer; the truth has ones


class Scenes(NamedTuple):
    x: Array  # (n, height, width), ink in [0, 1]
    truth: list[Objects]


# --8<-- [end:objects]
# --8<-- [start:stamps]
def resize(images: Array, height: int, width: int) -> Array:
    """Images (n, h, w) to (n, height, width), averaging where they shrink."""
    images = torch.tensor(images, dtype=torch.float32)[:, None]
    options = {"mode": "bilinear", "antialias": True}
    return F.interpolate(images, (height, width), **options)[:, 0].numpy()


def all_stamps(x: Array, y: Array, sizes: tuple, side: int) -> list[Array]:
    """The digits (m, 64) at each size: arrays (m, size, size)."""
    x = digits.check_images(x).reshape(-1, 8, 8)
    if len(x) != len(y):
        raise ValueError(f"expected {len(x)} labels, got {len(y)}")
    if not 1 <= sizes[0] <= sizes[1] <= side:
        raise ValueError(f"expected sizes from 1 to {side}, got {sizes}")
    return [resize(x, s, s) for s in range(sizes[0], sizes[1] + 1)]


def trim(stamp: Array, *, least: float = 0.25) -> Array:
    """Cut an image down to its ink, so that its box is tight."""
    ink = stamp > least
    down, across = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    return stamp[down[0] : down[-1] + 1, across[0] : across[-1] + 1]


# --8<-- [end:stamps]
# --8<-- [start:places]
def covered(boxes: Array, others: Array) -> Array:
    """Share of each box (k, 4) that each other one (m, 4) covers: (k, m)."""
    return shared_area(boxes, others) / area(boxes)[:, None]


def free_place(shape: tuple, boxes: Array, overlap: float, side: int, rng):
    """A box of this (height, width) that neither covers nor is covered by
    more than `overlap`; None after 50 misses."""
    for _ in range(50):
        top, left = (int(rng.integers(side - length + 1)) for length in shape)
        box = np.array([[left, top, left + shape[1], top + shape[0]]])
        shares = covered(box, boxes), covered(boxes, box)
        if all(share.max(initial=0) <= overlap for share in shares):
            return box[0]
    return None


# --8<-- [end:places]
# --8<-- [start:strew]
def strew(
    x: Array, y: Array, *, n, count=(3, 5), sizes=(8, 14), overlap=0.1,
    noise=0.12, side=40, seed=0,
) -> Scenes:  # fmt: skip
    """n canvases, on each some of the digits x (m, 64) with labels y.

    count, sizes: from and to. overlap: the share of a digit's box that
    another may cover; a digit that finds no such place is left out.
    """
    rng, stamps = np.random.default_rng(seed), all_stamps(x, y, sizes, side)
    canvases, truth = np.zeros((n, side, side), np.float32), []
    for canvas in canvases:
        boxes, labels = np.zeros((0, 4)), []
        for _ in range(rng.integers(count[0], count[1] + 1)):
            size, which = rng.integers(len(stamps)), rng.integers(len(x))
            stamp = trim(stamps[size][which])
            box = free_place(stamp.shape, boxes, overlap, side, rng)
            if box is not None:
                part = canvas[box[1] : box[3], box[0] : box[2]]
                part[:] = np.maximum(part, stamp)  # ink on ink stays ink
                boxes, labels = np.vstack([boxes, box]), [*labels, y[which]]
        truth.append(certain(boxes, labels))
    return Scenes(with_noise(canvases, noise, rng), truth)


# --8<-- [end:strew]
# --8<-- [start:noise]
def certain(boxes: Array, labels: list) -> Objects:
    return Objects(boxes, np.array(labels, dtype=int), np.ones(len(boxes)))


def with_noise(x: Array, noise: float, rng) -> Array:
    grain = rng.standard_normal(x.shape, np.float32)
    return (x + noise * grain).clip(0, 1)


# --8<-- [end:noise]
# --8<-- [start:check]
def as_canvases(x: Array) -> Tensor:
    x = np.asarray(x, dtype=np.float32)
    if x.ndim != 3:
        message = "expected canvases (n, height, width), got shape"
        raise ValueError(f"{message} {x.shape}")
    if x.shape[1] % STRIDE or x.shape[2] % STRIDE:
        sides = " x ".join(map(str, x.shape[1:]))
        raise ValueError(f"expected sides that {STRIDE} divides, got {sides}")
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected ink in [0, 1]: clip it, fill in NaN")
    return torch.tensor(x)[:, None]


# --8<-- [end:check]
# --8<-- [start:draw]
LOOKS = {
    "truth": {"ec": plots.MUTED, "ls": ":"},
    "hit": {"ec": plots.SERIES[0], "ls": "-"},
    "false alarm": {"ec": plots.SERIES[1], "ls": "--"},
    "missed": {"ec": plots.SERIES[5], "ls": ":"},
}


def draw_boxes(axes, objects: Objects, look: str, *, words=None) -> None:
    """Boxes in one of the LOOKS; above each its label, or `words`."""
    for k, (left, top, right, bottom) in enumerate(objects.boxes):
        axes.add_patch(plt.Rectangle(
            (left, top), right - left, bottom - top,
            fill=False, lw=1.6, **LOOKS[look]))
        text = words[k] if words else str(objects.labels[k])
        axes.text(left, top - 0.4, text, size=9, color=LOOKS[look]["ec"])


def draw_canvas(canvas: Array, *, axes, title=None) -> None:
    """One canvas; pixel (0, 0) reaches from 0 to 1 on both axes."""
    height, width = canvas.shape
    axes.imshow(canvas, cmap=plots.ink_map(), vmin=0, vmax=1,
                extent=(0, width, height, 0), interpolation="none")
    axes.set(xticks=[], yticks=[], title=title or "")
    axes.spines[:].set_visible(True)


# --8<-- [end:draw]
# --8<-- [start:draw_answer]
def draw_answer(canvas, found, truth, *, axes, title=None, least=0.5) -> None:
    """A canvas with hits, false alarms and what was missed."""
    draw_canvas(canvas, axes=axes, title=title)
    partner = match(found, truth, least=least)
    draw_boxes(axes, pick(found, partner >= 0), "hit")
    draw_boxes(axes, pick(found, partner < 0), "false alarm")
    missed = ~np.isin(np.arange(len(truth.boxes)), partner)
    draw_boxes(axes, pick(truth, missed), "missed")


def pick(objects: Objects, which: Array) -> Objects:
    return Objects(*(part[which] for part in objects))


# --8<-- [end:draw_answer]
# --8<-- [start:iou]
def area(boxes: Array) -> Array:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def shared_area(boxes: Array, others: Array) -> Array:
    """What each box (k, 4) has in common with each other (m, 4): (k, m)."""
    start = np.maximum(boxes[:, None, :2], others[:, :2])
    end = np.minimum(boxes[:, None, 2:], others[:, 2:])
    # Apart, end - start is negative, and two negatives make an area.
    return np.maximum(end - start, 0).prod(axis=2)


def iou(boxes: Array, others: Array) -> Array:
    """Intersection over union: an array (k, m), 1 for the same box."""
    common = shared_area(boxes, others)
    return common / (area(boxes)[:, None] + area(others) - common)


# --8<-- [end:iou]
# --8<-- [start:match]
def match(found: Objects, truth: Objects, *, least: float = 0.5) -> Array:
    """For each find the number of its true object, -1 for none: (k,).

    The surest chooses first, among true boxes of its class with an IoU of
    `least` that nobody has taken yet. So a second find is a false alarm.
    """
    partner = np.full(len(found.boxes), -1)
    fit = iou(found.boxes, truth.boxes)
    fit[found.labels[:, None] != truth.labels] = 0
    for k in np.argsort(-found.scores, kind="stable"):
        if fit[k].max(initial=0) >= least:
            partner[k] = fit[k].argmax()
            fit[:, partner[k]] = 0
    return partner


# --8<-- [end:match]
# --8<-- [start:average_precision]
def precision_recall(scores: Array, hits: Array, total: int) -> tuple:
    """Both, and the score, from the surest find down; `total` exist."""
    order = np.argsort(-scores, kind="stable")
    found = hits[order].cumsum()
    return found / np.arange(1, len(hits) + 1), found / total, scores[order]


def average_precision(scores: Array, hits: Array, total: int) -> float:
    """Area under precision against recall."""
    precision, recall, _ = precision_recall(scores, hits, total)
    # At a recall that is reached later with better precision, use that.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * precision).sum())


# --8<-- [end:average_precision]
# --8<-- [start:mean_ap]
def pooled(found: list[Objects], truth: list[Objects], *, least=0.5) -> tuple:
    """Scores, hits and labels of all finds, labels of all true objects."""
    if len(found) != len(truth):
        raise ValueError(f"expected {len(truth)} canvases, got {len(found)}")
    hits = [match(f, t, least=least) >= 0 for f, t in zip(found, truth)]
    return (np.concatenate([f.scores for f in found]), np.concatenate(hits),
            np.concatenate([f.labels for f in found]),
            np.concatenate([t.labels for t in truth]))


def mean_ap(
    found: list[Objects], truth: list[Objects], *, least=0.5,
) -> float:  # fmt: skip
    """Average precision of each class that exists, then their mean."""
    scores, hits, labels, exist = pooled(found, truth, least=least)
    return float(np.mean([
        average_precision(scores[labels == k], hits[labels == k],
                          int((exist == k).sum()))
        for k in np.unique(exist)]))


# --8<-- [end:mean_ap]
# --8<-- [start:to_maps]
def to_maps(truth: Objects, shape: tuple, *, spread=0.6, classes=10) -> tuple:
    """What the network should say of a canvas of this shape.

    heat: (classes, rows, columns), 1 at the cell with an object's centre and
    a bump around it. geometry: (4, rows, columns): where in its cell the
    centre lies, x and y, then width and height, all in cells.
    """
    rows, columns = shape[0] // STRIDE, shape[1] // STRIDE
    heat = np.zeros((classes, rows, columns), np.float32)
    geometry = np.zeros((4, rows, columns), np.float32)
    down, across = np.mgrid[:rows, :columns]
    for box, label in zip(truth.boxes / STRIDE, truth.labels):
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        column, row = centre.astype(int)
        distance = (down - row) ** 2 + (across - column) ** 2
        bump = np.exp(-distance / (2 * spread**2))
        heat[label] = np.maximum(heat[label], bump)
        geometry[:, row, column] = [*(centre - (column, row)), *size]
    return heat, geometry


# --8<-- [end:to_maps]
# --8<-- [start:from_maps]
def from_maps(heat: Array, geometry: Array, *, threshold=0.5) -> Objects:
    """The peaks of each class's map, as boxes, surest first.

    A peak is a cell as high as the highest of its 3 x 3 neighbourhood.
    """
    peak = heat == ndimage.maximum_filter(heat, size=(1, 3, 3))
    labels, row, column = np.nonzero(peak & (heat >= threshold))
    x, y, width, height = geometry[:, row, column]
    x, y = x + column, y + row
    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    scores, boxes = heat[labels, row, column], STRIDE * np.array(corners).T
    order = np.argsort(-scores, kind="stable")
    return Objects(boxes[order], labels[order], scores[order])


# --8<-- [end:from_maps]
# --8<-- [start:model]
def layer(inputs: int, outputs: int, *, size: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, size, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Detector(nn.Module):
    """Two layers halve the picture twice, two look around, one answers.

    After Zhou et al., "Objects as Points", 2019.
    """

    def __init__(self, width: int = 48, classes: int = 10):
        super().__init__()
        self.halve = layer(1, width // 2, size=4, stride=2)
        self.halve_again = layer(width // 2, width, size=4, stride=2)
        around = [layer(width, width, size=3, stride=1) for _ in range(2)]
        self.around = nn.ModuleList(around)
        self.answer = nn.Conv2d(width, classes + 4, 1)
        # Nearly all cells are empty: begin by saying so.
        nn.init.constant_(self.answer.bias[:classes], -4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 1, h, w) to logits (n, 10, h/4, w/4), geometry (n, 4, ...)."""
        x = self.halve_again(self.halve(x))
        for look in self.around:
            x = x + look(x)
        answer = self.answer(x)
        return answer[:, :-4], answer[:, -4:]


# --8<-- [end:model]
# --8<-- [start:loss]
def focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Cross-entropy of cells, those already right counting little: a sum.

    Near a centre, a wrong yes is forgiven the more the higher the bump.
    Source: Lin et al., ICCV 2017, as changed by Law & Deng, ECCV 2018.
    """
    p = torch.sigmoid(logits)
    yes = (1 - p) ** 2 * F.logsigmoid(logits)
    no = (1 - heat) ** 4 * p**2 * F.logsigmoid(-logits)
    return -torch.where(heat == 1, yes, no).sum()


def loss(logits, geometry, heat, target, *, weight=0.25) -> Tensor:
    """Focal loss and `weight` times the L1 error of boxes, per object."""
    centre = (heat == 1).any(dim=1, keepdim=True)  # (n, 1, rows, columns)
    error = ((geometry - target).abs() * centre).sum()
    objects = centre.sum().clamp(min=1)
    return (focal_loss(logits, heat) + weight * error) / objects


# --8<-- [end:loss]
# --8<-- [start:train]
def train(
    scenes: Scenes, *, steps=500, batch=32, rate=0.02, width=48, noise=0.12,
    seed=0,
) -> Detector:  # fmt: skip
    """Learn from scenes without noise; each batch gets noise of its own."""
    x = as_canvases(scenes.x)
    maps = [to_maps(one, x.shape[2:]) for one in scenes.truth]
    heat, target = (torch.tensor(np.stack(m)) for m in zip(*maps))
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model, history = Detector(width), []
        adam = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
        pace = OneCycleLR(adam, rate, total_steps=steps, pct_start=0.15)
        for _ in range(steps):
            some = torch.randint(len(x), (batch,))
            canvas = x[some] + noise * torch.randn(batch, *x.shape[1:])
            answer = model(canvas.clamp(0, 1))
            price = loss(*answer, heat[some], target[some])
            adam.zero_grad()
            price.backward()
            adam.step()
            pace.step()
            history.append(price.item())
    model.history = np.array(history)
    return model.eval()


# --8<-- [end:train]
# --8<-- [start:detect]
@torch.no_grad()
def detect(model: Detector, x: Array, *, threshold=0.3) -> list[Objects]:
    """The objects on each canvas (n, height, width), surest first."""
    logits, geometry = model(as_canvases(x))
    pairs = zip(torch.sigmoid(logits).numpy(), geometry.numpy())
    return [from_maps(*maps, threshold=threshold) for maps in pairs]


# --8<-- [end:detect]
# --8<-- [start:cheapest]
def bill(scores, hits, total, *, threshold, missed, alarm) -> float:
    """What is missed and what is found in vain, each times its price."""
    shown = scores >= threshold
    lost = total - (shown & hits).sum()
    return float(missed * lost + alarm * (shown & ~hits).sum())


def cheapest(scores, hits, total, *, missed, alarm) -> float:
    """The threshold with the lowest bill."""
    levels = np.arange(0.05, 1, 0.01)
    return float(min(levels, key=lambda level: bill(
        scores, hits, total, threshold=level, missed=missed, alarm=alarm)))


# --8<-- [end:cheapest]


# ---------------------------------------------------------------- baselines


def crop(canvas: Array, box: Array) -> Array:
    """The part of a canvas in a box of whole pixels, as 64 numbers."""
    left, top, right, bottom = box.astype(int)
    return resize(canvas[None, top:bottom, left:right], 8, 8).ravel()


# --8<-- [start:blobs]
def blobs(canvas: Array, *, smooth=0.5, least=0.4, tallest=4) -> Array:
    """Boxes (k, 4) of connected ink: no training, no idea of a digit."""
    ink = ndimage.gaussian_filter(canvas, smooth) > least
    names, _ = ndimage.label(ink, np.ones((3, 3)))
    boxes = np.array([(x.start, y.start, x.stop, y.stop)
                      for y, x in ndimage.find_objects(names)])
    boxes = boxes.reshape(-1, 4)
    return boxes[boxes[:, 3] - boxes[:, 1] > tallest]  # lower is noise


def read_blobs(scenes: Scenes, machine: SVC):
    """A function of canvases: find blobs, let a support vector machine read.

    It has seen the digits of `scenes`, cut out at their true boxes.
    """
    crops = [crop(canvas, box) for canvas, truth in zip(*scenes)
             for box in truth.boxes]
    labels = np.concatenate([truth.labels for truth in scenes.truth])
    machine.fit(crops, labels)

    def read(canvas):
        boxes = blobs(canvas)
        if len(boxes) == 0:
            return certain(boxes, [])
        margin = machine.decision_function([crop(canvas, b) for b in boxes])
        second, first = np.sort(margin, axis=1)[:, -2:].T
        return Objects(boxes, margin.argmax(axis=1), first - second)

    return lambda x: [read(canvas) for canvas in x]


# --8<-- [end:blobs]
def windows(canvas: Array, *, sizes=(8, 10, 12, 14), step=2, edge=4) -> tuple[Array, Array]:
    """Square windows at every second pixel: boxes (k, 4) and what is in them, (k, 64)."""
    canvas, boxes, crops = np.pad(canvas, edge), [], []
    for size in sizes:
        views = np.lib.stride_tricks.sliding_window_view(canvas, (size, size))[::step, ::step]
        top, left = step * np.mgrid[: views.shape[0], : views.shape[1]].reshape(2, -1) - edge
        boxes.append(np.stack([left, top, left + size, top + size], axis=1))
        crops.append(resize(views.reshape(-1, size, size), 8, 8).reshape(-1, 64))
    return np.concatenate(boxes), np.concatenate(crops)


def suppress(found: Objects, *, most: float = 0.3) -> Objects:
    """Non-maximum suppression: a box goes if a surer one, of any class, overlaps it more."""
    left, keep = np.argsort(-found.scores, kind="stable"), []
    while len(left):
        keep.append(left[0])
        overlap = iou(found.boxes[left[:1]], found.boxes[left])[0]
        left = left[1:][overlap[1:] <= most]
    return pick(found, keep)


def reshaped(boxes: Array, slim: Array) -> Array:
    """Boxes of the same middle and height, with `slim` times the height as width."""
    middle, half = (boxes[:, 0] + boxes[:, 2]) / 2, slim * (boxes[:, 3] - boxes[:, 1]) / 2
    return np.stack([middle - half, boxes[:, 1], middle + half, boxes[:, 3]], axis=1)


def window_lessons(scenes: Scenes, *, empty: int, seed: int = 0) -> tuple[Array, Array]:
    """Crops (k, 64) and labels (k,) to teach a classifier of windows.

    A window that fits a digit's square well is that digit, one that fits none is nothing, 10; of
    these, `empty` from each canvas.
    """
    rng, crops, labels = np.random.default_rng(seed), [], []
    for canvas, truth in zip(*scenes):
        boxes, views = windows(canvas)
        fit = iou(boxes, reshaped(truth.boxes, 1))
        best = fit.max(axis=1, initial=0)
        good = np.flatnonzero(best > 0.7)
        bad = rng.choice(np.flatnonzero(best < 0.4), empty, replace=False)
        crops += [views[good], views[bad]]
        labels += [truth.labels[fit[good].argmax(axis=1)], np.full(empty, 10)]
    return np.concatenate(crops), np.concatenate(labels)


def slide_windows(scenes: Scenes, machine, *, empty: int):
    """A function of canvases: ask a classifier about every window, then suppress.

    The score is what it has for a digit less what it has for nothing; a box gets the mean width of
    its class.
    """
    machine.fit(*window_lessons(scenes, empty=empty))
    boxes, labels, _ = (np.concatenate(part) for part in zip(*scenes.truth))
    slim = (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
    slim = np.array([slim[labels == k].mean() for k in range(10)])

    def read(canvas):
        boxes, views = windows(canvas)
        said = machine.decision_function(views)
        margin = said[:, :10] - said[:, 10:]
        found = Objects(boxes, margin.argmax(axis=1), margin.max(axis=1))
        found = pick(found, found.scores > -1)  # the thousand others are clearly nothing
        return suppress(found._replace(boxes=reshaped(found.boxes, slim[found.labels])))

    return lambda x: [read(canvas) for canvas in x]


# ---------------------------------------------------------------- the study


def multiplications(model: Detector, *, side: int = 40) -> int:
    """How many one canvas takes in the convolutions."""
    total, x = 0, torch.zeros(1, 1, side, side)

    def count(layer, _, output):
        nonlocal total
        total += layer.weight[0].numel() * output.numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    model(x)
    for hook in hooks:
        hook.remove()
    return total


def contenders(split: digits.Split, *, seed: int, scale: float, steps: int) -> dict:
    """Name: (a function of canvases, multiplications a canvas in its classifier or network)."""
    few = strew(*split[:2], n=int(300 * scale), seed=seed + 1)
    networks = {}
    for name, options in (("network", {}), ("network, crowds", {"count": (4, 7), "overlap": 0.6})):
        scenes = strew(*split[:2], n=int(3000 * scale), noise=0, seed=seed + 2, **options)
        model = train(scenes, steps=steps, seed=seed)
        networks[name] = partial(detect, model, threshold=0.05), multiplications(model)
    linear = LogisticRegression(C=1, max_iter=100)
    reader, kernel = SVC(C=10, gamma=0.06), SVC(C=10, gamma=0.06)
    slow = Scenes(few.x[::2], few.truth[::2])
    simple = {
        "blobs, kernel": read_blobs(few, reader),
        "windows, linear": slide_windows(few, linear, empty=200),
        "windows, kernel": slide_windows(slow, kernel, empty=12),
    }
    each, all_windows = np.mean([len(blobs(x)) for x in few.x]), len(windows(few.x[0])[0])
    costs = (
        each * reader.support_vectors_.size,
        all_windows * linear.coef_.size,
        all_windows * kernel.support_vectors_.size,
    )
    return {name: (read, cost) for (name, read), cost in zip(simple.items(), costs)} | networks


def study(*, seeds: int = 5, canvases: int = 100, scale: float = 1.0, steps: int = 500) -> dict:
    """Each contender on other digits, canvases and starts, as usual and crowded."""
    rows = {}
    for seed in range(seeds):
        split = digits.load_split(seed=seed)
        usual, crowded = (
            strew(*split[2:], n=canvases, seed=seed + 3, **options)
            for options in ({}, {"count": (4, 7), "overlap": 0.6})
        )
        for name, (read, cost) in contenders(split, seed=seed, scale=scale, steps=steps).items():
            found, dense = read(usual.x), read(crowded.x)
            row = [mean_ap(found, usual.truth), mean_ap(found, usual.truth, least=0.75)]
            rows.setdefault(name, []).append([*row, mean_ap(dense, crowded.truth), cost / 1e6])
    print(f"{'':<18}mAP50          mAP75  crowded  million multiplications")
    result = {}
    for name, values in rows.items():
        ap50, ap75, dense, cost = np.mean(values, axis=0)
        sd = np.std(values, axis=0, ddof=1)[0] if seeds > 1 else 0.0
        print(f"{name:<18}{ap50:.3f} ± {sd:.3f}  {ap75:.3f}  {dense:.3f}    {cost:>8.1f}")
        row = {"map50": ap50, "sd": sd, "map75": ap75, "crowded": dense, "millions": cost}
        row["worst"] = min(value[0] for value in values)
        result[name.replace(", ", "_")] = {key: float(value) for key, value in row.items()}
    return result
