"""Printed output against recorded output: text exactly, numbers within a tolerance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snippets.site.compare import difference


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
