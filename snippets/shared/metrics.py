"""Numbers that say how good a probability is."""

import numpy as np


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose most probable class is the label."""
    return float(np.mean(np.argmax(probabilities, axis=1) == labels))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(true class) in nats; a probability of zero counts as 1e-300."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-300)).mean())


def calibration_table(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 10
) -> list[tuple[float, float, int]]:
    """Group predictions by confidence: (mean confidence, accuracy, count) for each filled bin.

    Confidence is the largest probability of a row; the bins have equal width on [0, 1].
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (
            float(confidence[which == k].mean()),
            float(correct[which == k].mean()),
            int((which == k).sum()),
        )
        for k in range(bins)
        if (which == k).any()
    ]


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 10
) -> float:
    """Mean gap between confidence and accuracy, weighted by bin count.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    table = calibration_table(probabilities, labels, bins=bins)
    return sum(n * abs(conf - acc) for conf, acc, n in table) / len(labels)
