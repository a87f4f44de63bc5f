"""A variational autoencoder: a short, noisy code for each image, and a density over images."""

# --8<-- [start:imports]
from math import lgamma
from time import process_time

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from snippets.shared import digits, sample_quality

Array = np.ndarray
# --8<-- [end:imports]


# --8<-- [start:model]
class VAE(nn.Module):
    """An encoder and a decoder of three layers; a code is `size` numbers.

    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014.
    """

    def __init__(self, size: int = 8):
        super().__init__()
        self.size = size
        self.encoder = three_layers(64, 2 * size)
        self.decoder = three_layers(size, 64)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|x) = N(mu, exp(log_var)): two tensors (batch, size)."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return mu, log_var


def three_layers(inputs, outputs, *, width=256):
    first, second = nn.Linear(inputs, width), nn.Linear(width, width)
    last = nn.Linear(width, outputs)
    return nn.Sequential(first, nn.GELU(), second, nn.GELU(), last)


# --8<-- [end:model]
# --8<-- [start:terms]
def draw_code(mu: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    """z ~ q(z|x), written as a formula that gradients can pass through."""
    return mu + torch.exp(log_var / 2) * noise  # half the log is the root


def kl_to_prior(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, 1)) for each number of the code: (batch, size)."""
    return (mu**2 + log_var.exp() - 1 - log_var) / 2


def log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x|z) for each pixel: k = 16 x drops of ink, Binomial of 16."""
    k = 16 * x
    ways = lgamma(17) - torch.lgamma(k + 1) - torch.lgamma(17 - k)
    return ways + k * logits - 16 * nn.functional.softplus(logits)


# --8<-- [end:terms]
# --8<-- [start:prices]
def as_pixels(x: Array) -> Tensor:
    x = digits.check_images(x)
    if len(x) == 0:
        raise ValueError("expected at least one image")
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected ink in [0, 1]: divide by 16, fill in NaN")
    return torch.tensor(x, dtype=torch.float32)


def prices(model: VAE, x: Tensor, *, free=0.0) -> tuple[Tensor, Tensor]:
    """Nats for pixels and nats for codes: summed, then the mean of images."""
    mu, log_var = model.posterior(x)
    z = draw_code(mu, log_var, torch.randn_like(mu))
    pixels = -log_likelihood(x, model.decoder(z)).sum(dim=1).mean()
    codes = kl_to_prior(mu, log_var).mean(dim=0)  # (size,)
    return pixels, codes.clamp(min=free).sum()  # up to `free` costs the same


# --8<-- [end:prices]
# --8<-- [start:train]
def train(
    x: Array, *, size=8, steps=1500, batch=64, rate=3e-3,
    warm_up=500, beta=1.0, free=0.0, seed=0,
) -> VAE:  # fmt: skip
    """Lower both prices of images (n, 64) in [0, 1]: that raises the ELBO.

    Codes cost 0 times their KL at first and beta times after `warm_up` steps.
    """
    x = as_pixels(x)
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model, history = VAE(size), []
        adam = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
        pace = OneCycleLR(adam, rate, total_steps=steps, pct_start=0.06)
        for step in range(1, steps + 1):
            some = x[torch.randint(len(x), (batch,))]  # (batch, 64)
            weight = beta * min(1.0, step / max(warm_up, 1))
            pixels, codes = prices(model, some, free=free)
            adam.zero_grad()
            (pixels + weight * codes).backward()
            adam.step()
            pace.step()
            history.append((pixels.item(), codes.item(), weight))
    model.history = np.array(history)  # (steps, 3)
    return model


# --8<-- [end:train]
# --8<-- [start:verbs]
@torch.no_grad()
def encode(model: VAE, x: Array) -> Array:
    """The mean codes of images (n, 64): an array (n, size)."""
    return model.posterior(as_pixels(x))[0].double().numpy()


@torch.no_grad()
def decode(model: VAE, z: Array) -> Array:
    """The mean images of codes (n, size): an array (n, 64) in [0, 1]."""
    z = torch.as_tensor(np.asarray(z), dtype=torch.float32)
    if z.shape[1:] != (model.size,):
        raise ValueError(f"expected codes (n, {model.size}), got {z.shape}")
    return torch.sigmoid(model.decoder(z)).double().numpy()


def reconstruct(model: VAE, x: Array) -> Array:
    """Through the code and back, without noise: (n, 64) in [0, 1]."""
    return decode(model, encode(model, x))


def sample(model: VAE, n: int, *, seed: int = 0) -> Array:
    """New images: z ~ N(0, I), then x ~ p(x|z): (n, 64) in sixteenths."""
    random = np.random.default_rng(seed)
    z = random.standard_normal((n, model.size))
    return random.binomial(16, decode(model, z)) / 16


# --8<-- [end:verbs]
# --8<-- [start:log_weights]
@torch.no_grad()
def log_weights(model: VAE, x: Array, *, samples: int, seed: int) -> Array:
    """log p(x, z) - log q(z|x) for codes z ~ q(z|x): (samples, n), nats."""
    x = as_pixels(x)
    if not torch.equal(16 * x, (16 * x).round()):
        raise ValueError("expected pixels in sixteenths: round them first")
    mu, log_var = model.posterior(x)
    random, rows = torch.Generator().manual_seed(seed), []
    for _ in range(samples):
        noise = torch.randn(mu.shape, generator=random)
        z = draw_code(mu, log_var, noise)  # (n, size)
        code = (noise**2 + log_var - z**2).sum(dim=1) / 2  # log p(z)/q(z|x)
        rows.append(log_likelihood(x, model.decoder(z)).sum(dim=1) + code)
    return torch.stack(rows).double().numpy()


# --8<-- [end:log_weights]
# --8<-- [start:bounds]
def elbo(model: VAE, x: Array, *, samples=100, seed=0) -> Array:
    """Mean of the log weights: a lower bound on log p(x), (n,) nats."""
    return log_weights(model, x, samples=samples, seed=seed).mean(axis=0)


def log_prob(model: VAE, x: Array, *, samples=100, seed=0) -> Array:
    """Log of the mean weight: still a lower bound, but higher, (n,) nats.

    Source: Burda et al., "Importance Weighted Autoencoders", ICLR 2016.
    """
    weights = log_weights(model, x, samples=samples, seed=seed)
    return logsumexp(weights, axis=0) - np.log(samples)


@torch.no_grad()
def kl_per_number(model: VAE, x: Array) -> Array:
    """What each number of the code says about images, in nats: (size,)."""
    kl = kl_to_prior(*model.posterior(as_pixels(x)))
    return kl.mean(dim=0).double().numpy()


# --8<-- [end:bounds]
# --8<-- [start:classes]
def fit_classes(model: VAE, x: Array, y: Array) -> list[GaussianMixture]:
    """The codes of each class, 0 to 9, as a mixture of four Gaussians."""
    filed, classes = encode(model, x), range(10)
    return [GaussianMixture(4, reg_covar=0.01, random_state=0)
            .fit(filed[y == label]) for label in classes]


def draw_classes(model: VAE, fits: list, n: int, *, seed=0) -> Array:
    """Images of 0, 1, ... 9, 0, ...: a code of the class, then the ink.

    n: a multiple of ten. Returns (n, 64) in sixteenths.
    """
    if n % len(fits):
        raise ValueError(f"expected a multiple of {len(fits)}, got {n}")
    random, codes = np.random.default_rng(seed), []
    for fit in fits:
        z, _ = fit.set_params(random_state=seed).sample(n // len(fits))
        codes.append(random.permutation(z))  # it sorts them by Gaussian
    z = np.stack(codes, axis=1).reshape(n, model.size)
    return random.binomial(16, decode(model, z)) / 16


# --8<-- [end:classes]
# --8<-- [start:posterior_mean]
def posterior_mean(y: Array, groups: list[Array], *, sigma: float) -> Array:
    """E[x|y] for y = x + N(0, sigma²), if each group of x is a Gaussian.

    y: (n, 64). One group (m, 64) is the Wiener filter; ten are a mixture.
    """
    means, scores = [], []
    for x in groups:
        centre, cov = x.mean(axis=0), np.cov(x.T, bias=True)
        cov += 0.005 * np.eye(64)  # a group is few images for 64 pixels
        noisy = cov + sigma**2 * np.eye(64)
        pull = np.linalg.solve(noisy, (y - centre).T).T  # (n, 64)
        means.append(centre + pull @ cov)
        far = ((y - centre) * pull).sum(axis=1) + np.linalg.slogdet(noisy)[1]
        scores.append(np.log(len(x)) - far / 2)
    return np.einsum("gn,gnd->nd", softmax(scores, axis=0), means)


# --8<-- [end:posterior_mean]


def histogram_log_prob(groups: list[Array], x: Array) -> Array:
    """log p(x) in nats, (n,), if the pixels of each group are independent 17-bin histograms.

    One group: a histogram for each pixel. Ten classes: naive Bayes, used as a density.
    """
    scores = []
    for group in groups:
        counts = 0.2 + np.array([(16 * group == k).sum(axis=0) for k in range(17)])  # (17, 64)
        log_p = np.log(counts / counts.sum(axis=0))[(16 * x).astype(int), np.arange(64)]
        scores.append(np.log(len(group)) + log_p.sum(axis=1))
    return logsumexp(scores, axis=0) - np.log(sum(map(len, groups)))


def score(model: VAE, x: Array, new: Array) -> dict:
    """Both bounds in bits per pixel, the error beside PCA's, and how many numbers are in use."""
    pca = PCA(model.size).fit(x)
    return {
        "elbo": sample_quality.bits_per_dim(elbo(model, new)),
        "iwae": sample_quality.bits_per_dim(log_prob(model, new)),
        "mse": np.mean((reconstruct(model, new) - new) ** 2),
        "pca": np.mean((pca.inverse_transform(pca.transform(new)) - new) ** 2),
        "used": (kl_per_number(model, new) > 0.05).sum(),
    }


def sampled(model: VAE, classes: list[Array], new: Array) -> dict:
    """Forest AUC for each kind of sample, as many as new images; two kinds need no network."""
    random, n = np.random.default_rng(0), len(new) // 10

    def mixtures(groups, ridge):
        fits = [GaussianMixture(4, reg_covar=ridge, random_state=0).fit(x) for x in groups]
        return np.vstack([fit.sample(n)[0] for fit in fits])

    prior = decode(model, random.standard_normal((10 * n, model.size)))
    mixture = decode(model, mixtures([encode(model, x) for x in classes], 0.01))
    kinds = {
        "prior_mean": prior,
        "prior_drawn": random.binomial(16, prior) / 16,
        "mixture_mean": mixture,
        "mixture_drawn": random.binomial(16, mixture) / 16,
        "pixel_mixture": mixtures(classes, 0.005).clip(0, 1),
        "copies": np.vstack([x[:n] for x in classes]),
    }
    auc, rounded = sample_quality.two_sample_auc, sample_quality.rounded
    return {kind: auc(rounded(x), new) for kind, x in kinds.items()}


def contest(*, seeds: int, steps: int, n: int) -> dict[str, list[dict]]:
    """n images of both ways to draw, judged on the split of seed 0; a row for each model seed.

    bits are those of the network with its prior N(0, I); parameters those of the network.
    """
    x, y, new, _ = digits.load_split(seed=0)
    rows: dict[str, list[dict]] = {"contest": [], "contest_prior": []}
    for seed in range(seeds):
        start = process_time()
        model = train(x, steps=steps, seed=seed)
        trained = process_time()
        fits = fit_classes(model, x, y)
        fitted = process_time()
        asked = draw_classes(model, fits, n, seed=seed)
        drawn = process_time()
        free = sample(model, n, seed=seed)
        ended = process_time()
        same = {
            "bits": sample_quality.bits_per_dim(log_prob(model, new)),
            "parameters": sum(weights.numel() for weights in model.parameters()),
        }
        judged = sample_quality.assess(asked, labels=np.arange(n) % 10)
        cost = {"seconds": fitted - start, "draw_seconds": drawn - fitted}
        rows["contest"].append({**judged, **same, **cost})
        cost = {"seconds": trained - start, "draw_seconds": ended - drawn}
        rows["contest_prior"].append({**sample_quality.assess(free), **same, **cost})
    return rows


VARIANTS = {
    "size_2": {"size": 2},
    "size_8": {},
    "size_16": {"size": 16},
    "no_warm_up": {"warm_up": 0},
    "beta_4": {"beta": 4.0, "warm_up": 0},
    "beta_4_slow": {"beta": 4.0, "warm_up": 1000},
    "beta_4_free": {"beta": 4.0, "warm_up": 0, "free": 1.0},
}


def study(*, seeds: int = 5, steps: int = 1500, judged: int = 3, n: int = 1440) -> dict:
    """Variants, baselines and ways to sample; each seed is a split and a training run.

    Then n images of each of `judged` models, by the kit that is the same for every generator.
    """
    runs: dict[str, list[dict]] = {}
    for seed in range(seeds):
        x, y, new, _ = digits.load_split(seed=seed)
        classes = [x[y == label] for label in range(10)]
        found = {name: sample_quality.bits_per_dim(histogram_log_prob(groups, new))
                 for name, groups in (("histogram", [x]), ("naive_bayes", classes))}  # fmt: skip
        runs.setdefault("baselines", []).append({"uniform": np.log2(17), **found})
        for name, settings in VARIANTS.items():
            model = train(x, steps=steps, seed=seed, **settings)
            runs.setdefault(name, []).append(score(model, x, new))
            if name == "size_8":
                runs.setdefault("samples", []).append(sampled(model, classes, new))
    table, entries = report(runs), contest(seeds=judged, steps=steps, n=n)
    table |= {name: sample_quality.spread(rows) for name, rows in entries.items()}
    print("\njudged        FD          precision   recall      AUC         TSTR")
    for name, title in (("contest", "mixture drawn"), ("contest_prior", "prior drawn")):
        row = table[name]
        columns = [k for k in ("fd", "precision", "recall", "auc", "tstr") if k in row]
        cells = " ".join(f"{row[k]:.2f} ± {row[f'{k}_sd']:.2f}" for k in columns)
        print(f"{title:<14}{cells}")
    return table


def report(runs: dict[str, list[dict]]) -> dict:
    """Print mean ± standard deviation over seeds; return both, by row and column."""
    table = {name: {} for name in runs}
    for name, rows in runs.items():
        for key in rows[0]:
            values = [row[key] for row in rows]
            table[name][key] = float(np.mean(values))
            table[name][f"{key}_sd"] = float(np.std(values, ddof=min(1, len(rows) - 1)))
    shown = "elbo", "iwae", "mse", "pca"
    print("              bits per pixel               squared error                  in")
    print("              ELBO          IWAE-100       VAE            PCA             use")
    for name in VARIANTS:
        cells = (f"{table[name][k]:.{d}f} ± {table[name][k + '_sd']:.{d}f}"
                 for k, d in zip(shown, (2, 2, 4, 4)))  # fmt: skip
        print(f"{name.replace('_', ' '):<14}" + "  ".join(cells) + f"{table[name]['used']:>5.1f}")
    for title, part in (("bits per pixel", "baselines"), ("forest AUC", "samples")):
        print(f"\n{title}")
        for key in runs[part][0]:
            mean, sd = table[part][key], table[part][f"{key}_sd"]
            print(f"{key.replace('_', ' '):<14}{mean:.2f} ± {sd:.2f}")
    return table
