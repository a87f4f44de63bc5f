"""A recorded figure: short coordinates, the page's colours, and words as they were drawn."""

import re

import pytest

from snippets.shared import plots
from snippets.site import figures


@pytest.fixture
def drawn():
    import matplotlib.pyplot as plt

    figure, axes = plots.subplots(width=3, height=2)
    axes.plot([0, 1 / 3, 1], [0.0489, 0.025, 0.0312])
    axes.set_yticks([0.025, 0.0312, 0.0489], ["0.025", "0.0312", "0.0489"])
    axes.set_title("threshold 0.04891")
    yield figures.to_svg(figure, name="drawn")
    plt.close(figure)


def test_words_keep_their_digits(drawn):
    for word in ("0.025", "0.0312", "0.0489", "threshold 0.04891"):
        assert f">{word}<" in drawn


def test_coordinates_are_short(drawn):
    outside = re.sub(r">[^<>]+<", "><", drawn)
    assert re.findall(r"\d\.\d{3,}", outside) == []
