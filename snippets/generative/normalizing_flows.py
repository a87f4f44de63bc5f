"""A normalizing flow: a Gaussian bent into digits by steps that can be undone, so p(x) is known."""

# --8<-- [start:imports]
from copy import deepcopy
from math import log, pi
from time import process_time

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from snippets.shared import digits, sample_quality

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:coupling]
class Coupling(nn.Module):
    """The half that `keep` marks stays and says how the other half moves.

    Source: Dinh et al., "Density estimation using Real NVP", ICLR 2017.
    """

    def __init__(self, keep: Tensor, *, width: int, drop: float):
        super().__init__()
        self.register_buffer("keep", keep.float())
        self.net = network(len(keep), width, drop)

    def stretch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log s, never beyond ±2, and t; both 0 for the half that stays."""
        raw, t = self.net(x * self.keep).chunk(2, dim=1)
        moves = 1 - self.keep
        return 2 * torch.tanh(raw / 2) * moves, t * moves

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_s, t = self.stretch(x)
        return x * log_s.exp() + t, log_s.sum(dim=1)

    def inverse(self, z: Tensor) -> Tensor:
        log_s, t = self.stretch(z)
        return (z - t) * (-log_s).exp()


# --8<-- [end:coupling]
# --8<-- [start:flow]
class Flow(nn.Module):
    """Layers that can be undone, from x to z ~ N(0, I) and back."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z (n, dims) and log |det dz/dx| (n,)."""
        total = torch.zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) = log N(z; 0, I) + log |det dz/dx|: (n,) nats."""
        z, log_det = self(x)
        return log_det - (z**2 + log(2 * pi)).sum(dim=1) / 2


# --8<-- [end:flow]
# --8<-- [start:couplings]
def network(dims: int, width: int, drop: float) -> nn.Sequential:
    """Two answers for each number; zero at first, so that nothing moves."""
    first, second = nn.Linear(dims, width), nn.Linear(width, width)
    last = nn.Linear(width, 2 * dims)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    bend, lose = nn.GELU(), nn.Dropout(drop)
    return nn.Sequential(first, bend, lose, second, bend, lose, last)


def couplings(dims: int, *, layers: int, width: int, drop: float) -> list:
    """Pairs of couplings: what the first keeps, the second moves."""
    made = []
    for _ in range(layers // 2):
        keep = torch.randperm(dims) < dims // 2
        for half in (keep, ~keep):
            made.append(Coupling(half, width=width, drop=drop))
    return made


# --8<-- [end:couplings]
# --8<-- [start:fit]
def fit(flow: Flow, x: Tensor, *, noise, steps, batch, rate) -> Flow:
    """Raise the mean log density of x (n, dims) plus noise in [0, noise)."""
    adam = torch.optim.AdamW(flow.parameters(), rate, weight_decay=1e-4)
    pace = OneCycleLR(adam, rate, total_steps=steps, pct_start=0.1)
    flow.history = []
    for _ in range(steps):
        some = x[torch.randint(len(x), (batch,))]
        some = some + noise * torch.rand_like(some)
        loss = -flow.log_density(some).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 50.0)
        adam.step()
        pace.step()
        flow.history.append(loss.item())
    return flow.eval().double()  # the way back is exact to many digits


# --8<-- [end:fit]
# --8<-- [start:points]
def train_points(
    x: Array, *, layers=8, width=64, steps=500, batch=128, rate=5e-3, seed=0,
) -> Flow:  # fmt: skip
    """A flow of points (n, dims) about 1 in size."""
    x = torch.tensor(np.asarray(x), dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        learned = couplings(x.shape[1], layers=layers, width=width, drop=0)
        return fit(Flow(*learned), x, noise=0, steps=steps, batch=batch,
                   rate=rate)  # fmt: skip


# --8<-- [end:points]
# --8<-- [start:histogram]
class Histogram(nn.Module):
    """Each pixel's own distribution becomes N(0, 1); v is ink in [0, 17)."""

    def __init__(self, k: Tensor, *, floor: float):
        super().__init__()
        counts = [(k == ink).sum(dim=0) + floor for ink in range(17)]
        share = torch.stack(counts, dim=1)  # (64, 17)
        share = (share / share.sum(dim=1, keepdim=True)).cumsum(dim=1)
        edges = nn.functional.pad(share, (1, 0))  # (64, 18), from 0 to 1
        self.register_buffer("edges", edges)
        self.register_buffer("share", edges.diff(dim=1))

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        cell = v.floor().clamp(0, 16).long()
        p = self.share.gather(1, cell.T).T  # (n, 64)
        below = self.edges.gather(1, cell.T).T + p * (v - cell)
        end = torch.finfo(v.dtype).eps  # at 0 and 1 y would be infinite
        y = torch.special.ndtri(below.clamp(end, 1 - end))
        bell = -(y**2 + log(2 * pi)) / 2  # log N(y; 0, 1)
        return y, (p.log() - bell).sum(dim=1)  # dy/dv = p / N(y; 0, 1)

    def inverse(self, y: Tensor) -> Tensor:
        below = torch.special.ndtr(y)
        cell = (below[..., None] >= self.edges[:, 1:-1]).sum(dim=2)
        rest = below - self.edges.gather(1, cell.T).T
        return cell + rest / self.share.gather(1, cell.T).T


# --8<-- [end:histogram]
# --8<-- [start:train]
def as_ink(x: Array) -> Tensor:
    x = digits.check_images(x)
    if len(x) == 0:
        raise ValueError("expected at least one image")
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected ink in [0, 1]: divide by 16, fill in NaN")
    if not np.array_equal(16 * x, np.round(16 * x)):
        raise ValueError("expected pixels in sixteenths: round them first")
    return torch.tensor(16 * x)


def train(
    x: Array, *, layers=8, width=128, drop=0.2, steps=800, batch=64,
    rate=4e-3, floor=0.1, seed=0,
) -> Flow:  # fmt: skip
    """A flow of images (n, 64) in sixteenths: histograms, then couplings."""
    k = as_ink(x).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learned = couplings(64, layers=layers, width=width, drop=drop)
        flow = Flow(Histogram(k, floor=floor), *learned)
        return fit(flow, k, noise=1, steps=steps, batch=batch, rate=rate)


# --8<-- [end:train]
# --8<-- [start:log_prob]
def with_noise(k: Tensor, random: torch.Generator) -> Tensor:
    return k + torch.rand(k.shape, generator=random, dtype=k.dtype)


@torch.no_grad()
def log_prob(model: Flow, x: Array, *, samples=64, seed=0) -> Array:
    """log P(x) of images (n, 64) in sixteenths, estimated: (n,) nats.

    P is the mean density of the image's cell, over `samples` draws of noise.
    Its log is a lower bound in expectation, and rises with more draws.
    """
    k, random = as_ink(x), torch.Generator().manual_seed(seed)
    rows = [model.log_density(with_noise(k, random)) for _ in range(samples)]
    return logsumexp(torch.stack(rows).numpy(), axis=0) - np.log(samples)


# --8<-- [end:log_prob]
# --8<-- [start:verbs]
@torch.no_grad()
def encode(model: Flow, x: Array, *, seed: int = 0) -> Array:
    """z (n, 64) of images (n, 64); about N(0, I) if they are digits."""
    k, random = as_ink(x), torch.Generator().manual_seed(seed)
    return model(with_noise(k, random))[0].numpy()


@torch.no_grad()
def decode(model: Flow, z: Array) -> Array:
    """The way back: images (n, 64) in sixteenths from z (n, 64)."""
    z = torch.tensor(np.asarray(z), dtype=torch.float64)
    if z.ndim != 2 or z.shape[1] != 64:
        raise ValueError(f"expected codes of 64 numbers, got {z.shape[-1]}")
    return (model.inverse(z).floor().clamp(0, 16) / 16).numpy()


def sample(model: Flow, n: int, *, seed: int = 0) -> Array:
    """New images: z ~ N(0, I), then back. (n, 64) in sixteenths."""
    random = np.random.default_rng(seed)
    return decode(model, random.standard_normal((n, 64)))


# --8<-- [end:verbs]
# --8<-- [start:sampler]
class Sampler(nn.Module):
    """`decode` as a network in single precision, to be exported."""

    def __init__(self, model: Flow):
        super().__init__()
        self.model = deepcopy(model).float()

    def forward(self, z: Tensor) -> Tensor:
        return self.model.inverse(z).floor().clamp(0, 16) / 16


# --8<-- [end:sampler]
# --8<-- [start:alarms]
def auroc(usual: Array, odd: Array) -> float:
    """How often a usual score is above an odd one: 1 always, 0.5 chance."""
    named = np.repeat([1, 0], [len(usual), len(odd)])
    return float(roc_auc_score(named, np.concatenate([usual, odd])))


def nearness(x: Array, known: Array) -> Array:
    """Minus the mean distance to the five nearest known images: (n,)."""
    return -np.sort(cdist(x, known), axis=1)[:, :5].mean(axis=1)


# --8<-- [end:alarms]


def strange(x: Array, *, seed: int = 0) -> dict[str, Array]:
    """Images that are no digits any more, made from digits (n, 64): name to (n, 64)."""
    random, pictures = np.random.default_rng(seed), x.reshape(-1, 8, 8)
    erased = pictures.copy()
    erased[:, :, 4:] = 0
    blurred = np.round(16 * gaussian_filter(pictures, (0, 0.7, 0.7))) / 16
    return {
        "noise": random.integers(0, 17, x.shape) / 16,
        "inverted": 1 - x,
        "blank": np.zeros((1, 64)),
        "pixels_swapped": random.permuted(x, axis=0),
        "blurred": blurred.reshape(-1, 64),
        "mirrored": pictures[:, :, ::-1].reshape(-1, 64),
        "half_erased": erased.reshape(-1, 64),
    }


def alarms(model: Flow, x: Array, new: Array, odd: dict[str, Array]) -> dict[str, float]:
    """AUROC of three scores for each kind of odd images, against the new ones (n, 64)."""
    alone, found = Flow(model.layers[0]), {}
    scores = {
        "flow": lambda some: log_prob(model, some),
        "histogram": lambda some: log_prob(alone, some, samples=1),
        "neighbours": lambda some: nearness(some, x),
    }
    for score, of in scores.items():
        usual = of(new)
        found |= {f"{kind}_{score}": auroc(usual, of(images)) for kind, images in odd.items()}
    return found


def contest(model: Flow, seconds: float, new: Array, *, n: int) -> dict[str, float]:
    """One row of the section's contest: n images, judged; bits of the new ones; costs."""
    start = process_time()
    drawn = sample(model, n)
    return {
        "draw_seconds": process_time() - start,
        **sample_quality.assess(drawn),
        "bits": sample_quality.bits_per_dim(log_prob(model, new)),
        "seconds": seconds,
        "parameters": sum(weights.numel() for weights in model.parameters()),
    }


def study(*, seeds: int = 3, steps: int = 800, n: int = 1440) -> dict:
    """Density, samples and alarms over model seeds, on the split of seed 0."""
    x, y, new, y_new = digits.load_split(seed=0)
    runs: dict[str, list] = {"contest": [], "bits": [], "alarms": []}
    for seed in range(seeds):
        start = process_time()
        model = train(x, steps=steps, seed=seed)
        row = contest(model, process_time() - start, new, n=n)
        bare = train(x, steps=steps, seed=seed, floor=1e6)  # all inks alike: no histogram
        no_ones = train(x[y != 1], steps=steps, seed=seed)
        runs["contest"].append(row)
        alone, one = bits(Flow(model.layers[0]), new, samples=1), bits(model, new, samples=1)
        runs["bits"].append({
            "histogram": alone, "no_histogram": bits(bare, new), "one_draw": one,
            "flow": row["bits"], "gain": alone - row["bits"], "slack": one - row["bits"],
            "train": bits(model, x[:360]),
        })  # fmt: skip
        held_out = alarms(no_ones, x[y != 1], new[y_new != 1], {"ones": new[y_new == 1]})
        bland = {"bland": decode(model, np.random.default_rng(1).normal(0, 0.5, (360, 64)))}
        runs["alarms"].append(alarms(model, x, new, strange(new) | bland) | held_out)
    return report({name: sample_quality.spread(rows) for name, rows in runs.items()})


def bits(model: Flow, x: Array, *, samples: int = 64) -> float:
    return sample_quality.bits_per_dim(log_prob(model, x, samples=samples))


def report(table: dict[str, dict]) -> dict:
    """Print mean ± standard deviation over seeds, and return the table."""

    def cell(part, key):
        return f"{table[part][key]:>6.2f} ± {table[part][key + '_sd']:.2f}"

    print("bits per pixel, test images")
    for key, words in (
        ("histogram", "histogram alone"), ("no_histogram", "couplings alone"),
        ("one_draw", "both, one draw of noise"), ("flow", "both, 64 draws of noise"),
        ("train", "the same, training images"),
    ):  # fmt: skip
        print(f"{words:<28}{cell('bits', key)}")
    print("\nsamples, judged")
    for key in ("fd", "precision", "recall", "auc", "copying"):
        print(f"{key:<28}{cell('contest', key)}")
    print(f"\n{'AUROC as an alarm':<22}{'flow':>13}{'histogram':>15}{'neighbours':>15}")
    for key in table["alarms"]:
        if key.endswith("_flow"):
            kind = key.removesuffix("_flow")
            cells = [cell("alarms", f"{kind}_{s}") for s in ("flow", "histogram", "neighbours")]
            print(f"{kind.replace('_', ' '):<20}" + "  ".join(f"{c:>13}" for c in cells))
    return table
