"""A variational autoencoder: a short, noisy code for each image, and a density over images."""

# --8<-- [start:imports]
from math import lgamma

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import logsumexp, softmax
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from snippets.shared import digits, plots

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
        pace = OneCycleLR(adam, rate, total_steps=steps, pct_start=0.05)
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
# --8<-- [start:check]
def as_pixels(x: Array) -> Tensor:
    x = digits.check_images(x)
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("expected pixels in [0, 1]: divide by 16, fill NaN")
    return torch.tensor(x, dtype=torch.float32)


# --8<-- [end:check]
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
        prior = (noise**2 + log_var - z**2).sum(dim=1) / 2  # log p(z) / q(z|x)
        rows.append(log_likelihood(x, model.decoder(z)).sum(dim=1) + prior)
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


# --8<-- [end:bounds]
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
        counts = 0.3 + np.array([(16 * group == k).sum(axis=0) for k in range(17)])  # (17, 64)
        log_p = np.log(counts / counts.sum(axis=0))[(16 * x).astype(int), np.arange(64)]
        scores.append(np.log(len(group)) + log_p.sum(axis=1))
    return logsumexp(scores, axis=0) - np.log(sum(map(len, groups)))


def forest_auc(fake: Array, real: Array) -> float:
    """How well a random forest tells unseen fakes from real images: 0.5 is not at all."""
    x, y = np.vstack([fake, real]), np.repeat([0, 1], [len(fake), len(real)])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    forest = RandomForestClassifier(100, random_state=0)
    says = cross_val_predict(forest, x, y, cv=folds, method="predict_proba")
    return float(roc_auc_score(y, says[:, 1]))
