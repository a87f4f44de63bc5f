"""Small made-up data for the twin tests of this section."""

import numpy as np


def blobs(n=60, features=4, classes=3, seed=0):
    """Overlapping classes of continuous features, so that no two cuts are equally good by luck."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return rng.normal(size=(classes, features))[y] + rng.normal(size=(n, features)), y
