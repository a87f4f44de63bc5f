"""Is what a block prints now what was recorded? Text exactly, numbers within a tolerance."""

import re

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
