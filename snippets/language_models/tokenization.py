"""Byte pair encoding: text as pieces from a list that was learned by counting."""

# --8<-- [start:imports]
import lzma
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from snippets.shared import prose, sample_quality

# --8<-- [end:imports]


# --8<-- [start:words]
# Letters, digits or signs, with the space before them; or space alone.
WORD = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:_|[^\w\s])+|\s+(?!\S)|\s+")


def words(text: str) -> list[bytes]:
    """Cut a text where no token may reach across; nothing is lost.

    Bytes that are no UTF-8 may come as `surrogateescape` has read them.
    """
    return [word.encode("utf-8", "surrogateescape")
            for word in WORD.findall(text)]  # fmt: skip


# --8<-- [end:words]
# --8<-- [start:model]
class Tokenizer(NamedTuple):
    """Tokens 0..255 are the bytes; each merge makes one more of two.

    merges: (left, right) → token, in the order in which they were learned.
    pieces: the bytes of each token. cut: what no token reaches across.
    """

    merges: dict[tuple[int, int], int]
    pieces: list[bytes]
    cut: Callable[[str], list[bytes]] = words


# --8<-- [end:model]
# --8<-- [start:merge]
def merge(tokens: list[int], pair: tuple[int, int], token: int) -> list[int]:
    """Replace each `pair`, from the left, by one token."""
    merged, i = [], 0
    while i < len(tokens):
        here = tuple(tokens[i:i + 2]) == pair
        merged.append(token if here else tokens[i])
        i += 2 if here else 1
    return merged


def recount(pairs, where, part: list[int], change: int, k: int) -> None:
    """Add `change` to the neighbours in word k, and note where they are."""
    for pair in pairwise(part):
        pairs[pair] += change
        where[pair].add(k)


# --8<-- [end:merge]
# --8<-- [start:train]
def train(text: str, *, size=2048, cut=words) -> Tokenizer:
    """Join the most frequent neighbours until there are `size` tokens.

    Of equally frequent pairs the lowest numbers win. Stops early when no
    pair occurs twice. Source: Sennrich et al., ACL 2016; bytes as in GPT-2.
    """
    if size < 256:
        raise ValueError(f"expected at least the 256 bytes, got size={size}")
    count = Counter(cut(text))
    parts, times = [list(word) for word in count], list(count.values())
    model = Tokenizer({}, [bytes([byte]) for byte in range(256)], cut)
    pairs, where = Counter(), defaultdict(set)
    for k, part in enumerate(parts):
        recount(pairs, where, part, times[k], k)
    while len(model.pieces) < size and max(pairs.values(), default=0) > 1:
        often = max(pairs.values())
        best = min(pair for pair, n in pairs.items() if n == often)
        token = len(model.pieces)
        model.merges[best] = token
        model.pieces.append(model.pieces[best[0]] + model.pieces[best[1]])
        for k in where.pop(best):  # no other word changes
            recount(pairs, where, parts[k], -times[k], k)
            parts[k] = merge(parts[k], best, token)
            recount(pairs, where, parts[k], times[k], k)
    return model


# --8<-- [end:train]
# --8<-- [start:encode]
def encode(model: Tokenizer, text: str) -> list[int]:
    """The tokens of a text; a word that comes again is looked up."""
    known: dict[bytes, list[int]] = {}
    tokens = []
    for word in model.cut(text):
        if word not in known:
            known[word] = encode_word(model, word)
        tokens += known[word]
    return tokens


def encode_word(model: Tokenizer, word: bytes) -> list[int]:
    """Join neighbours, always by the merge that was learned first."""
    part, never = list(word), len(model.pieces)
    while len(part) > 1:
        pair = min(pairwise(part), key=lambda p: model.merges.get(p, never))
        if pair not in model.merges:
            break
        part = merge(part, pair, model.merges[pair])
    return part


# --8<-- [end:encode]
# --8<-- [start:decode]
def decode(model: Tokenizer, tokens: list[int]) -> str:
    """The text of tokens; what is no UTF-8 comes as `surrogateescape`."""
    if not all(0 <= token < len(model.pieces) for token in tokens):
        raise ValueError(f"expected tokens 0 to {len(model.pieces) - 1}")
    joined = b"".join(model.pieces[token] for token in tokens)
    return joined.decode("utf-8", "surrogateescape")


# --8<-- [end:decode]
# --8<-- [start:first]
def first(model: Tokenizer, size: int) -> Tokenizer:
    """The list as it was when it had `size` tokens."""
    merges = {pair: t for pair, t in model.merges.items() if t < size}
    return Tokenizer(merges, model.pieces[:size], model.cut)


# --8<-- [end:first]
# --8<-- [start:signs]
def signs() -> list[str]:
    """A visible letter for each of the 256 bytes, as GPT-2 writes them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(shown))
    letters = [*shown, *range(256, 256 + len(others))]
    sign = dict(zip(shown + others, map(chr, letters)))
    return [sign[byte] for byte in range(256)]


# --8<-- [end:signs]
# --8<-- [start:to_json]
def to_json(model: Tokenizer) -> dict:
    """The list as the file `tokenizer.json` of Hugging Face's `tokenizers`.

    Raises ValueError where that format cannot say what this model does.
    """
    if model.cut is not words or len(set(model.pieces)) < len(model.pieces):
        raise ValueError("expected text cut by `words`, each piece once")
    sign = signs()
    names = ["".join(sign[byte] for byte in piece) for piece in model.pieces]
    cut = {"type": "Split", "pattern": {"Regex": WORD.pattern},
           "behavior": "Isolated", "invert": False}
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False,
                "trim_offsets": True, "use_regex": False}
    merges = [[names[left], names[right]] for left, right in model.merges]
    return {
        "version": "1.0", "added_tokens": [], "decoder": to_bytes,
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [cut, to_bytes]},
        "model": {"type": "BPE", "merges": merges,
                  "vocab": {name: i for i, name in enumerate(names)}},
    }  # fmt: skip


# --8<-- [end:to_json]
# --8<-- [start:bits]
def bits(old: list[int], now: list[int], text: str, *, size: int) -> float:
    """Bits per byte of `text`, whose tokens are `now`: each for itself.

    Its probability is its share of the `size` tokens among the `old` ones.
    """
    count = np.bincount(old, minlength=size) + 0.5  # none is impossible
    return prose.bits_per_byte(np.log(count / count.sum())[now].sum(), text)


# --8<-- [end:bits]
# --8<-- [start:sentences]
SAME = {
    "English": "The doctor asks when the pain began. The patient does not "
    "remember. Please write down what you feel, and come back on Monday.",
    "German": "Die Ärztin fragt, wann die Schmerzen begannen. Der Patient "
    "erinnert sich nicht. Bitte schreiben Sie auf, was Sie fühlen, und "
    "kommen Sie am Montag wieder.",
    "French": "Le médecin demande quand la douleur a commencé. Le patient "
    "ne s'en souvient pas. Notez ce que vous ressentez, s'il vous plaît, et "
    "revenez lundi.",
    "Russian": "Врач спрашивает, когда началась боль. Пациент не помнит. "
    "Запишите, пожалуйста, что вы чувствуете, и приходите снова в "
    "понедельник.",
    "Chinese": "医生问疼痛是什么时候开始的。病人不记得了。"
    "请写下您的感受，星期一再来。",
}


# --8<-- [end:sentences]


def pair_bits(old: list[int], now: list[int], text: str, *, size: int) -> float:
    """As `bits`, but each token is predicted from the one before it.

    Counts of pairs, mixed with the share of the token alone (Witten and Bell, 1991).
    """
    count = np.bincount(old, minlength=size) + 0.5
    alone, pairs = count / count.sum(), Counter(pairwise(old))
    times, kinds = Counter(old[:-1]), Counter(before for before, _ in pairs)
    log_p = math.log(alone[now[0]])
    for before, token in pairwise(now):
        share = kinds[before] * alone[token] + pairs[before, token]
        unseen = times[before] == 0
        log_p += math.log(alone[token] if unseen else share / (times[before] + kinds[before]))
    return prose.bits_per_byte(log_p, text)


SENTENCE = re.compile(r"[^.\n]*[.\n]|[^.\n]+")


def sentences(text: str) -> list[bytes]:
    """Cut behind full stops and ends of line only: tokens may run across words."""
    return [part.encode("utf-8", "surrogateescape") for part in SENTENCE.findall(text)]


def by_words(text: str, size: int) -> Callable[[str], list[int]]:
    """The baseline: the most frequent words are tokens, all others are spelt in bytes."""
    longer = Counter({word: n for word, n in Counter(words(text)).items() if len(word) > 1})
    number = {word: 256 + k for k, (word, _) in enumerate(longer.most_common(size - 256))}
    return lambda text: [
        token
        for word in words(text)
        for token in ([number[word]] if word in number else list(word))
    ]


def measure(old: list[int], now: list[int], new: str, size: int) -> dict[str, float]:
    """Lengths and bits per byte of new text, and how many merged tokens the old one hardly has."""
    times = np.bincount(old, minlength=size)[256:]
    return {
        "bytes": len(new.encode()) / len(now),
        "rare": int((times < 10).sum()),
        "never": int((times == 0).sum()),
        "alone": bits(old, now, new, size=size),
        "after_one": pair_bits(old, now, new, size=size),
    }


def rivals(text: str, new: str, size: int) -> dict[str, dict[str, float]]:
    """Three kinds of list, of the same length and from the same text."""
    found = {"whole_words": by_words(text, size)}
    for name, cut in (("across_words", sentences), ("byte_pairs", words)):
        model = train(text, size=size, cut=cut)
        found[name] = lambda text, model=model: encode(model, text)
    return {name: measure(tell(text), tell(new), new, size) for name, tell in found.items()}


def study(*, sizes=(256, 512, 1024, 2048, 4096, 8192), seeds: int = 3, share=0.25) -> dict:
    """Lists of many lengths from the whole text, and three kinds of list from parts of it."""
    data, table = prose.load(), {}
    text, new = prose.text_of(data.train), prose.text_of(data.test)
    longest = train(text, size=max(sizes))
    show("")
    for size in sizes:
        model = first(longest, size)
        table[f"size_{size}"] = row = measure(encode(model, text), encode(model, new), new, size)
        show(f"{size} tokens", row)
    names, runs = sorted({row.source for row in data.train}), []
    for seed in range(seeds):
        some = np.random.default_rng(seed).permutation(names)[: round(share * len(names))]
        part = prose.text_of([row for row in data.train if row.source in set(some)])
        runs.append(rivals(part, new, min(2048, max(sizes))))
    print()
    for name in runs[0]:
        table[name] = row = sample_quality.spread([run[name] for run in runs])
        show(name.replace("_", " "), row)
        show("  ±", {column: row[f"{column}_sd"] for column in COLUMNS})
    packed = [len(lzma.compress(part.encode(), preset=9)) for part in (text, text + new)]
    table["xz"] = 8 * (packed[1] - packed[0]) / len(new.encode())
    print(f"\nxz, after the whole text: {table['xz']:.2f} bits per byte")
    return table


COLUMNS = {"bytes": ".2f", "rare": ".0f", "never": ".0f", "alone": ".2f", "after_one": ".2f"}


def show(title: str, row: dict | None = None) -> None:
    """One line of the study's table, or its head."""
    cells = [name.replace("_", " ") if row is None else format(row[name], form)
             for name, form in COLUMNS.items()]  # fmt: skip
    print(f"{title:<13}" + "".join(f"{cell:>11}" for cell in cells))
