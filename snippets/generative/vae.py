"""A variational autoencoder: a short noisy code for each image, and a density over images."""

# --8<-- [start:imports]
from math import lgamma, log

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.svm import SVC
from torch import Tensor, nn

from snippets.shared.digits import check_images, load_split
from snippets.shared.plots import SERIES, draw_digits, subplots


# --8<-- [end:imports]
# --8<-- [start:model]
class VAE(nn.Module):
    """Both halves of the model; `size` is how many numbers a code has.

    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014.
    """

    def __init__(self, size: int = 8, *, width: int = 256):
        super().__init__()
        self.size = size
        self.encoder = three_layers(64, 2 * size, width)
        self.decoder = three_layers(size, 64, width)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|x) is N(mu, exp(log_var)): two tensors of (batch, size)."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return mu, log_var


def three_layers(inputs, outputs, width):
    return nn.Sequential(
        nn.Linear(inputs, width), nn.GELU(),
        nn.Linear(width, width), nn.GELU(),
        nn.Linear(width, outputs),
    )


# --8<-- [end:model]
# --8<-- [start:terms]
def draw_code(mu: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    """z ~ q(z|x) as a formula in mu and log_var, so gradients reach both."""
    return mu + torch.exp(log_var / 2) * noise  # half: sigma, not sigma²


def kl_to_prior(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, 1)) of each code number, in nats: (batch, size)."""
    return (mu**2 + log_var.exp() - 1 - log_var) / 2


def log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x|z) of each pixel: k = 16 x dots of ink out of 16, Binomial."""
    k = 16 * x
    choose = lgamma(17) - torch.lgamma(k + 1) - torch.lgamma(17 - k)
    return choose + k * logits - 16 * nn.functional.softplus(logits)


# --8<-- [end:terms]
# --8<-- [start:train]
def train(
    x: np.ndarray, *, size=8, iterations=1500, batch=64, rate=3e-3,
    warm_up=500, beta=1.0, free_nats=0.0, seed=0,
) -> VAE:
    """Maximise the ELBO; x: (n, 64) in [0, 1]. beta = 1 is the true bound."""
    x = as_pixels(x)
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model, model.history = (net := VAE(size)), []
        optimiser = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
    return model


# --8<-- [end:train]
