"""Energy-based models: logits of a classifier, read and trained as a density without constant."""

# --8<-- [start:imports]
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from snippets.shared import digits, metrics, sample_quality

Array = np.ndarray
Energy = Callable[[Tensor], Tensor]  # (batch, d) to (batch,), in nats
# --8<-- [end:imports]


# --8<-- [start:walk]
def slope(energy: Energy, x: Tensor) -> Tensor:
    """Which way the energy rises, and how steeply: (batch, d)."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(energy(x).sum(), x)[0]


def walk(energy: Energy, x: Tensor, *, steps: int, step: float) -> Tensor:
    """Langevin: downhill, plus just enough noise to draw from exp(-E).

    Exact only for small steps and long walks. Source: Roberts & Tweedie,
    Bernoulli 2(4), 1996.
    """
    for _ in range(steps):
        noise = torch.randn_like(x)
        x = x - step * slope(energy, x) + (2 * step) ** 0.5 * noise
    return x


# --8<-- [end:walk]
# --8<-- [start:model]
class Classifier(nn.Module):
    """Logits for whitened images z (batch, 64), and a bowl that all share.

    z = (x - mean) / root, so that the training images, with noise of
    `sigma`, have variance 1 in every direction. Source of the reading as
    energy: Grathwohl et al., ICLR 2020.
    """

    def __init__(self, x: Tensor, classes: int, *, sigma, bowl=1.0,
                 width=256):  # fmt: skip
        super().__init__()
        self.sigma, self.bowl = sigma, bowl
        spread = torch.cov(x.T.double()) + sigma**2 * torch.eye(x.shape[1])
        root = torch.linalg.cholesky(spread)
        self.register_buffer("mean", x.mean(dim=0))
        self.register_buffer("root", root.float())
        self.register_buffer("inverse", torch.linalg.inv(root).float())
        first, second = nn.Linear(len(root), width), nn.Linear(width, width)
        last = nn.Linear(width, classes)
        self.net = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)

    def whiten(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.inverse.T

    def forward(self, z: Tensor) -> Tensor:
        bowl = self.bowl * (z**2).sum(dim=1, keepdim=True) / 2
        return self.net(z) - bowl  # (batch, classes)


# --8<-- [end:model]
# --8<-- [start:energy]
def energy(model: Classifier, z: Tensor, y: Tensor | None = None) -> Tensor:
    """E(x), or E(x, y) if labels are given: (batch,), up to one constant."""
    logits = model(z)
    if y is None:
        return -torch.logsumexp(logits, dim=1)
    return -logits[torch.arange(len(y)), y]


# --8<-- [end:energy]
# --8<-- [start:contrast]
def contrast(energy: Energy, real: Tensor, drawn: Tensor) -> Tensor:
    """Its slope in the weights is that of -log p(real), if `drawn` is fair.

    log Z falls away: its slope is the mean slope over the model's draws.
    """
    return energy(real).mean() - energy(drawn).mean()


# --8<-- [end:contrast]
# --8<-- [start:train]
def train(
    x: Array, y: Array, *, weight=1.0, steps=1500, batch=64, rate=1e-3,
    sigma=0.05, moves=5, step=0.03, walkers=1000, fresh=0.02, seed=0,
) -> Classifier:  # fmt: skip
    """Images x (n, 64) in [0, 1], labels y (n,); weight=0: no density."""
    x, y = as_pixels(x), torch.tensor(digits.check_labels(y, count=len(x)))
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model, history = Classifier(x, int(y.max()) + 1, sigma=sigma), []
        adam = torch.optim.Adam(model.parameters(), rate, betas=(0.5, 0.999))
        crowd = torch.randn(walkers, x.shape[1])  # they begin in the bowl
        for k in range(steps):
            adam.param_groups[0]["lr"] = rate * pace(k / steps)
            real, labels = noisy(model, x, y, batch)
            loss = nn.functional.cross_entropy(model(real), labels)
            if weight:
                drawn = go_on(model, crowd, batch, moves, step, fresh)
                gap = contrast(lambda z: energy(model, z), real, drawn)
                loss = loss + weight * gap
                history.append(gap.item())
            adam.zero_grad()
            loss.backward()
            adam.step()
    model.history = np.array(history)  # (steps,) nats
    return model


# --8<-- [end:train]
# --8<-- [start:go_on]
def go_on(model, crowd, batch, moves, step, fresh) -> Tensor:
    """Some of the crowd walk on, in place; a few of them begin afresh."""
    some = torch.randperm(len(crowd))[:batch]
    again = torch.rand(batch, 1) < fresh
    z = torch.where(again, torch.randn(batch, crowd.shape[1]), crowd[some])
    z = walk(lambda z: energy(model, z), z, steps=moves, step=step)
    crowd[some] = z
    return z


def noisy(model, x, y, batch) -> tuple[Tensor, Tensor]:
    """A batch with noise, whitened: a grid of sixteenths has no density."""
    some = torch.randint(len(x), (batch,))
    x = x[some] + model.sigma * torch.randn(batch, x.shape[1])
    return model.whiten(x), y[some]


def pace(done: float) -> float:
    """Share of the rate: up at once, down to nothing in the second half."""
    return min(1.0, 20 * done + 0.02, 2 * (1 - done))


# --8<-- [end:go_on]
# --8<-- [start:verbs]
def as_pixels(x: Array) -> Tensor:
    x = digits.check_images(x)
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected ink in [0, 1]: divide by 16, fill in NaN")
    return torch.tensor(x, dtype=torch.float32)


@torch.no_grad()
def predict_proba(model: Classifier, x: Array) -> Array:
    """p(y|x) for images (n, 64): (n, classes), rows sum to 1."""
    logits = model(model.whiten(as_pixels(x)))
    return torch.softmax(logits.double(), dim=1).numpy()


@torch.no_grad()
def energies(model: Classifier, x: Array) -> Array:
    """E(x) of images (n, 64): (n,) nats. Only differences mean anything."""
    return energy(model, model.whiten(as_pixels(x))).double().numpy()


# --8<-- [end:verbs]
# --8<-- [start:sample]
def sample(model: Classifier, labels: Array, *, steps=200, step=0.03,
           seed=0) -> Array:  # fmt: skip
    """Walk down E(x, y) from the bowl: images (n, 64) in sixteenths.

    labels: (n,), the class that each image should be.
    """
    y = torch.tensor(as_classes(labels, classes=model.net[-1].out_features))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        z = torch.randn(len(y), len(model.mean))
        z = walk(lambda z: energy(model, z, y), z, steps=steps, step=step)
    x = model.mean + z @ model.root.T
    # What was learned is digits with noise. E[x|noisy x] takes it off.
    x = x - model.sigma**2 * slope(
        lambda x: energy(model, model.whiten(x), y), x)  # fmt: skip
    return np.round(16 * x.clip(0, 1).double().numpy()) / 16


def as_classes(labels, *, classes):
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.isin(labels, range(classes)).all():
        raise ValueError(f"expected labels (n,) in 0..{classes - 1}")
    return labels.astype(int)


# --8<-- [end:sample]


def strange(x: Array) -> dict[str, Array]:
    """What is no upright digit, as many as x: noise, inverted digits, digits upside down."""
    noise = np.random.default_rng(0).integers(0, 17, x.shape) / 16
    flipped = x.reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64)
    return {"noise": noise, "inverted": 1 - x, "flipped": flipped}


def alarms(alarm: Callable[[Array], Array], x: Array) -> dict[str, float]:
    """AUROC of an alarm, high for strange images, against images x."""
    found = {}
    for name, odd in strange(x).items():
        truth = np.repeat([1, 0], [len(odd), len(x)])
        found[name] = float(roc_auc_score(truth, np.concatenate([alarm(odd), alarm(x)])))
    return found


def judged(p: Callable[[Array], Array], e: Callable[[Array], Array], draws: Array) -> dict:
    """One row of the table: p(y|x) and E(x) on the test images, draws by the kit."""
    _, _, x, y = digits.load_split(seed=0)
    says = p(x)
    unsure = alarms(lambda x: -p(x).max(axis=1), x)
    return {
        "accuracy": metrics.accuracy(says, y),
        "ece": metrics.expected_calibration_error(says, y),
        **{f"{name}_p": value for name, value in unsure.items()},
        **{f"{name}_e": value for name, value in alarms(e, x).items()},
        **sample_quality.assess(draws, labels=np.arange(len(draws)) % 10),
    }


def network(x: Array, y: Array, *, weight: float, seed: int, steps: int, n: int) -> dict:
    """Train a network and judge it; without the contrast it has no bowl either."""
    start = time.process_time()
    model = train(x, y, weight=weight, steps=steps, seed=seed)
    model.bowl = float(weight > 0)
    trained = time.process_time()
    draws = sample(model, np.arange(n) % 10, seed=seed)
    drawn = time.process_time()
    return {
        **judged(lambda x: predict_proba(model, x), lambda x: energies(model, x), draws),
        "seconds": trained - start,
        "draw_seconds": drawn - trained,
        "parameters": sum(weights.numel() for weights in model.parameters()),
    }


def gaussians(x: Array, y: Array, *, seed: int, n: int) -> dict:
    """The baseline: a Gaussian for each class, whose energy is a quadratic with known constant."""
    fits = [GaussianMixture(1, reg_covar=0.005, random_state=seed + 10 * label)
            .fit(x[y == label]) for label in range(10)]  # fmt: skip

    def joint(x):
        return np.stack([fit.score_samples(x) for fit in fits], axis=1)

    draws = np.stack([fit.sample(n // 10)[0] for fit in fits], axis=1).reshape(-1, 64)
    return judged(lambda x: softmax(joint(x), axis=1), lambda x: -logsumexp(joint(x), axis=1),
                  draws)  # fmt: skip


def study(*, seeds: int = 3, steps: int = 1500, n: int = 1440) -> dict:
    """A usual classifier, the same network as an energy, and Gaussians; seeds on split 0."""
    x, y, _, _ = digits.load_split(seed=0)
    rows = {"plain": [], "energy": [], "gaussians": []}
    for seed in range(seeds):
        for name, weight in (("plain", 0.0), ("energy", 1.0)):
            rows[name].append(network(x, y, weight=weight, seed=seed, steps=steps, n=n))
        rows["gaussians"].append(gaussians(x, y, seed=seed, n=n))
    table = {name: sample_quality.spread(found) for name, found in rows.items()}
    report(table)
    return {"contest": table["energy"], **table}


def report(table: dict[str, dict[str, float]]) -> None:
    """Print mean ± standard deviation over seeds, a line for each measure."""
    lines = {
        "accuracy": ("accuracy", 3), "calibration error": ("ece", 3),
        "AUROC noise, by p": ("noise_p", 3), "  by energy": ("noise_e", 3),
        "AUROC inverted, by p": ("inverted_p", 3), "  by energy ": ("inverted_e", 3),
        "AUROC flipped, by p": ("flipped_p", 3), "  by energy  ": ("flipped_e", 3),
        "Fréchet distance": ("fd", 2), "precision": ("precision", 2), "recall": ("recall", 2),
        "forest AUC": ("auc", 3), "copying": ("copying", 2),
        "trained on draws": ("tstr", 3), "judge agrees": ("agreement", 3),
    }  # fmt: skip
    print(" " * 23 + "".join(f"{name:<16}" for name in table))
    for title, (key, d) in lines.items():
        cells = (f"{row[key]:.{d}f} ± {row[key + '_sd']:.{d}f}" for row in table.values())
        print(f"{title:<23}" + "".join(f"{cell:<16}" for cell in cells).rstrip())
    for name in ("plain", "energy"):
        print(f"{name}: {table[name]['seconds']:.0f} s to train")
