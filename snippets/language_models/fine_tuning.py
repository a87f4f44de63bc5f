"""Fine-tuning: a GPT that has read one kind of text goes on with another."""

# --8<-- [start:imports]
import copy
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from snippets.language_models import gpt, tokenization
from snippets.shared import prose, sample_quality

Array = np.ndarray
KEPT = Path(prose.__file__).parents[1] / "data/fine_tuning/lora.safetensors"
RATES = {"full": 0.004, "lora": 0.03, "table": 0.01}  # by validation text
# --8<-- [end:imports]


# --8<-- [start:lora]
class LoRA(nn.Module):
    """A linear map W that stays as it is, plus B A, thin and trained.

    B starts at zero, so nothing changes before the first step.
    Source: Hu et al., "LoRA", arXiv:2106.09685.
    """

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        out, width = linear.weight.shape
        self.a = nn.Parameter(torch.randn(rank, width) / width**0.5)
        self.b = nn.Parameter(torch.zeros(out, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.a.T @ self.b.T


# --8<-- [end:lora]
# --8<-- [start:prepare]
MAPS = ("look", "tell", "up", "down")  # the matrices of a block


def prepare(base: gpt.GPT, way: str, *, rank: int = 8) -> gpt.GPT:
    """A copy of base in which only what `way` names can be trained."""
    if way not in RATES:
        raise ValueError(f"expected one of {', '.join(RATES)}, got {way!r}")
    model = copy.deepcopy(base).requires_grad_(way == "full")
    model.token.requires_grad_(way != "lora")
    for block in model.blocks if way == "lora" else ():
        for name in MAPS:
            setattr(block, name, LoRA(getattr(block, name), rank))
    return model


# --8<-- [end:prepare]
# --8<-- [start:merge]
@torch.no_grad()
def merge(model: gpt.GPT) -> gpt.GPT:
    """The same model as a plain GPT: each W becomes W + B A."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        for name in MAPS:
            part = getattr(block, name)
            if isinstance(part, LoRA):
                part.linear.weight += part.b @ part.a
                setattr(block, name, part.linear)
    return model


# --8<-- [end:merge]
# --8<-- [start:fit]
def draw(tokens: Tensor, count: int, length: int) -> Tensor:
    """Windows of `length` tokens that begin anywhere: (count, length)."""
    if len(tokens) < length:
        raise ValueError(f"expected {length} tokens of text or more")
    starts = torch.randint(len(tokens) - length + 1, (count,))
    return tokens.unfold(0, length, 1)[starts]


def fit(model: gpt.GPT, new: Tensor, old: Tensor, *, steps, batch, rate,
        replay) -> gpt.GPT:  # fmt: skip
    """Train in place what can be trained; `replay`: the share of old text."""
    again, length = round(replay * batch), model.context + 1
    parts = [part for part in ((new, batch - again), (old, again)) if part[1]]
    weights = [w for w in model.parameters() if w.requires_grad]
    adam = torch.optim.AdamW(weights, betas=(0.9, 0.95), weight_decay=0)
    model.history = []
    for step in range(steps):
        some = torch.cat([draw(*part, length) for part in parts])
        logits = model(some[:, :-1]).flatten(0, 1)
        loss = functional.cross_entropy(logits, some[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        left = min(1, step / 10 + 0.1, 1.02 - step / steps)
        adam.param_groups[0]["lr"] = rate * left
        adam.step()
        model.history.append(loss.item())  # nats per token
    return model.eval()


# --8<-- [end:fit]
# --8<-- [start:train]
def train(
    text: str, *, way="full", base: gpt.GPT | None = None, old="", replay=0.0,
    steps=98, batch=16, rate: float | None = None, rank=8, seed=0,
) -> gpt.GPT:  # fmt: skip
    """Go on training a copy of base, or of the kept GPT, on a text.

    way: "full", "lora" or "table". replay: the share of windows that come
    from the old text. Tokens stay the base's.
    """
    if not 0 <= replay < 1 or (replay and not old):
        raise ValueError("expected a replay in [0, 1) and, above 0, old text")
    base = base or gpt.load()
    tokens = [torch.tensor(tokenization.encode(base.pieces, part))
              for part in (text, old if replay else "")]
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model = prepare(base, way, rank=rank)
        return fit(model, *tokens, steps=steps, batch=batch,
                   rate=rate or RATES[way], replay=replay)


# --8<-- [end:train]
# --8<-- [start:use]
def log_prob(model: gpt.GPT, texts: list[str]) -> Array:
    """log p of each text, (n,), in nats."""
    return gpt.log_prob(merge(model), texts)


def sample(model: gpt.GPT, n: int, *, seed=0, **how) -> list[str]:
    """n paragraphs; how: `start`, `length`, `temperature` of the GPT."""
    return gpt.sample(merge(model), n, seed=seed, **how)


def bits(model: gpt.GPT, text: str) -> float:
    """Bits per byte of a text: smaller is better."""
    return prose.bits_per_byte(log_prob(model, [text])[0], text)


# --8<-- [end:use]
# --8<-- [start:scratch]
def scratch(text: str, *, steps=98, batch=16, rate=0.04, seed=0) -> gpt.GPT:
    """The same network with the same tokens, which has read nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = gpt.GPT()
        model.pieces = gpt.load().pieces
        data = torch.tensor(tokenization.encode(model.pieces, text))
        return gpt.fit(model, data, steps=steps, batch=batch, rate=rate)


# --8<-- [end:scratch]
# --8<-- [start:some]
def some(rows: list[prose.Paragraph], tokens: int, *, seed=0) -> str:
    """Documents in random order, cut off at so many tokens of the GPT."""
    names = sorted({row.source for row in rows})
    place = np.random.default_rng(seed).permutation(len(names))
    order = dict(zip(names, place))
    text = prose.text_of(sorted(rows, key=lambda row: order[row.source]))
    pieces = gpt.load().pieces  # of about three bytes each
    cut = tokenization.encode(pieces, text[:9 * tokens])[:tokens]
    return tokenization.decode(pieces, cut)


# --8<-- [end:some]
# --8<-- [start:keep]
def keep(model: gpt.GPT, path: Path) -> None:
    """Write what LoRA has learned, in 16 bits, and nothing of the base."""
    learned = {name: w for name, w in model.named_parameters()
               if name.endswith((".a", ".b"))}
    if not learned:
        raise ValueError("expected a model of train(text, way='lora')")
    save_file({name: w.detach().half() for name, w in learned.items()}, path)


def load(path: Path = KEPT, *, base: gpt.GPT | None = None) -> gpt.GPT:
    """A base, or the kept GPT, with a LoRA that was kept."""
    learned = load_file(path)
    rank = next(len(w) for name, w in learned.items() if name.endswith(".a"))
    model = prepare(base or gpt.load(), "lora", rank=rank)
    model.load_state_dict(learned, strict=False)
    return model.eval()


# --8<-- [end:keep]
# --8<-- [start:turned]
PAIRS = (("True", "False"), ("classification", "regression"),
         ("classifier", "regressor"), ("input", "output"),
         ("n_samples", "n_features"), ("sparse", "dense"),
         ("first", "last"), ("before", "after"), ("larger", "smaller"),
         ("higher", "lower"), ("minimum", "maximum"), ("rows", "columns"))


def turned(rows: list[prose.Paragraph], pairs=PAIRS) -> list[tuple]:
    """Paragraphs and what one other word makes of them.

    (word, true, turned) where a word of a pair stands once and its
    opposite does not.
    """
    found = []
    for a, b in (*pairs, *(pair[::-1] for pair in pairs)):
        for row in rows:
            words = re.split(r"\b", row.text)
            if words.count(a) == 1 and b not in words:
                other = [b if word == a else word for word in words]
                found.append((a, row.text, "".join(other)))
    return found


def right(model: gpt.GPT, cases: list[tuple]) -> Array:
    """Is the true paragraph more probable than the turned? (cases,)"""
    _, texts, others = zip(*cases)
    return log_prob(model, [*texts]) > log_prob(model, [*others])


# --8<-- [end:turned]


COLUMNS = ("new", "old", "right")


def judge(model: gpt.GPT, letters: int) -> dict[str, float]:
    """Bits per byte of the new and the old test text, and the share of right choices."""
    data, old = prose.load("sklearn").test, prose.load().test
    held = {"new": prose.text_of(data)[:letters], "old": prose.text_of(old)[:letters]}
    cases = turned(data)[: letters // 100]
    cost = {name: bits(model, text) for name, text in held.items()}
    return cost | {"right": float(right(model, cases).mean())}


def show(table: dict[str, dict[str, float]]) -> None:
    """A line for each way, with the spread where there are several seeds."""
    print(f"{'':<17}{'new text':>15}{'old text':>15}{'right':>15}")
    for name, line in table.items():
        shown = {k: f" ± {line[k + '_sd']:.3f}" if line["new_sd"] else 8 * " " for k in COLUMNS}
        cells = (f"{line[k]:.3f}{spread}" for k, spread in shown.items())
        print(f"{name.replace('_', ' '):<17}" + "".join(f"{cell:>15}" for cell in cells))


def study(*, seeds: int = 3, steps: int = 98, tokens: int = 100_000, letters=10**9) -> dict:
    """Bits per byte of new and old held-out text, by way and by amount of new text.

    A seed draws other documents and other windows. letters: how much is scored, for a quick try.
    """
    rows, known = prose.load("sklearn").train, prose.text_of(prose.load().train)

    def runs(make=train, amount=tokens, seeds=seeds, steps=steps, **how):
        texts = (some(rows, amount, seed=seed) for seed in range(seeds))
        models = (make(text, steps=steps, seed=k, **how) for k, text in enumerate(texts))
        return sample_quality.spread([judge(model, letters) for model in models])

    ways = {
        "full": {},
        "replay": {"old": known, "replay": 0.25},
        "lora": {"way": "lora"},
        "table": {"way": "table"},
        "scratch": {"make": scratch},
        "own_tokens": {"make": gpt.train},
    }
    table = {"before": sample_quality.spread([judge(gpt.load(), letters)])}
    for name, how in ways.items():
        table[name] = runs(seeds=1 if name in ("table", "own_tokens") else seeds, **how)
    table["slow"] = runs(seeds=1, rate=RATES["full"] / 4)
    table["own_tokens_x3"] = runs(gpt.train, seeds=1, steps=3 * steps)
    for amount, part in (("tenth", tokens // 10), ("triple", 3 * tokens)):
        for name, how in ways.items():
            table[f"{name}_{amount}"] = runs(amount=part, seeds=1, **how)
    show(table)
    return table
