"""A generative adversarial network: one draws, one tells drawn from real."""

# --8<-- [start:imports]
from collections.abc import Callable
from copy import deepcopy
from time import process_time

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from snippets.shared import digits, sample_quality

Array = np.ndarray
Loss = Callable[[Tensor, Tensor], Tensor]
# --8<-- [end:imports]


# --8<-- [start:generator]
class Generator(nn.Module):
    """Noise z (batch, size) and a class y, one-hot, to (batch, outputs)."""

    def __init__(self, size: int, classes: int, outputs: int, *, width=256):
        super().__init__()
        self.size, self.classes = size, classes
        self.layers = three_layers(size + classes, outputs, width, norm=True)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.layers(torch.cat([z, y], dim=1))


# --8<-- [end:generator]
# --8<-- [start:discriminator]
class Discriminator(nn.Module):
    """A score for each x (batch, inputs): high for real. A head a class."""

    def __init__(self, inputs: int, classes: int, *, width=256):
        super().__init__()
        self.heads = three_layers(inputs, classes, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.heads(x) * y).sum(dim=1)  # (batch,): y picks its head


def three_layers(inputs, outputs, width, *, norm=False):
    parts = []
    for before in (inputs, width):
        parts.append(nn.Linear(before, width))
        parts += [nn.LayerNorm(width)] if norm else []
        parts.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*parts, nn.Linear(width, outputs))


# --8<-- [end:discriminator]
# --8<-- [start:ink]
class Pen(Generator):
    """Draws ink (batch, 64) in [0, 1]; quite blank can be reached."""

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = super().forward(z, y)
        return (1.2 * torch.sigmoid(h) - 0.1).clamp(0, 1)


def in_sixteenths(ink: Tensor) -> Tensor:
    """Rounded as real images are. Rounding has no slope: pass it through."""
    return ink + ((16 * ink).round() / 16 - ink).detach()


# --8<-- [end:ink]
# --8<-- [start:losses]
def separate(ours: Tensor, theirs: Tensor) -> Tensor:
    """Each score by itself: ours should be high, theirs low.

    Source: Goodfellow et al., "Generative Adversarial Nets", NIPS 2014.
    """
    return (softplus(-ours) + softplus(theirs)).mean()


def relativistic(ours: Tensor, theirs: Tensor) -> Tensor:
    """Pair by pair: ours should be higher than theirs.

    Source: Jolicoeur-Martineau, arXiv:1807.00734, ICLR 2019.
    """
    return softplus(theirs - ours).mean()


def steepness(scores: Tensor, x: Tensor) -> Tensor:
    """Mean squared slope of the scores (batch,) at x (batch, inputs).

    Source: Mescheder et al., ICML 2018 (R1 on real, R2 on drawn x).
    """
    slope, = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return slope.square().sum(dim=1).mean()


# --8<-- [end:losses]
# --8<-- [start:discriminator_turn]
def discriminator_turn(
    d: Discriminator, adam, real: Tensor, fake: Tensor, y: Tensor,
    loss: Loss, gamma: float,
) -> tuple[float, float]:  # fmt: skip
    """One step of d: its loss, and the share of pairs that it gets right."""
    x = torch.cat([real, fake.detach()]).requires_grad_(gamma > 0)
    scores = d(x, torch.cat([y, y]))
    high, low = scores.chunk(2)
    cost = loss(high, low)
    total = cost + gamma * steepness(scores, x) if gamma else cost
    adam.zero_grad()
    total.backward()
    adam.step()
    return cost.item(), (high > low).float().mean().item()


# --8<-- [end:discriminator_turn]
# --8<-- [start:generator_turn]
def generator_turn(
    d: Discriminator, adam, real: Tensor, fake: Tensor, y: Tensor, loss: Loss
) -> float:
    """One step of g, through d's scores: the same loss, sides swapped."""
    d.requires_grad_(False)  # the slope passes through d, d stays as it is
    cost = loss(d(fake, y), d(real, y))
    adam.zero_grad()
    cost.backward()
    adam.step()
    d.requires_grad_(True)
    return cost.item()


def as_is(x: Tensor) -> Tensor:
    return x


# --8<-- [end:generator_turn]
# --8<-- [start:play]
def play(
    g: Generator, d: Discriminator, x: Tensor, y: Tensor, *, loss: Loss,
    gamma: float, steps: int, batch=64, rate=4e-4, momentum=0.0, keep=0.995,
    show=as_is,
) -> Generator:  # fmt: skip
    """Turn by turn. Returns g with weights averaged over the last turns.

    x: (n, inputs), y: (n, classes) one-hot; d sees show(what g draws).
    The result's `stages` are such averages at ten times of the training.
    """
    adams = [torch.optim.Adam(net.parameters(), lr=rate, fused=True,
                              betas=(momentum, 0.99)) for net in (g, d)]
    mean, history, stages = deepcopy(g), [], {}
    for step in range(1, steps + 1):
        some = torch.randint(len(x), (batch,))
        real, label = x[some], y[some]
        fake = show(g(torch.randn(batch, g.size), label))
        seen = discriminator_turn(d, adams[1], real, fake, label, loss, gamma)
        cost = generator_turn(d, adams[0], real, fake, label, loss)
        average(mean, g, keep=keep)
        history.append((*seen, cost))
        if step % max(1, steps // 10) == 0:
            stages[step] = deepcopy(mean)
    mean.history, mean.stages = np.array(history), stages  # (steps, 3)
    return mean


# --8<-- [end:play]
# --8<-- [start:average]
@torch.no_grad()
def average(mean: nn.Module, now: nn.Module, *, keep: float) -> None:
    """Move each weight of the mean a little towards the one of now."""
    for old, new in zip(mean.parameters(), now.parameters()):
        old.lerp_(new, 1 - keep)


# --8<-- [end:average]
# --8<-- [start:train]
def train(
    x: Array, y: Array, *, size=16, steps=2000,
    loss: Loss = relativistic, gamma=1.0, seed=0,
) -> Pen:  # fmt: skip
    """Learn images (n, 64) in [0, 1] with labels (n,) by playing the game.

    Source: Huang et al., "The GAN is dead; long live the GAN!", 2024.
    """
    x = digits.check_images(x)
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected ink in [0, 1]: divide by 16, fill in NaN")
    labels = torch.tensor(digits.check_labels(y, count=len(x)))
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        classes = one_hot(labels).float()  # (n, 10)
        g = Pen(size, classes.shape[1], 64)
        d = Discriminator(64, classes.shape[1])
        return play(g, d, torch.tensor(x).float(), classes, loss=loss,
                    gamma=gamma, steps=steps, show=in_sixteenths)


# --8<-- [end:train]
# --8<-- [start:sample]
@torch.no_grad()
def sample(model: Pen, labels: Array, *, spread=1.0, seed=0) -> Array:
    """New images of the classes asked for: (n, 64) in sixteenths.

    Noise is drawn with a standard deviation of `spread`.
    """
    labels = np.asarray(labels)
    if not np.isin(labels, range(model.classes)).all() or labels.ndim != 1:
        most = model.classes - 1
        raise ValueError(f"expected labels 0 to {most}, in a row")
    random = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(len(labels), model.size, generator=random)
    y = one_hot(torch.tensor(labels.astype(int)), model.classes).float()
    return sample_quality.rounded(model(z, y).double().numpy())


# --8<-- [end:sample]
# --8<-- [start:ring]
CENTRES = np.array([(np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4])


def draw_ring(n: int, *, seed: int = 0) -> Array:
    """Eight Gaussians of width 0.05 on a circle of radius 1: (n, 2)."""
    random = np.random.default_rng(seed)
    near = CENTRES[random.integers(8, size=n)]
    return near + 0.05 * random.standard_normal((n, 2))


def modes_found(points: Array) -> int:
    """How many of the eight get a tenth of their due, within three widths."""
    far = np.linalg.norm(points[:, None] - CENTRES, axis=2)  # (n, 8)
    hits = (far < 3 * 0.05).sum(axis=0)
    return int((hits >= len(points) / 80).sum())


# --8<-- [end:ring]
# --8<-- [start:train_ring]
def train_ring(
    *, loss: Loss = relativistic, gamma=0.3, steps=1000, momentum=0.5, seed=0
) -> Generator:
    """The same game where one can look: one class, two outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x = torch.tensor(draw_ring(4000, seed=seed)).float()
        g, d = Generator(8, 1, 2, width=64), Discriminator(2, 1, width=64)
        return play(g, d, x, torch.ones(len(x), 1), loss=loss, gamma=gamma,
                    steps=steps, batch=128, rate=1e-3, momentum=momentum,
                    keep=0.0)


@torch.no_grad()
def ring_points(model: Generator, n: int = 1000, *, seed: int = 0) -> Array:
    """Points (n, 2) drawn by a generator of the ring."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(n, model.size, generator=random)
    return model(z, torch.ones(n, 1)).double().numpy()


# --8<-- [end:train_ring]


VARIANTS = {
    "plain": {"loss": separate, "gamma": 0.0},
    "plain + penalty": {"loss": separate},
    "relativistic": {"gamma": 0.0},
    "both": {},
}
RINGS = VARIANTS | {
    "plain, momentum 0": {"loss": separate, "gamma": 0.0, "momentum": 0.0},
    "both, momentum .9": {"momentum": 0.9},
}


def judged(model: Pen) -> dict[str, float]:
    """The kit's measures of 1,440 draws, classes in turn, and what drawing and size cost."""
    labels, start = np.arange(1440) % 10, process_time()
    x = sample(model, labels)
    took = process_time() - start
    size = sum(weights.numel() for weights in model.parameters())
    return {**sample_quality.assess(x, labels=labels), "draw_seconds": took, "parameters": size}


def baselines(x: Array, y: Array) -> dict[str, dict[str, float]]:
    """Without a game: four Gaussians for each class, and training images handed out again."""
    labels, random = np.arange(1440) % 10, np.random.default_rng(0)
    start = process_time()
    fits = [GaussianMixture(4, reg_covar=0.005, random_state=0).fit(x[y == k]) for k in range(10)]
    took = process_time() - start
    drawn = [random.permutation(fit.sample(144)[0]) for fit in fits]
    copies = [x[random.choice(np.flatnonzero(y == k), 144)] for k in range(10)]
    found = {name: np.stack(images, axis=1).reshape(1440, 64)
             for name, images in (("mixture", drawn), ("copies", copies))}  # fmt: skip
    return {
        name: {**sample_quality.assess(images, labels=labels), "seconds": cost}
        for (name, images), cost in zip(found.items(), (took, 0.0))
    }


def study(*, seeds: int = 3, steps: int = 2000, ring_steps: int = 1000, rings: int = 4) -> dict:
    """Digits by two baselines and three recipes, judged; modes of the ring by six recipes."""
    x, y, _, _ = digits.load_split(seed=0)
    table: dict = baselines(x, y)
    for name in ("plain", "plain + penalty", "both"):
        rows = []
        for seed in range(seeds):
            start = process_time()
            model = train(x, y, steps=steps, seed=seed, **VARIANTS[name])
            rows.append({"seconds": process_time() - start, **judged(model)})
        table[name] = sample_quality.spread(rows)
    report(table)
    print("\nmodes of the ring that are found, of 8, seed by seed")
    modes = {}
    for name, recipe in RINGS.items():
        runs = [train_ring(steps=ring_steps, seed=seed, **recipe) for seed in range(rings)]
        modes[key_of(name)] = [modes_found(ring_points(run)) for run in runs]
        print(f"{name:<19}" + "  ".join(map(str, modes[key_of(name)])))
    return {"contest": table.pop("both"), **{key_of(k): v for k, v in table.items()},
            "modes": modes}  # fmt: skip


def key_of(name: str) -> str:
    """A name as prose can quote it: "plain, momentum 0" is plain_momentum_0."""
    return "_".join("".join(c for c in name if c not in ",+.").split())


def report(table: dict[str, dict[str, float]]) -> None:
    """Print a row for each source of images, the main columns with their spread over seeds."""
    shown = ("fd", 2, 12), ("recall", 2, 12), ("auc", 2, 12), ("tstr", 3, 14)
    head = "".join(f"{name:<{width}}" for name, _, width in shown)
    print(f"{'digits':<16}{head}{'prec':<6}copy")
    for name, row in table.items():
        line = f"{name:<16}"
        for key, digit, width in shown:
            sd = f" ± {row[f'{key}_sd']:.{digit}f}" if f"{key}_sd" in row else ""
            line += f"{row[key]:.{digit}f}{sd}".ljust(width)
        print(f"{line}{row['precision']:<6.2f}{row['copying']:.2f}")
