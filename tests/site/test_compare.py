"""Printed output against recorded output: text exactly, numbers within a tolerance."""

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from snippets.site.compare import difference, figure_difference


@pytest.mark.parametrize(
    ("recorded", "printed"),
    [
        ("accuracy 0.969\n", "accuracy 0.969\n"),
        ("accuracy 0.969", "accuracy 0.971"),  # two units in the last digit
        ("loss 12.3", "loss 12.9"),  # five per cent
        ("   9.99 a", "  10.01 a"),  # a number grew by a digit
        ("1,437 images", "1,438 images"),
        ("1.0e-05", "1.2e-05"),
        ("digits 0-9", "digits 0-9"),
    ],
)
def test_same_within_tolerance(recorded, printed):
    assert difference(recorded, printed) is None


@pytest.mark.parametrize(
    ("recorded", "printed", "why"),
    [
        ("accuracy 0.969", "accuracy 0.91", "recorded 0.969, printed 0.91"),
        ("accuracy 0.9", "precision 0.9", "recorded 'accuracy 0.9'"),
        ("a 1\nb 2", "a 1", "recorded 2 lines, printed 1"),
        ("loss 1.00", "loss nan", "recorded"),
        ("a -0.50", "a 0.50", "recorded -0.50, printed 0.50"),
        ("conv2d", "conv3d", "recorded"),
    ],
)
def test_different_beyond_it(recorded, printed, why):
    assert why in difference(recorded, printed)


def test_a_reasoned_tolerance_widens():
    assert difference("score 1.00", "score 1.20") is not None
    assert difference("score 1.00", "score 1.20", tolerance=0.25) is None


@given(st.text(alphabet="ab 019.,-%\n"))
def test_anything_agrees_with_itself(text):
    assert difference(text, text) is None


@given(st.floats(0.1, 1e6), st.floats(1.2, 10))
def test_a_fifth_more_is_never_the_same(value, factor):
    assert difference(f"x {value:.3f}", f"x {value * factor:.3f}") is not None


# ---------------------------------------------------------------- figures


def png(grey: int, size=(20, 20)) -> str:
    buffer = io.BytesIO()
    Image.new("L", size, grey).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def svg(*, title="loss 0.42", ticks=("0", "1", "2"), points=40, raster="") -> str:
    """A figure with a line, its ticks, its points and perhaps a raster."""
    parts = [f"<text x='1'>{title}</text>", *(f"<text>{tick}</text>" for tick in ticks)]
    parts += ["<use/>"] * (points + len(ticks)) + ["<path d='M0 0L1 1'/>"]
    parts += [f'<image href="data:image/png;base64,{raster}"/>'] if raster else []
    return f"<svg>{''.join(parts)}</svg>"


@pytest.mark.parametrize(
    "drawn",
    [
        svg(title="loss 0.43"),
        svg(ticks=("0", "1", "2", "3")[:3]),
        svg(ticks=("0.0", "0.5", "1.0", "1.5", "2.0", "2.5")),  # an axis with other ticks
        svg(points=42),
        svg().replace("M0 0L1 1", "M0 0L1 2"),  # another processor, another place
    ],
)
def test_a_figure_may_move_a_little(drawn):
    assert figure_difference(svg(), drawn) is None


@pytest.mark.parametrize(
    ("drawn", "why"),
    [
        (svg(title="loss 0.62"), "recorded 0.42, printed 0.62"),
        (svg(title="gain 0.42"), "a text differs"),
        (svg(title="loss 0.42</text><text>again"), "recorded 1 labels, drew 2"),
        (svg(ticks=("0", "10", "20")), "spanned 2, now 20"),
        (svg(ticks=("0", "−1", "−2", "2")), "spanned 2, now 4"),
        (svg(ticks=()), "spanned 2, now 0"),
        (svg(points=60), "recorded 43 of <use>, drew 63"),
    ],
)
def test_a_figure_that_shows_something_else_is_found(drawn, why):
    assert why in figure_difference(svg(), drawn)


def test_rasters_are_compared_by_size_and_mean():
    old = svg(raster=png(100))
    assert figure_difference(old, svg(raster=png(105))) is None
    assert figure_difference(old, svg(raster=png(100, (21, 20)))) is None
    assert "had (20, 20) pixels" in figure_difference(old, svg(raster=png(100, (40, 20))))
    assert "had a mean of 0.61" in figure_difference(old, svg(raster=png(200)))


def test_a_reasoned_tolerance_widens_a_figure_too():
    assert figure_difference(svg(), svg(points=50)) is not None
    assert figure_difference(svg(), svg(points=50), tolerance=0.25) is None
