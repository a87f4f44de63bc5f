"""An autoregressive model: each pixel gets a distribution, given the pixels before it."""

# --8<-- [start:imports]
import time

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from snippets.shared import digits, sample_quality

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:before]
def before(order: Array) -> Array:
    """Who may look at whom: row i, column j is true if j is drawn before i.

    order: each pixel once, the first to be drawn first. (pixels, pixels).
    """
    order = np.asarray(order)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError(f"expected each of {len(order)} pixels once")
    rank = np.argsort(order)  # the step at which a pixel is drawn
    return rank[None, :] < rank[:, None]


def windows(sees: Array, shape: tuple[int, int]) -> Array:
    """For pixel i and each offset from it: the pixel there, or a blank.

    (pixels, offsets); the blank, index `pixels`, stands for "not seen".
    """
    spot = np.indices(shape).reshape(2, -1).T  # row and column of a pixel
    gap = spot[None] - spot[:, None] + np.array(shape) - 1  # from 0 on
    offset = gap[..., 0] * (2 * shape[1] - 1) + gap[..., 1]
    table = np.full((len(sees), offset.max() + 1), len(sees))
    i, j = np.nonzero(sees)
    table[i, offset[i, j]] = j
    return table[:, (table < len(sees)).any(axis=0)]


# --8<-- [end:before]
# --8<-- [start:levels]
def log_levels(raw: Tensor, levels: int) -> Tensor:
    """log p of each of the levels 0 .. levels - 1: (..., levels).

    raw: (..., 3 K): weights, means and log widths of K logistic curves,
    cut into bins; the first and last bin take the tails.
    Source: Salimans et al., "PixelCNN++", ICLR 2017.
    """
    pi, mu, log_s = raw.chunk(3, dim=-1)  # (..., K) each
    edge = (2 * torch.arange(1, levels) - levels) / (levels - 1)
    z = (edge[:, None] - mu[..., None, :]) / log_s.exp()[..., None, :]
    below = torch.sigmoid(z) * torch.softmax(pi, dim=-1)[..., None, :]
    below = below.sum(dim=-1)  # (..., levels - 1), rises to at most 1
    below = functional.pad(functional.pad(below, (1, 0)), (0, 1), value=1.0)
    p = below.diff(dim=-1)
    return torch.log((1 - 1e-5) * p + 1e-5 / levels)  # nothing is impossible


# --8<-- [end:levels]
# --8<-- [start:parts]
class Thin(nn.Dropout):
    """Dropout, but a unit is off for all pixels of an image: (n, at, k)."""

    def forward(self, h: Tensor) -> Tensor:
        return h * super().forward(torch.ones(len(h), 1, h.shape[2]))


def head(width: int, curves: int) -> nn.Linear:
    """To `log_levels`; curves begin side by side, from blank to full."""
    last, one = nn.Linear(width, 3 * curves), torch.ones(curves)
    middle = torch.linspace(-1, 1, curves)
    last.bias.data = torch.cat([0 * one, middle, -one])
    return last


# --8<-- [end:parts]
# --8<-- [start:model]
class Pixels(nn.Module):
    """One small network for all pixels; it slides, and sees what is before.

    x: (n, pixels) in [0, 1], y: (n,) labels. Gives log p(x_i | x_<i, y) of
    each level: (n, pixels, levels), or only for the pixels `at`.
    Source: Jain et al., "Locally Masked Convolution", UAI 2020.
    """

    def __init__(self, order, *, sees=None, shape=(8, 8), levels=17,
                 classes=10, width=128, curves=3, drop=0.3):  # fmt: skip
        super().__init__()
        self.order, self.levels = order, levels
        table = windows(before(order) if sees is None else sees, shape)
        self.register_buffer("window", torch.tensor(table))
        self.register_buffer("prior", torch.full((classes,), 1 / classes))
        tell = torch.randn(len(order), width) + torch.randn(classes, 1, width)
        self.start = nn.Parameter(0.3 * tell)  # what label and place tell
        self.first = nn.Linear(2 * table.shape[1], width, bias=False)
        self.second = nn.Linear(width, width)
        self.last, self.thin = head(width, curves), Thin(drop)

    def forward(self, x: Tensor, y: Tensor, at=slice(None)) -> Tensor:
        ink = torch.stack([2 * x - 1, x.sign() - 0.5], dim=-1)
        ink = functional.pad(ink, (0, 0, 0, 1))  # and a blank, two zeros
        seen = ink[:, self.window[at]].flatten(2)  # (n, at, 2 offsets)
        h = functional.gelu(self.first(seen) + self.start[y][:, at])
        h = h + functional.gelu(self.second(self.thin(h)))
        return log_levels(self.last(self.thin(h)), self.levels)


# --8<-- [end:model]
# --8<-- [start:loss]
def as_levels(model: nn.Module, x: Array) -> Tensor:
    """Images (n, pixels) in [0, 1] as levels, or say what is wrong."""
    x = digits.check_images(x, pixels=len(model.order))
    k = (model.levels - 1) * x
    if len(x) == 0 or not ((k >= 0) & (k < model.levels)).all():
        raise ValueError("expected images in [0, 1]: divide by 16, fill NaN")
    if np.abs(k - np.round(k)).max() > 1e-6:
        raise ValueError("expected pixels in sixteenths: round them first")
    return torch.tensor(np.round(k), dtype=torch.float32)


def log_image(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """log p(x|y), (n,): the sum of each pixel's own log p, in nats."""
    k = torch.round((model.levels - 1) * x).long()
    return model(x, y).gather(2, k[..., None]).sum(dim=(1, 2))


# --8<-- [end:loss]
# --8<-- [start:fit]
def fit(model: nn.Module, x: Array, y: Array, *, steps, batch, rate):
    """Train in place: all pixels of an image at once, from its own past."""
    y = torch.tensor(digits.check_labels(y, count=len(x)))
    x, history = as_levels(model, x) / (model.levels - 1), []
    model.prior = torch.bincount(y, minlength=len(model.prior)) / len(y)
    adam = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    pace = OneCycleLR(adam, rate, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        some = torch.randint(len(x), (batch,))
        loss = -log_image(model, x[some], y[some]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        pace.step()
        history.append(loss.item())
    model.history = np.array(history)  # nats per image
    return model.eval()


# --8<-- [end:fit]
# --8<-- [start:train]
def train(
    x: Array, y: Array, *, order=range(64), sees=None,
    steps=1000, batch=16, rate=5e-3, seed=0,
) -> Pixels:  # fmt: skip
    """Raise log p(x|y) of images (n, 64) in sixteenths, labels (n,) 0-9."""
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model = Pixels(order, sees=sees)
        return fit(model, x, y, steps=steps, batch=batch, rate=rate)


# --8<-- [end:train]
# --8<-- [start:joint]
@torch.no_grad()
def log_joint(model: nn.Module, x: Array) -> Array:
    """log p(x, y) for each label: (n, classes), nats, exact."""
    x = as_levels(model, x) / (model.levels - 1)
    ask = [torch.full((len(x),), y) for y in range(len(model.prior))]
    log_p = torch.stack([log_image(model, x, y) for y in ask], dim=1)
    return (log_p.double() + torch.log(model.prior.double())).numpy()


def log_prob(model: nn.Module, x: Array) -> Array:
    """log p(x) of images (n, 64) in sixteenths: (n,), nats, exact."""
    return logsumexp(log_joint(model, x), axis=1)


def predict_proba(model: nn.Module, x: Array) -> Array:
    """p(y|x) by Bayes' rule: (n, classes), rows sum to one."""
    return softmax(log_joint(model, x), axis=1)


# --8<-- [end:joint]
# --8<-- [start:go_on]
@torch.no_grad()
def go_on(
    model: nn.Module, x: Array, labels: Array, *,
    start: int, seed=0, temperature=1.0,
) -> Array:  # fmt: skip
    """Keep the first `start` pixels of x, by the order, and draw the rest."""
    y = np.asarray(labels)
    if y.shape != (len(x),) or not np.isin(y, range(len(model.prior))).all():
        raise ValueError(f"expected {len(x)} labels, 0-9, got {y}")
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    random = torch.Generator().manual_seed(seed)
    for i in model.order[start:]:
        log_p = model(x, y, at=slice(i, i + 1))[:, 0]  # (n, levels)
        p = torch.softmax(log_p / temperature, dim=1)
        k = torch.multinomial(p, 1, generator=random)[:, 0]
        x[:, i] = k / (model.levels - 1)
    return x.double().numpy()


# --8<-- [end:go_on]
# --8<-- [start:sample]
def sample(model: nn.Module, labels: Array, *, seed=0, **more) -> Array:
    """New images of the labels (n,), pixel by pixel: (n, 64), sixteenths."""
    blank = np.zeros((len(labels), len(model.order)))
    return go_on(model, blank, labels, start=0, seed=seed, **more)


# --8<-- [end:sample]
# --8<-- [start:influence]
def influence(model: nn.Module, x: Array, y: int) -> Array:
    """Largest |d log p_i / d x_j| over the levels of pixel i, at one image.

    (pixels, pixels), in the order of drawing. An honest model has zeros on
    the diagonal and above it.
    """
    x = torch.tensor(x, dtype=torch.float32)

    def levels(image):
        return model(image[None], torch.tensor([y]))[0]

    slope = torch.autograd.functional.jacobian(levels, x, vectorize=True)
    order = torch.tensor(list(model.order))
    return slope.abs().amax(dim=1)[order][:, order].numpy()


# --8<-- [end:influence]


class Made(nn.Module):
    """The same, with weights of its own for each pair of pixels and hidden units that have a rank.

    Source: Germain et al., "MADE", ICML 2015. The output is that of `Pixels`.
    """

    def __init__(self, order, *, width=256, curves=3, drop=0.3):
        super().__init__()
        self.order, self.levels = order, 17
        self.thin = nn.Dropout(drop)
        rank, hidden = np.argsort(order), np.arange(width) % 63
        into, out = np.tile(rank, 2), np.repeat(rank, 3 * curves)
        masks = (hidden[:, None] >= into, hidden[:, None] >= hidden, out[:, None] > hidden)
        for k, mask in enumerate(masks):
            self.register_buffer(f"mask{k}", torch.tensor(mask, dtype=torch.float32))
        self.register_buffer("prior", torch.full((10,), 0.1))
        self.layers = nn.ModuleList(nn.Linear(*m.shape[::-1]) for m in masks)
        self.start = nn.Parameter(0.3 * torch.randn(10, width))
        self.label = nn.Parameter(torch.zeros(10, len(out)))
        self.layers[2].bias.data = head(width, curves).bias.data.repeat(64)

    def forward(self, x, y, at=slice(None)):
        def masked(k, h):
            mask = getattr(self, f"mask{k}")
            return functional.linear(h, mask * self.layers[k].weight, self.layers[k].bias)

        h = masked(0, torch.cat([2 * x - 1, x.sign() - 0.5], dim=1)) + self.start[y]
        h = functional.gelu(h)
        h = h + functional.gelu(masked(1, self.thin(h)))
        raw = masked(2, self.thin(h)) + self.label[y]
        return log_levels(raw.unflatten(1, (64, -1))[:, at], self.levels)


def orders() -> dict[str, Array]:
    """Five ways to walk through the 64 pixels."""
    row, column = np.indices((8, 8)).reshape(2, -1)
    ring = np.maximum(abs(row - 3.5), abs(column - 3.5))
    angle = np.arctan2(row - 3.5, column - 3.5)
    return {
        "rows": np.arange(64),
        "rows, from below": np.arange(64)[::-1],
        "columns": np.lexsort((row, column)),
        "spiral, outwards": np.lexsort((angle, ring)),
        "random": np.random.default_rng(0).permutation(64),
    }


def bits(log_p: Array) -> float:
    """Mean bits per pixel of images whose log p(x), (n,), is given in nats."""
    return sample_quality.bits_per_dim(log_p)


def quick(model: nn.Module, test: Array, *, draws: int) -> dict[str, float]:
    """Bits on test images and the Fréchet distance of draws."""
    seen = [sample_quality.ask_judge(x)[0] for x in (sample(model, np.arange(draws) % 10), test)]
    return {"bits": bits(log_prob(model, test)), "fd": sample_quality.frechet_distance(*seen)}


def contestant(split: digits.Split, *, steps: int, draws: int, seed: int) -> dict[str, float]:
    """Train, draw, and put both through the whole kit, with CPU seconds."""
    labels, found, clock = np.arange(draws) % 10, {}, [time.process_time()]

    def lap(name):
        clock.append(time.process_time())
        found[name] = clock[-1] - clock[-2]

    model = train(split.x_train, split.y_train, steps=steps, seed=seed)
    lap("seconds")
    drawn = sample(model, labels)
    lap("draw_seconds")
    with torch.no_grad():
        model(torch.tensor(drawn, dtype=torch.float32), torch.tensor(labels))
    lap("pass_seconds")  # all pixels of the finished images at once
    for digit in range(10):
        sample(model, [digit])
    lap("ten_alone_seconds")
    says = predict_proba(model, split.x_test).argmax(axis=1)
    return sample_quality.assess(drawn, labels=labels) | found | {
        "bits": bits(log_prob(model, split.x_test)),
        "accuracy": float((says == split.y_test).mean()),
        "parameters": sum(weights.numel() for weights in model.parameters()),
    }


def study(*, seeds: int = 3, steps: int = 1000, draws: int = 1440) -> dict:
    """The contest, and in a third of the steps five orders, their mixture, and MADE."""
    split, runs = digits.load_split(seed=0), {}
    x, y, test, _ = split
    for seed in range(seeds):
        row = contestant(split, steps=steps, draws=draws, seed=seed)
        runs.setdefault("the model", []).append(row)
        log_p = []
        for name, order in orders().items():
            model = train(x, y, order=order, steps=steps // 3, seed=seed)
            runs.setdefault(name, []).append(quick(model, test, draws=draws))
            log_p.append(log_prob(model, test))
        mixed = bits(logsumexp(log_p, axis=0) - np.log(len(log_p)))
        runs.setdefault("the five, mixed", []).append({"bits": mixed})
        torch.manual_seed(seed)
        made = fit(Made(range(64)), x, y, steps=steps // 3, batch=32, rate=3e-3)
        runs.setdefault("MADE, rows", []).append(quick(made, test, draws=draws))
    copied = x[np.random.default_rng(0).integers(len(x), size=draws)]
    runs["training images"] = [sample_quality.assess(copied)]
    return report({name: sample_quality.spread(rows) for name, rows in runs.items()})


def report(table: dict) -> dict:
    """Print mean ± standard deviation over seeds; returns both, by row and column."""
    print(f"{'':<18}bits per pixel    FD of draws")
    for name, row in table.items():
        cells = [f"{row[k]:.2f} ± {row[k + '_sd']:.2f}" if k in row else ""
                 for k in ("bits", "fd")]  # fmt: skip
        print(f"{name:<18}{cells[0]:<18}{cells[1]}".rstrip())
    table["contest"] = table.pop("the model")
    return {name.replace(", ", "_").replace(" ", "_").lower(): row for name, row in table.items()}
