"""Diffusion and flow matching: learn to guess the image behind the noise, then follow the guess."""

# --8<-- [start:imports]
import time
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, one_hot, silu

from snippets.shared import digits, sample_quality

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:path]
def mix(x0: Tensor, eps: Tensor, t) -> Tensor:
    """x_t, the point on the straight way from image (0) to noise (1)."""
    return (1 - t) * x0 + t * eps


def noise_of(x_t: Tensor, t, x_hat: Tensor) -> Tensor:
    """The noise in x_t, t > 0, if x_hat is the image in it."""
    return (x_t - (1 - t) * x_hat) / t


def velocity_of(x_t: Tensor, t, x_hat: Tensor) -> Tensor:
    """Where x_t is heading as t grows: noise minus image."""
    return noise_of(x_t, t, x_hat) - x_hat


# --8<-- [end:path]
# --8<-- [start:network]
class Network(nn.Module):
    """A residual MLP; time and class scale and shift each block (FiLM)."""

    def __init__(self, outputs: int, classes: int, *, width=128, blocks=4):
        super().__init__()
        self.register_buffer("pitch", torch.pi / 2 * 2.0 ** torch.arange(6))
        self.when, self.what = nn.Linear(12, 64), nn.Linear(classes + 1, 64)
        self.enter = nn.Linear(64, width)
        self.turn = layers(blocks, 64, 2 * width)
        self.first = layers(blocks, width, width)
        self.second = layers(blocks, width, width)
        self.leave = nn.Linear(width, outputs)
        for last in (*self.second, self.leave):  # start as "change nothing"
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x_t: Tensor, t: Tensor, ask: Tensor) -> Tensor:
        clock = torch.cat([(t * self.pitch).sin(), (t * self.pitch).cos()], 1)
        told = silu(self.when(clock) + self.what(ask))  # (batch, 64)
        h = self.enter(x_t)  # (batch, width)
        for turn, first, second in zip(self.turn, self.first, self.second):
            scale, shift = turn(told).chunk(2, dim=1)
            seen = layer_norm(h, h.shape[1:]) * (1 + scale) + shift
            h = h + second(silu(first(seen)))
        return self.leave(silu(layer_norm(h, h.shape[1:])))


def layers(count, inputs, outputs):
    return nn.ModuleList(nn.Linear(inputs, outputs) for _ in range(count))


# --8<-- [end:network]
# --8<-- [start:denoiser]
class Denoiser(nn.Module):
    """E[x0 | x_t], through a probability for each of a pixel's 17 levels.

    x_t (n, 64), t (n, 1), ask (n, classes + 1): a class, or last "none".
    Source: Dieleman et al., "Continuous Diffusion for Categorical Data".
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        self.classes, self.network = classes, Network(64 * 17, classes)
        self.register_buffer("levels", torch.arange(17) / 8 - 1)

    def logits(self, x_t: Tensor, t: Tensor, ask: Tensor) -> Tensor:
        """Scores of the levels: what the others say, and the pixel itself."""
        others = self.network(x_t, t, ask).unflatten(1, (64, 17))
        t, x = t.clamp(min=0.01)[:, :, None], x_t[:, :, None]
        away = x - (1 - t) * self.levels  # t eps, if that is the level
        return others - away**2 / (2 * t**2)

    def forward(self, x_t: Tensor, t: Tensor, ask: Tensor) -> Tensor:
        return self.logits(x_t, t, ask).softmax(dim=2) @ self.levels

    def loss(self, x0: Tensor, eps: Tensor, t: Tensor, ask: Tensor) -> Tensor:
        """Nats per pixel to name the true level."""
        logits = self.logits(mix(x0, eps, t), t, ask)
        return cross_entropy(logits.flatten(0, 1), level_of(x0).flatten())


def level_of(x0: Tensor) -> Tensor:
    return (8 * (x0 + 1)).round().long()


# --8<-- [end:denoiser]
# --8<-- [start:plain]
class Plain(nn.Module):
    """The textbook's flow matching: name the velocity, pay squared error.

    Source: Lipman et al., "Flow Matching for Generative Modeling", 2023.
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        self.classes, self.network = classes, Network(64, classes)

    def forward(self, x_t: Tensor, t: Tensor, ask: Tensor) -> Tensor:
        return x_t - t * self.network(x_t, t, ask)

    def loss(self, x0: Tensor, eps: Tensor, t: Tensor, ask: Tensor) -> Tensor:
        v = self.network(mix(x0, eps, t), t, ask)
        return ((v - (eps - x0)) ** 2).mean()


# --8<-- [end:plain]
# --8<-- [start:train]
def train(
    x: Array, y: Array, *, kind=Denoiser, steps=2400, batch=128,
    rate=4e-3, forget=0.1, keep=0.995, seed=0,
) -> nn.Module:  # fmt: skip
    """Guess images (n, 64) of classes (n,) at every level of noise.

    The class is hidden from a share `forget`. Returned is a moving average.
    """
    x, y = as_ink(x), torch.tensor(digits.check_labels(y, count=len(x)))
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model, history = kind(int(y.max()) + 1), []
        average, weights = deepcopy(model), model.parameters()
        adam = torch.optim.Adam(weights, betas=(0.9, 0.99), fused=True)
        for step in range(1, steps + 1):
            fall = min(1.0, 2 * (1 - (step - 1) / steps))  # second half
            adam.param_groups[0]["lr"] = rate * fall * min(1.0, step / 100)
            loss = model.loss(*draw_batch(x, y, model.classes, batch, forget))
            adam.zero_grad()
            loss.backward()
            adam.step()
            follow(average, model, keep=min(keep, step / (step + 10)))
            history.append(loss.item())
    average.history = np.array(history)  # (steps,)
    return average


# --8<-- [end:train]
# --8<-- [start:batch]
def as_ink(x: Array) -> Tensor:
    """Images (n, 64) in sixteenths, as a tensor from -1 to 1."""
    x = digits.check_images(x)
    if len(x) == 0 or not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected images with ink in [0, 1]: divide by 16")
    if not np.array_equal(16 * x, np.round(16 * x)):
        raise ValueError("expected pixels in sixteenths: round them first")
    return torch.tensor(2 * x - 1, dtype=torch.float32)


def draw_batch(x: Tensor, y: Tensor, classes, batch, forget):
    """Images, noise, times and classes, some of them turned into "none"."""
    some = torch.randint(len(x), (batch,))
    hidden = torch.rand(batch) < forget
    ask = one_hot(y[some].masked_fill(hidden, classes), classes + 1).float()
    t = torch.sigmoid(torch.randn(batch, 1))  # logit-normal: often half-way
    return x[some], torch.randn(batch, 64), t, ask


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, *, keep: float):
    """Move the averaged weights a little towards the model's (EMA)."""
    for slow, fast in zip(average.parameters(), model.parameters()):
        slow.lerp_(fast, 1 - keep)


# --8<-- [end:batch]
# --8<-- [start:step]
def guess(
    model: nn.Module, x_t: Tensor, t: float, ask: Tensor, *, guidance=1.0
) -> Tensor:
    """The image in x_t. Guidance 0 ignores the class, above 1 overdoes it."""
    times = torch.full((len(x_t), 1), float(t))
    x_hat = model(x_t, times, ask)
    if guidance != 1:
        nothing = torch.zeros_like(ask)
        nothing[:, -1] = 1
        without = model(x_t, times, nothing)
        x_hat = without + guidance * (x_hat - without)
    return x_hat.clamp(-1, 1)


def step(
    x_t: Tensor, t: float, s: float, x_hat: Tensor, fresh: Tensor, *,
    churn=1.0,
) -> Tensor:  # fmt: skip
    """From time t to the earlier s: keep the guess, replace some noise.

    churn 0 replaces none (DDIM, flow); 1 as much as DDPM does.
    """
    kept = (s * (1 - t) / (t * (1 - s))) ** churn
    eps = kept * noise_of(x_t, t, x_hat) + (1 - kept**2) ** 0.5 * fresh
    return mix(x_hat, eps, s)


# --8<-- [end:step]
# --8<-- [start:sample]
@torch.no_grad()
def sample(
    model: nn.Module, labels: Array, *,
    seed=0, steps=40, guidance=1.0, churn=1.0,
) -> Array:  # fmt: skip
    """A new image for each label (n,): (n, 64) in [0, 1]."""
    random = torch.Generator().manual_seed(seed)
    ask = ask_for(model, labels)
    x = torch.randn(len(ask), 64, generator=random)
    for t, s in pairwise(np.linspace(1, 0, steps + 1).tolist()):
        x_hat = guess(model, x, t, ask, guidance=guidance)
        fresh = torch.randn(x.shape, generator=random)
        x = step(x, t, s, x_hat, fresh, churn=churn)
    return (x.double().numpy() + 1) / 2


def ask_for(model: nn.Module, labels: Array) -> Tensor:
    """One row for each label, (n, classes + 1); the last column is "none"."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise ValueError("expected labels, shape (n,): for one pass [label]")
    if labels.min() < 0 or labels.max() >= model.classes:
        raise ValueError(f"expected labels 0..{model.classes - 1}")
    return one_hot(torch.tensor(labels).long(), model.classes + 1).float()


# --8<-- [end:sample]
# --8<-- [start:flow]
Velocity = Callable[[Tensor, float], Tensor]


def flow(velocity: Velocity, x: Tensor, *, steps: int, heun=True) -> Tensor:
    """Follow a velocity from t = 1 to 0. Heun looks ahead and averages."""
    for t, s in pairwise(np.linspace(1, 0, steps + 1).tolist()):
        v = velocity(x, t)
        if heun and s > 0:
            v = (v + velocity(x + (s - t) * v, s)) / 2
        x = x + (s - t) * v
    return x


# --8<-- [end:flow]
# --8<-- [start:log_prob]
@torch.no_grad()
def log_prob(model, x: Array, *, labels=None, samples=100, seed=0) -> Array:
    """A lower bound on log p(x), or on log p(x|label): (n,) nats.

    Source: Kingma et al., "Variational Diffusion Models", NeurIPS 2021.
    """
    x0, random = as_ink(x), torch.Generator().manual_seed(seed)
    none = one_hot(torch.full((len(x0),), model.classes)).float()
    ask = none if labels is None else ask_for(model, labels)
    low, high = np.log(0.02), np.log(30.0)  # of r = t / (1 - t)
    r = torch.full((len(x0), 1), np.exp(low))
    z = mix(x0, torch.randn(x0.shape, generator=random), r / (1 + r))
    logits = model.logits(z, r / (1 + r), ask).transpose(1, 2)
    cost = cross_entropy(logits, level_of(x0), reduction="none").sum(1)
    shrunk = 1 / (1 + np.exp(2 * high))  # what is left of the image at last
    cost += (shrunk * (x0**2 - 1) - np.log1p(-shrunk)).sum(1) / 2
    for k in range(samples):
        u = (k + torch.rand(len(x0), 1, generator=random)) / samples
        r = torch.exp(low + (high - low) * u)
        x_t = mix(x0, torch.randn(x0.shape, generator=random), r / (1 + r))
        off = (model(x_t, r / (1 + r), ask) - x0) ** 2 / r**2
        cost += (high - low) / samples * off.sum(1)
    return -cost.double().numpy()


# --8<-- [end:log_prob]


def bits(model: nn.Module, x: Array, *, samples: int) -> float:
    return sample_quality.bits_per_dim(log_prob(model, x, samples=samples))


def trained(x: Array, y: Array, **settings) -> tuple[nn.Module, float]:
    """A model, and the processor's seconds that its training took."""
    start = time.process_time()
    return train(x, y, **settings), time.process_time() - start


def row(model: nn.Module, *, draws=1440, seed=0, guidance=1.0) -> dict[str, float]:
    """What the kit says of draws with the classes in turn."""
    labels, start = np.arange(draws) % 10, time.process_time()
    fake = sample(model, labels, seed=seed, guidance=guidance)
    seconds = time.process_time() - start
    return sample_quality.assess(fake, labels=labels) | {"draw_seconds": seconds}


def baselines(x: Array, y: Array, *, draws: int) -> dict[str, dict[str, float]]:
    """Four Gaussians for each class, and training images drawn again."""
    random, labels = np.random.default_rng(0), np.arange(draws) % 10
    mixtures, copies = np.empty((draws, 64)), np.empty((draws, 64))
    for label in range(10):
        own, count = x[y == label], (labels == label).sum()
        fit = GaussianMixture(4, reg_covar=5e-3, random_state=0).fit(own)
        mixtures[labels == label] = random.permutation(fit.sample(count)[0])
        copies[labels == label] = own[random.integers(len(own), size=count)]
    both = {"mixtures": mixtures, "copies": copies}
    return {name: sample_quality.assess(fake, labels=labels) for name, fake in both.items()}


def study(*, seeds: int = 3, steps: int = 2400, draws: int = 1440, samples: int = 100) -> dict:
    """Contest, textbook's loss, guidance, length of training, few images; baselines."""
    x, y, new, _ = digits.load_split(seed=0)
    contest, textbook = [], []
    for seed in range(seeds):
        model, seconds = trained(x, y, steps=steps, seed=seed)
        size = sum(weights.numel() for weights in model.parameters())
        contest.append(row(model, draws=draws, seed=seed) | {
            "bits": bits(model, new, samples=samples),
            "bits_train": bits(model, x[:360], samples=samples),
            "seconds": seconds, "parameters": size})  # fmt: skip
        if seed == 0:
            louder = {f"guidance_{w}": row(model, draws=draws, guidance=w) for w in (2, 3, 5)}
    for seed in range(min(seeds, 2)):
        plain, seconds = trained(x, y, steps=steps, seed=seed, kind=Plain)
        textbook.append(row(plain, draws=draws, seed=seed) | {"seconds": seconds})
    table = {"contest": sample_quality.spread(contest), "textbook": sample_quality.spread(textbook)}
    few = [np.flatnonzero(y == label)[:10] for label in range(10)]
    parts = {"quarter": (x, y, steps // 4), "half": (x, y, steps // 2),
             "few": (x[np.ravel(few)], y[np.ravel(few)], steps // 2)}  # fmt: skip
    for name, (some, labels, count) in parts.items():
        model = train(some, labels, steps=count)
        table[name] = row(model, draws=draws) | {
            "bits": bits(model, new, samples=samples),
            "bits_train": bits(model, some[:360], samples=samples)}  # fmt: skip
    table |= louder | baselines(x, y, draws=draws)
    return report(table)


NAMES = {
    "contest": "this page's model", "textbook": "velocity, squares",
    "guidance_2": "guidance 2", "guidance_3": "guidance 3", "guidance_5": "guidance 5",
    "quarter": "a quarter as long", "half": "half as long", "few": "100 images only",
    "mixtures": "Gaussian mixtures", "copies": "training images",
}  # fmt: skip


def report(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Print the rows; the first two with their spread below."""
    columns = "fd", "auc", "precision", "recall", "tstr", "agreement", "copying", "bits"
    heads = "FD", "AUC", "prec.", "recall", "TSTR", "agree", "copy", "bits"
    print(f"{'':<18}" + "".join(f"{head:>7}" for head in heads))
    for name, shown in NAMES.items():
        found = table[name]
        cells = (f"{found[c]:>7.2f}" if c in found else f"{'-':>7}" for c in columns)
        print(f"{shown:<18}" + "".join(cells))
        if "fd_sd" in found:
            cells = (f" ±{found[c + '_sd']:.3f}" if c in found else "" for c in columns)
            print(f"{'':<18}" + "".join(cells))
    return table
