"""Sampling text: from a language model's probabilities to one text, token by token."""

# --8<-- [start:imports]
import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from snippets.language_models import gpt, n_grams, tokenization
from snippets.shared import prose

LINE = ord("\n")  # the token that ends a paragraph
PROMPT = 16  # tokens that a passage is given before it is measured
# --8<-- [end:imports]


# --8<-- [start:heat]
def sharpen(logits: Tensor, temperature: float) -> Tensor:
    """Logits (n, size) over a temperature; at 0 only the likeliest stays."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"expected a number from 0 up, got {temperature}")
    return logits / temperature if temperature else keep_top_k(logits, 1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k likeliest tokens of each row; the others get -inf.

    logits: (n, size). Of equal ones, the first in the list stays.
    """
    if k < 1 or k != int(k):
        raise ValueError(f"expected a k of 1 or more, got {k}")
    order = logits.argsort(dim=-1, descending=True, stable=True)
    return logits.scatter(-1, order[..., k:], -torch.inf)


# --8<-- [end:heat]
# --8<-- [start:top_p]
def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest tokens of each row that reach the probability p together.

    logits: (n, size); the others get -inf.
    Source: Holtzman et al., ICLR 2020, arXiv:1904.09751.
    """
    if not 0 < p <= 1:
        raise ValueError(f"expected a p above 0 and up to 1, got {p}")
    order = logits.argsort(dim=-1, descending=True, stable=True)
    mass = logits.double().softmax(dim=-1).gather(-1, order)
    above = mass.cumsum(dim=-1) - mass  # of the likelier ones
    above = torch.empty_like(above).scatter(-1, order, above)
    return logits.masked_fill((above >= p) & (p < 1), -torch.inf)


# --8<-- [end:top_p]
# --8<-- [start:reshape]
def discourage(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Take `penalty` nats off each token that was there before, once.

    logits: (n, size); seen: (n, time), tokens.
    """
    return logits.scatter(-1, seen, logits.gather(-1, seen) - penalty)


def reshape(
    logits: Tensor, *, temperature=1.0, top_k=None, top_p=None,
) -> Tensor:  # fmt: skip
    """Heat first, then cut; with no setting, what the model said."""
    logits = sharpen(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    return logits if top_p is None else keep_top_p(logits, top_p)


# --8<-- [end:reshape]
# --8<-- [start:cache]
Cache = list[tuple[Tensor, Tensor]]  # each block's keys and values so far


@cache
def turns(places: int, k: int) -> Tensor:
    """Matrices (places, k, k): x @ turns[t] is x, turned for place t."""
    unit = torch.eye(k)[:, None].expand(k, places, k)
    return gpt.rotate(unit).transpose(0, 1).contiguous()


def look_back(block: gpt.Block, h: Tensor, past, turn: Tensor) -> tuple:
    """A block's answer for new rows h (n, new, width), and what to keep."""
    parts = block.look(gpt.normal(h)).unflatten(2, (3, block.heads, -1))
    q, k, v = parts.permute(2, 0, 3, 1, 4)
    q, k = (torch.einsum("nhti,tij->nhtj", x, turn) for x in (q, k))
    k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    may = torch.ones(h.shape[1], k.shape[2], dtype=torch.bool)
    seen = scaled_dot_product_attention(
        q, k, v, attn_mask=may.tril(past[0].shape[2]))  # fmt: skip
    return block.add(h, seen), (k, v)


# --8<-- [end:cache]
# --8<-- [start:read]
@torch.no_grad()
def read(model: gpt.GPT, new: Tensor, kept=None) -> tuple[Tensor, Cache]:
    """Logits of the next token, (n, size), after the tokens new (n, time).

    kept: the cache that reading the tokens before these has returned.
    """
    h, longer = gpt.normal(model.token(new)), []
    heads = model.blocks[0].heads
    none = h.new_zeros(len(h), heads, 0, h.shape[2] // heads)
    kept = kept or [(none, none)] * len(model.blocks)
    turn = turns(model.context, none.shape[3])[kept[0][0].shape[2]:]
    for block, past in zip(model.blocks, kept):
        h, both = look_back(block, h, past, turn[:h.shape[1]])
        longer.append(both)
    return gpt.normal(h[:, -1]) @ model.token.weight.T, longer


# --8<-- [end:read]
# --8<-- [start:generate]
def generate(
    model: gpt.GPT, ids: Tensor, length: int, *, seed=0, penalty=0.0,
    never_first=(), **settings,
) -> Tensor:  # fmt: skip
    """Each row of ids (n, time) with `length` drawn tokens behind it.

    settings: what `reshape` takes. When the context is full, its older half
    is forgotten and the rest read again, as `gpt.log_tokens` does.
    """
    random = torch.Generator().manual_seed(seed)
    half, begun = model.context // 2, -1
    for step in range(length):
        over = max(0, ids.shape[1] - model.context)
        if begun != (begun := half * math.ceil(over / half)):
            kept, new = None, ids[:, begun:]
        logits, kept = read(model, new, kept)
        logits = discourage(logits, ids[:, begun:], penalty)
        if step == 0:
            logits[:, list(never_first)] = -torch.inf
        p = reshape(logits, **settings).softmax(dim=-1)
        new = torch.multinomial(p, 1, generator=random)
        ids = torch.cat([ids, new], dim=1)
    return ids


# --8<-- [end:generate]
# --8<-- [start:sample]
def readable(model: gpt.GPT, row: Tensor) -> str:
    """Tokens (time,) as text; bytes that are no UTF-8 become a mark."""
    text = tokenization.decode(model.pieces, row.tolist())
    return text.encode("utf-8", "replace").decode()


def sample(
    model: gpt.GPT, n: int, *, seed=0, start="", length=60, **settings,
) -> list[str]:  # fmt: skip
    """n paragraphs that begin with `start`, of at most `length` new tokens.

    settings: temperature, top_k, top_p, penalty. None is empty.
    """
    if n < 1 or length < 1:
        raise ValueError(f"expected 1 or more, got n={n}, length={length}")
    begin = [LINE, *tokenization.encode(model.pieces, start)]
    ids = generate(model, torch.tensor([begin] * n), length, seed=seed,
                   never_first=(LINE,), **settings)
    return [readable(model, row).partition("\n")[0] for row in ids[:, 1:]]


# --8<-- [end:sample]
# --8<-- [start:measure]
def repeated(texts: list[str]) -> float:
    """The share of sequences of four words that were there before."""
    words = [text.split() for text in texts]
    fours = [tuple(w[i:i + 4]) for w in words for i in range(len(w) - 3)]
    return 1 - len(set(fours)) / len(fours) if fours else 0.0


def measure(model: gpt.GPT, judge: list, ids: Tensor) -> dict[str, float]:
    """What follows a prompt: bits per byte by two models, and repeats.

    ids: (n, time); the first PROMPT tokens are read and not counted.
    """
    own = other = 0.0
    texts = [readable(model, row[PROMPT:]) for row in ids]
    for row, text in zip(ids, texts):
        own += gpt.log_tokens(model, row.tolist())[PROMPT:].sum().item()
        before = readable(model, row[:PROMPT])
        log_p = n_grams.log_bytes(judge, before + text)
        other += log_p[len(before.encode()):].sum()
    whole = "".join(texts)
    return {"own": prose.bits_per_byte(own, whole),
            "judge": prose.bits_per_byte(other, whole),
            "repeated": repeated(texts)}


# --8<-- [end:measure]
# --8<-- [start:passages]
def passages(model: gpt.GPT, text: str, *, part=0, n=48, time=112) -> Tensor:
    """n passages of a text that follow on each other: tokens (n, time).

    part: the first n passages, the next n, ...
    """
    cut = torch.tensor(tokenization.encode(model.pieces, text))
    some = cut[part * n * time:(part + 1) * n * time]
    if len(some) < n * time:
        raise ValueError(f"the text has no part {part}: ask for fewer")
    return some.reshape(n, time)


# --8<-- [end:passages]


SETTINGS = {
    "greedy": {"temperature": 0},
    "greedy_penalty": {"temperature": 0, "penalty": 2.0},
    **{f"temperature_{t}": {"temperature": t / 100} for t in (25, 50, 75, 100, 125, 150)},
    **{f"top_p_{p}": {"top_p": p / 100} for p in (30, 50, 70, 90, 95)},
    **{f"top_k_{k}": {"top_k": k} for k in (5, 40)},
}


def study(
    *, seeds: int = 3, n: int = 48, time: int = 112, order: int = 8, settings=SETTINGS
) -> dict:
    """People and the model go on with the same prompts; each seed has prompts of its own.

    time: tokens of a passage, its prompt included; order: of the judge.
    """
    model, (old, _, new) = gpt.load(), map(prose.text_of, prose.load())
    judge, table = n_grams.train(old, order=order), {}
    for seed in range(seeds):
        known, rows = (passages(model, t, part=seed, n=n, time=time) for t in (old, new))
        drawn = {"people": rows, "people_read_before": known} | {
            name: generate(model, rows[:, :PROMPT], time - PROMPT, seed=seed, **how)
            for name, how in settings.items()
        }
        for name, ids in drawn.items():
            table.setdefault(name, []).append(measure(model, judge, ids))
    print(f"{'':<28}{'bits, own':>13}{'bits, judge':>13}{'repeated':>15}")
    return {name: summary(name, rows, settings.get(name, {})) for name, rows in table.items()}


def summary(name: str, rows: list[dict], how: dict) -> dict[str, float]:
    """Mean and spread over the seeds, and a line of the table."""
    mean, sd = (
        {key: float(by([row[key] for row in rows])) for key in rows[0]} for by in (np.mean, np.std)
    )
    label = ", ".join(f"{key} {value:g}" for key, value in how.items()) or name.replace("_", " ")
    bits = "".join(f"{mean[key]:>6.2f} ± {sd[key]:.2f}" for key in ("own", "judge"))
    print(f"{label:<28}{bits}{mean['repeated']:>8.1%} ± {sd['repeated']:.1%}")
    return mean | {f"{key}_sd": value for key, value in sd.items()}
