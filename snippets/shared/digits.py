"""The 1,797 handwritten digits that most pages share, split once and for all."""

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Split(NamedTuple):
    """Images are (n, 64) floats in [0, 1], rows of 8 x 8 pixels; labels are (n,) ints."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


# --8<-- [start:load_split]
def load_split(*, seed: int = 0) -> Split:
    """Real 8 x 8 digits: 1,437 to train on, 360 to test on, classes in proportion.

    Pixels count ink in sixteenths; dividing by 16 puts them in [0, 1].
    Source: UCI Optical Recognition of Handwritten Digits, as carried by scikit-learn.
    """
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        images / 16, labels, test_size=360, stratify=labels, random_state=seed
    )
    return Split(x_train, y_train, x_test, y_test)


# --8<-- [end:load_split]


def hold_out(x: np.ndarray, y: np.ndarray, *, size: int = 287, seed: int = 0) -> Split:
    """Split training data again, so that choices are made on validation, never on test.

    The two "test" fields of the result are the validation part.
    """
    if not 0 < size < len(x):
        raise ValueError(f"expected 0 < size < {len(x)} images, got size={size}")
    x_train, x_valid, y_train, y_valid = train_test_split(
        x, y, test_size=size, stratify=y, random_state=seed
    )
    return Split(x_train, y_train, x_valid, y_valid)


def check_images(x: np.ndarray, *, pixels: int = 64) -> np.ndarray:
    """Return x as a float array of shape (n, pixels), or say in one line what is wrong."""
    x = np.asarray(x, dtype=float)
    if x.ndim != 2:
        raise ValueError(
            f"expected a batch of images, shape (n, {pixels}), got shape {x.shape}: "
            "for one image pass image[None]"
        )
    if x.shape[1] != pixels:
        raise ValueError(f"expected images of {pixels} pixels, got {x.shape[1]}")
    return x


def check_labels(y: np.ndarray, *, count: int) -> np.ndarray:
    """Return y as ints 0..K-1, one for each of `count` images, or say what is wrong."""
    y = np.asarray(y)
    if y.shape != (count,):
        raise ValueError(f"expected {count} labels, one for each image, got shape {y.shape}")
    seen = np.unique(y)
    if len(seen) < 2 or not np.array_equal(seen, np.arange(len(seen))):
        raise ValueError(f"expected labels 0, 1, ... K-1, each at least once, got {seen}")
    return y.astype(int)
