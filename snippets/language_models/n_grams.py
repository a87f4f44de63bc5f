"""A language model made by counting: each byte gets a distribution, given the few before it."""

# --8<-- [start:imports]
import time
from typing import NamedTuple

import numpy as np

from snippets.shared import prose

Array = np.ndarray
BEFORE = ".\n"  # stands before every text: it is read as a new paragraph


def as_bytes(text: str | Array) -> Array:
    """UTF-8 as numbers, 0-255; an array of other tokens stays as it is."""
    if isinstance(text, np.ndarray) and text.size:
        return text
    if not isinstance(text, str) or not text:
        raise ValueError(f"expected a text, got {text!r}: pass some letters")
    return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64)


# --8<-- [end:imports]
# --8<-- [start:grams]
class Grams(NamedTuple):
    """All runs of n bytes in a text, each once, in the order of `keys`."""

    keys: Array  # size * the number of the first n - 1 bytes + the last
    count: Array  # how often the run stands in the text
    lefts: Array  # how many different bytes stand before it
    contexts: int  # how many runs of n - 1 bytes there are
    size: int  # how many bytes, or other tokens, there could be


# --8<-- [end:grams]
# --8<-- [start:count]
def count(text: str, *, order: int, size: int = 256) -> list[Grams]:
    """Count runs of 1 .. order bytes; a run's number is its place in keys.

    text: or an array of tokens, whole numbers below size.
    """
    if order < 1 or order != int(order):
        raise ValueError(f"expected an order of 1 or more, got {order}")
    x, grams = as_bytes(text), []
    if x.max() >= size:
        raise ValueError(f"expected tokens below size={size}, got {x.max()}")
    ids, contexts = np.zeros(len(x) + 1, np.int64), 1  # of the empty run
    for k in range(min(order, len(x))):
        keys, first, longer, often = np.unique(
            size * ids[:-1] + x[k:], True, True, True)  # fmt: skip
        if k:  # each different longer run is one more left neighbour
            lefts = np.bincount(ids[first + 1], minlength=contexts)
            grams[-1] = grams[-1]._replace(lefts=lefts)
        grams.append(Grams(keys, often, often, contexts, size))
        ids, contexts = longer, len(keys)
    return grams


# --8<-- [end:count]
# --8<-- [start:discount]
class Table(NamedTuple):
    """One order of the model, as shares of what was seen in a context h."""

    keys: Array
    kept: Array  # (runs,) what the count of hw keeps of its share
    freed: Array  # (contexts,) what the counts after h have given away
    size: int


def discount(c: Array) -> Array:
    """What to take off each count: d between 0 and 1, nothing off zero.

    Source: Chen and Goodman, "An empirical study of smoothing", 1999.
    """
    ones, twos = (c == 1).sum(), (c == 2).sum()
    return (c > 0) * (ones + 0.5) / (ones + 2 * twos + 1)  # never 0 or 1


# --8<-- [end:discount]
# --8<-- [start:smooth]
def smooth(grams: list[Grams], *, discount=discount) -> list[Table]:
    """Interpolated Kneser–Ney: a table for each order, the longest last.

    The longest runs keep their counts; for shorter ones, lefts are counted.
    Source: Kneser and Ney, "Improved Backing-off", ICASSP 1995.
    """
    tables = []
    for run in grams:
        c = run.count if run is grams[-1] else run.lefts
        h = run.keys // run.size
        off, total = discount(c), np.bincount(h, c, run.contexts)
        freed = np.bincount(h, off, run.contexts) / np.maximum(total, 1)
        freed[total == 0] = 1  # nothing is known: ask the shorter context
        kept = (c - off) / np.maximum(total, 1)[h]
        tables.append(Table(run.keys, kept, freed, run.size))
    return tables


def train(text: str, *, order: int = 5) -> list[Table]:
    """Count runs of up to `order` bytes of a text and smooth the counts."""
    return smooth(count(text, order=order))


# --8<-- [end:smooth]
# --8<-- [start:blend]
def find(table: Table, h: Array, w: Array) -> Array:
    """The numbers of the runs hw, -1 for those never seen."""
    key = table.size * h + w
    at = np.searchsorted(table.keys, key).clip(max=len(table.keys) - 1)
    return np.where(table.keys[at] == key, at, -1)


def blend(table: Table, h: Array, w: Array, p: Array) -> Array:
    """p(w|h); p is the same without the first byte of the context h."""
    at = find(table, h, w)
    kept = np.where(at < 0, 0, table.kept[at])
    freed = np.where(h < 0, 1, table.freed[h])  # all, if h was never seen
    return kept + freed * p


# --8<-- [end:blend]
# --8<-- [start:log_prob]
def log_bytes(model: list[Table], text: str | Array) -> Array:
    """log p of each byte, or token, given those before: (bytes,), nats."""
    x = np.concatenate([as_bytes(BEFORE), as_bytes(text)])
    p = np.full(len(x), 1 / model[0].size)
    ids = np.zeros(len(x) + 1, np.int64)
    for k, table in enumerate(model):  # ids: of the runs of k bytes
        h, w = ids[:-1], x[k:]
        p[k:] = blend(table, h, w, p[k:])
        ids = find(table, h, w)
    return np.log(p[len(BEFORE) :])


def log_prob(model: list[Table], texts: list[str]) -> Array:
    """log p of each text among all texts of its length in bytes, in nats."""
    if isinstance(texts, str):
        raise ValueError("expected a list of texts, got one: pass [text]")
    return np.array([log_bytes(model, text).sum() for text in texts])


# --8<-- [end:log_prob]
# --8<-- [start:packed]
def none(c: Array) -> Array:
    """No discount: what was never seen after h is impossible."""
    return 0.0 * c


def packed(text: str, *, tool, primed: str = "") -> float:
    """Bits per byte of a compressor, after it has packed primed as well."""
    first, both = (len(tool(t.encode())) for t in (primed, primed + text))
    return 8 * (both - first * bool(primed)) / len(text.encode())


# --8<-- [end:packed]
# --8<-- [start:next]
def read(model: list[Table], h: list[Array], w: Array) -> list[Array]:
    """Go on by one byte: the new context of 0, 1, 2 ... bytes."""
    return [h[0]] + [find(*each, w) for each in zip(model[:-1], h)]


def start_of(model: list[Table], text: str, *, n: int = 1) -> list[Array]:
    """The contexts after a text, n times: of 0, 1, ... order - 1 bytes."""
    h = [np.full(n, k and -1) for k in range(len(model))]
    for w in as_bytes(BEFORE + text):
        h = read(model, h, w)
    return h


def next_byte(model: list[Table], h: list[Array]) -> Array:
    """p(w|h) of all 256 bytes: (n, 256)."""
    p = np.full((len(h[0]), 256), 1 / 256)
    for table, context in zip(model, h):
        p = blend(table, context[:, None], np.arange(256), p)
    return p


# --8<-- [end:next]
# --8<-- [start:sample]
def sample(
    model: list[Table], n: int, *, seed: int = 0, start: str = "",
    length: int = 300,
) -> list[str]:  # fmt: skip
    """n texts that begin with start and go on for `length` drawn bytes."""
    if n < 1 or length < 1:
        raise ValueError(f"expected 1 or more, got n={n}, length={length}")
    random, drawn = np.random.default_rng(seed), []
    h = start_of(model, start, n=n)
    for _ in range(length):
        dice = random.random((n, 1))
        below = next_byte(model, h).cumsum(axis=1) < dice
        w = below.sum(axis=1).clip(max=255)
        h, drawn = read(model, h, w), [*drawn, w]
    rows = np.array(drawn, np.uint8).reshape(length, n).T
    return [start + row.tobytes().decode("utf-8", "replace") for row in rows]


# --8<-- [end:sample]
# --8<-- [start:copied]
def copied(drawn: list[str], text: str, *, width: int = 40) -> float:
    """The share of the runs of `width` letters of drawn that are in text."""

    def windows(t):
        return (t[i : i + width] for i in range(len(t) - width + 1))

    runs = [run for t in drawn for run in windows(t)]
    wanted = set(runs)
    known = {run for run in windows(text) if run in wanted}
    return sum(run in known for run in runs) / len(runs)


# --8<-- [end:copied]
# --8<-- [start:paired]
def paired(texts: list[str]) -> float:
    """The share of closing brackets that close one, in the same paragraph."""
    closing = matched = 0
    for line in "\n".join(texts).splitlines():
        opened = 0
        for letter in line:
            opened += letter == "("
            if letter == ")":
                closing += 1
                matched += opened > 0
                opened = max(opened - 1, 0)
    return matched / max(closing, 1)


# --8<-- [end:paired]
# --8<-- [start:three]
def three(c: Array) -> Array:
    """Discounts of their own for counts of one, two, and three or more.

    Source: Chen and Goodman, "An empirical study of smoothing", 1999.
    """
    n = np.array([(c == k).sum() for k in range(5)]) + 0.5
    y = n[1] / (n[1] + 2 * n[2])
    d = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
    d = np.array([0, *np.clip(d, 0.1, [0.9, 1.9, 2.9])])
    return d[np.minimum(c, 3)]


# --8<-- [end:three]


def add_one(grams: list[Grams]) -> list[Table]:
    """Laplace's rule on the longest runs alone: (c(hw) + 1) / (c(h) + 256)."""
    tables = [Table(g.keys, 0 * g.count, np.ones(g.contexts), g.size) for g in grams]
    last, h = grams[-1], grams[-1].keys // 256
    total = np.bincount(h, last.count, last.contexts) + 256
    tables[-1] = Table(last.keys, last.count / total[h], 256 / total, last.size)
    return tables


def by_count(grams: list[Grams]) -> list[Table]:
    """Shorter runs by how often they occur, not by their lefts."""
    return smooth([run._replace(lefts=run.count) for run in grams])


def spread(log_p: Array, sizes: Array, *, draws: int = 300) -> float:
    """Standard error of bits per byte over the documents, by drawing them anew."""
    ends = np.r_[0, np.cumsum(sizes)[:-1]]
    cost, random = np.add.reduceat(log_p, ends), np.random.default_rng(0)
    some = random.integers(0, len(sizes), (draws, len(sizes)))
    bits = -cost[some].sum(axis=1) / sizes[some].sum(axis=1) / np.log(2)
    return float(bits.std())


def score(model: list[Table], rows: list[prose.Paragraph]) -> dict[str, float]:
    """Bits per byte on paragraphs, infinite if one is impossible, and its spread."""
    text, names = prose.text_of(rows), list(dict.fromkeys(row.source for row in rows))
    parts = (prose.text_of([row for row in rows if row.source == name]) for name in names)
    with np.errstate(divide="ignore"):
        log_p = log_bytes(model, text)
    bits = prose.bits_per_byte(log_p.sum(), text)
    sizes = np.array([len(part.encode()) for part in parts])
    return {"bits": bits, "se": spread(log_p, sizes)} if np.isfinite(bits) else {"bits": bits}


def copies(model: list[Table], text: str, *, seeds: int) -> dict[str, float]:
    """The share of copied runs in 8,000 drawn letters, and its spread over seeds."""
    drawn = (sample(model, 16, seed=seed, length=500) for seed in range(seeds))
    shares = [copied(texts, text) for texts in drawn]
    return {"copied": float(np.mean(shares)), "copied_sd": float(np.std(shares))}


def study(*, orders=(3, 5, 8, 12), seeds: int = 3, size: int | None = None) -> dict:
    """Smoothing, order and size of the text: bits per byte, and what draws copy."""
    data, table = prose.load(), {}
    known, rows = prose.text_of(data.train)[:size], data.test[: size and 20]
    for order in orders:
        began = time.process_time()
        grams = count(known, order=order)
        counted = time.process_time() - began
        for name, kind in KINDS.items():
            began = time.process_time()
            model = kind(grams)
            cost = {"seconds": counted + time.process_time() - began}
            row = score(model, rows) | cost | {"runs": sum(len(g.keys) for g in grams)}
            if name in ("as_counted", "kneser_ney"):
                row |= copies(model, known, seeds=seeds)
            table[f"order_{order}_{name}"] = row
    for part in (16, 4):
        began = time.process_time()
        model = train(known[: len(known) // part], order=8)
        cost = {"seconds": time.process_time() - began}
        table[f"a_{part}th_of_the_text"] = score(model, rows) | cost
    show(table)
    return table


def show(table: dict) -> None:
    """A line for each model: bits per byte, seconds of training, copied runs."""
    print(f"{'':<28}{'bits per byte':>15}{'train':>9}{'copied':>15}")
    for name, row in table.items():
        bits = f"{row['bits']:.3f} ± {row['se']:.3f}" if "se" in row else "infinite"
        line = f"{name.replace('_', ' '):<28}{bits:>15}{row['seconds']:>7.1f} s"
        if "copied" in row:
            line += f"{row['copied']:>8.1%} ± {row['copied_sd']:.1%}"
        print(line)


KINDS = {
    "as_counted": lambda grams: smooth(grams, discount=none),
    "add_one": add_one,
    "shorter_by_count": by_count,
    "kneser_ney": smooth,
    "three_discounts": lambda grams: smooth(grams, discount=three),
}
