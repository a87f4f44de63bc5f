"""Is what a block prints or draws now what was recorded? Text exactly, numbers within a tolerance.

Of a figure only what another processor cannot change is compared: its words, the span of its
ticks, how many shapes of each kind it has, and of a raster its size and its mean. Where the points
lie is not: a trained network files them a little elsewhere on each processor.
"""

import base64
import io
import re
from collections import Counter
from html import unescape

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w])")


def difference(recorded: str, printed: str, *, tolerance: float = 0.05) -> str | None:
    """None when they agree; else one line that names the first difference.

    Numbers agree within `tolerance` of the recorded one, or two units in its last printed digit,
    whichever is more. Runs of spaces count as one: a number may grow by a digit.
    """
    old_lines, new_lines = recorded.rstrip("\n").split("\n"), printed.rstrip("\n").split("\n")
    for number, (old, new) in enumerate(zip(old_lines, new_lines), 1):
        if why := _line_difference(old, new, tolerance):
            return f"line {number}: {why}"
    if len(old_lines) != len(new_lines):
        return f"recorded {len(old_lines)} lines, printed {len(new_lines)}"
    return None


def _line_difference(old: str, new: str, tolerance: float) -> str | None:
    if _text(old) != _text(new):
        return f"recorded {old.strip()!r}, printed {new.strip()!r}"
    for a, b in zip(NUMBER.findall(old), NUMBER.findall(new)):
        allowed = max(tolerance * abs(_value(a)), 2 * _unit(a))
        if abs(_value(a) - _value(b)) > allowed * (1 + 1e-9):
            return f"recorded {a}, printed {b}, allowed ± {allowed:.3g}, in {new.strip()!r}"
    return None


def _text(line: str) -> str:
    """What stands around the numbers; an aligned table's padding does not count."""
    return re.sub(r"\s+", " ", NUMBER.sub("#", line)).replace(" #", "#").strip()


def _value(token: str) -> float:
    return float(token.replace(",", ""))


def _unit(token: str) -> float:
    """One unit in the last printed digit: 0.123 → 0.001, 1.2e-5 → 1e-6, 360 → 1."""
    mantissa, _, exponent = token.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals)


# ---------------------------------------------------------------- figures

TEXT = re.compile(r"<text[^>]*>(.*?)</text>", re.S)
SHAPE = re.compile(r"<(path|use|rect|circle|line|polyline|polygon|image)\b")
RASTER = re.compile(r'href="data:image/png;base64,([^"]*)"')
# A mean may move by this share of the range from black to white.
GREY = 0.05
# A little more data range may give an axis other ticks, but not half as much again of it.
STRETCH = 1.5


def figure_difference(recorded: str, drawn: str, *, tolerance: float = 0.05) -> str | None:
    """None when two SVGs show the same; else one line that names the first difference."""
    old, new = _texts(recorded), _texts(drawn)
    words = [[t for t in texts if not _is_number(t)] for texts in (old, new)]
    for a, b in zip(*words):
        if why := _line_difference(a, b, tolerance):
            return f"a text differs: {why}"
    if len(words[0]) != len(words[1]):
        return f"recorded {len(words[0])} labels, drew {len(words[1])}"
    numbers = [[_value(n) for t in texts if _is_number(t) for n in NUMBER.findall(t)]
               for texts in (old, new)]  # fmt: skip
    spans = [max(values, default=0) - min(values, default=0) for values in numbers]
    if max(spans) > STRETCH * min(spans):
        return f"its numbers spanned {spans[0]:g}, now {spans[1]:g}"
    # Each tick has a mark and perhaps a line.
    ticks = abs(len(numbers[0]) - len(numbers[1]))
    counts = Counter(SHAPE.findall(recorded)), Counter(SHAPE.findall(drawn))
    for kind in sorted({*counts[0], *counts[1]}):
        a, b = counts[0][kind], counts[1][kind]
        if abs(a - b) > max(tolerance * a, 2) + ticks:
            return f"recorded {a} of <{kind}>, drew {b}"
    return _raster_difference(recorded, drawn, tolerance)


def _texts(svg: str) -> list[str]:
    """What a figure says, in order; a minus sign is read as one."""
    said = (unescape(re.sub(r"<[^>]*>", "", text)) for text in TEXT.findall(svg))
    return [text.replace("−", "-").strip() for text in said]


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[\s\d.,+\-%e]*", text))


def _raster_difference(recorded: str, drawn: str, tolerance: float) -> str | None:
    for n, (a, b) in enumerate(zip(RASTER.findall(recorded), RASTER.findall(drawn)), 1):
        if a == b:
            continue
        (old_size, old_grey), (new_size, new_grey) = _raster(a), _raster(b)
        if any(abs(x - y) > max(tolerance * x, 2) for x, y in zip(old_size, new_size)):
            return f"raster {n} had {old_size} pixels, now {new_size}"
        if abs(old_grey - new_grey) > max(GREY, tolerance):
            return f"raster {n} had a mean of {old_grey:.2f}, now {new_grey:.2f}"
    return None


def _raster(data: str) -> tuple[tuple[int, int], float]:
    """Size of a PNG and its mean darkness, from 0 (blank or white) to 1 (black)."""
    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("LA")
    grey, opacity = np.asarray(image, dtype=float).transpose(2, 0, 1) / 255
    return image.size, float(((1 - grey) * opacity).mean())
