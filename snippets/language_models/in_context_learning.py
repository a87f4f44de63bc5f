"""Learning without training: a network that reads examples and answers by them, weights fixed."""

# --8<-- [start:imports]
import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snippets.language_models import gpt, tokenization
from snippets.shared import prose

Array = np.ndarray
SIZE = 4  # numbers in one question
NOISE = 0.5  # standard deviation of what no question explains
# --8<-- [end:imports]


# --8<-- [start:repeats]
def repeats(n: int, *, length=33, size=64, seed=0) -> tuple[Tensor, Tensor]:
    """Sequences that start at random and then repeat: (n, length), (n,).

    The second is the period of each, 8 to length / 2. Within one period
    no token comes twice, so after it each next token can be known.
    """
    random = torch.Generator().manual_seed(seed)
    order = torch.rand(n, size, generator=random).argsort(dim=1)
    period = torch.randint(8, length // 2 + 1, (n, 1), generator=random)
    return order.gather(1, torch.arange(length) % period), period[:, 0]


def copied(model: gpt.GPT, tokens: Tensor, period: Tensor) -> float:
    """The share of right next tokens, where the past holds the answer."""
    with torch.no_grad():
        right = model(tokens[:, :-1]).argmax(dim=-1) == tokens[:, 1:]
    known = torch.arange(1, tokens.shape[1]) > period[:, None]
    return right[known].float().mean().item()


# --8<-- [end:repeats]
# --8<-- [start:fit]
def fit(
    model: nn.Module, cost: Callable[[int], Tensor], *, steps, rate,
    watch: Callable[[int], None] = lambda step: None,
) -> nn.Module:  # fmt: skip
    """Lower cost(step), which draws a fresh batch each time.

    Muon moves the matrices of the blocks, AdamW the rest. watch(step) is
    called after each step, to look and not to touch.
    """
    inner = list(model.blocks.parameters())
    memory = [torch.zeros_like(w) for w in inner]
    known = {id(w) for w in inner}
    outer = [w for w in model.parameters() if id(w) not in known]
    adam = torch.optim.AdamW(outer, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        model.zero_grad()
        cost(step).backward()
        left = min(1, step / 20 + 0.05, 1.02 - step / steps)
        adam.param_groups[0]["lr"] = rate / 2 * left
        adam.step()
        gpt.muon(inner, memory, rate * left, decay=0.1)
        watch(step)
    return model.eval()


# --8<-- [end:fit]
# --8<-- [start:train_copier]
def train_copier(
    *, depth=2, steps=280, batch=32, rate=0.02, seed=0,
    watch: Callable[[gpt.GPT, int], None] = lambda model, step: None,
) -> gpt.GPT:  # fmt: skip
    """A GPT of 64 tokens that has read random sequences which repeat."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = gpt.GPT(size=64, width=64, depth=depth, heads=2, context=32)

    def cost(step):
        tokens, _ = repeats(batch, seed=10**6 * (seed + 1) + step)
        logits = model(tokens[:, :-1]).flatten(0, 1)
        return cross_entropy(logits, tokens[:, 1:].flatten())

    return fit(model, cost, steps=steps, rate=rate,
               watch=lambda step: watch(model, step))


# --8<-- [end:train_copier]
# --8<-- [start:functions]
def functions(
    n: int, k: int, *, seed=0, inputs=1.0, weights=1.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """k examples of each of n new functions: x (n, k, 4) and y (n, k).

    y = x · w + noise, with weights w of its own for each function.
    inputs, weights: by what x and w are scaled.
    """
    random = torch.Generator().manual_seed(seed)
    x = inputs * torch.randn(n, k, SIZE, generator=random)
    w = weights * torch.randn(n, SIZE, 1, generator=random) / SIZE**0.5
    noise = NOISE * torch.randn(n, k, generator=random)
    return x, (x @ w)[..., 0] + noise


# --8<-- [end:functions]
# --8<-- [start:reader]
class Reader(nn.Module):
    """x (n, k, 4) and y (n, k) to guesses of each y, (n, k).

    Guess i is made from the examples before i and from x of i.
    """

    def __init__(self, *, width=64, depth=3, heads=4):
        super().__init__()
        self.read = nn.Linear(SIZE + 2, width)
        self.blocks = nn.ModuleList(
            gpt.Block(width, heads, depth) for _ in range(depth))
        self.tell = nn.Linear(width, 1)
        self.tell.weight.data *= 0.1  # begin near nought

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        no = torch.zeros_like(y)
        asked = torch.cat([x, torch.stack([no, no], dim=-1)], dim=-1)
        told = torch.cat([x, torch.stack([y, no + 1], dim=-1)], dim=-1)
        h = self.read(torch.stack([asked, told], dim=2).flatten(1, 2))
        for block in self.blocks:
            h = block(h)
        return self.tell(gpt.normal(h))[:, ::2, 0]  # only where asked


# --8<-- [end:reader]
# --8<-- [start:train]
def train(
    *, steps=600, batch=48, rate=0.01, k=9, seed=0, **shape,
) -> Reader:  # fmt: skip
    """Guess y, on new functions at each step: none is ever seen twice."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Reader(**shape)

    def cost(step):
        x, y = functions(batch, k, seed=10**6 * (seed + 1) + step)
        return (model(x, y) - y).square().mean()

    return fit(model, cost, steps=steps, rate=rate)


# --8<-- [end:train]
# --8<-- [start:learn]
class Shown(NamedTuple):
    """A trained reader and the examples in its prompt: nothing else."""

    reader: Reader
    x: Tensor  # (k, 4)
    y: Tensor  # (k,)


def learn(reader: Reader, x: Array, y: Array) -> Shown:
    """Show k examples, (k, 4) and (k,). This is the whole of learning."""
    x, y = (torch.as_tensor(a, dtype=torch.float32) for a in (x, y))
    if x.ndim != 2 or x.shape[1] != SIZE or y.shape != x.shape[:1]:
        raise ValueError(f"expected examples (k, {SIZE}) and answers (k,), "
                         f"got {tuple(x.shape)} and {tuple(y.shape)}")
    return Shown(reader, x, y)


# --8<-- [end:learn]
# --8<-- [start:predict]
@torch.no_grad()
def predict(model: Shown, x: Array) -> Array:
    """A number for each question, x (n, 4): (n,), each asked alone."""
    x = torch.as_tensor(x, dtype=torch.float32)
    if x.ndim != 2 or x.shape[1] != SIZE:
        raise ValueError(f"expected questions of {SIZE} numbers, "
                         f"got shape {tuple(x.shape)}")
    seen = model.x.expand(len(x), -1, -1)
    y = torch.cat([model.y, torch.zeros(1)]).expand(len(x), -1)
    guesses = model.reader(torch.cat([seen, x[:, None]], dim=1), y)
    return guesses[:, -1].numpy()


# --8<-- [end:predict]
# --8<-- [start:ridge]
def ridge(x: Tensor, y: Tensor, *, penalty=NOISE**2 * SIZE) -> Tensor:
    """Guess each y from the examples before it: (n, k), like a Reader.

    The default is the mean of y under the posterior of the weights, for
    functions as in training: no method has a smaller expected error.
    """
    x, y, guesses = x.double(), y.double(), []
    for i in range(x.shape[1]):
        past = x[:, :i]
        square = past.mT @ past + penalty * torch.eye(SIZE)
        w = torch.linalg.solve(square, past.mT @ y[:, :i, None])
        guesses.append((x[:, i, None] @ w)[:, 0, 0])
    return torch.stack(guesses, dim=1).float()


# --8<-- [end:ridge]


MONTHS = ["January", "February", "March", "April", "May", "June", "July",
          "August", "September", "October", "November", "December"]
PEOPLE = ["Ada", "Ben", "Carl", "Dora", "Eva", "Finn"]
THINGS = ["file", "list", "key", "name", "type", "code"]


def task(name: str, n: int, *, seed=0) -> list[tuple[str, str]]:
    """n pairs of what is asked and its answer, of one of four tasks.

    Text is from training documents where seed % 3 is 0, from those to
    choose with at 1, and from those to test with at 2.
    """
    if name not in TASKS:
        raise ValueError(f"expected one of {', '.join(TASKS)}, got {name!r}")
    random = np.random.default_rng(seed)
    rows = [row.text for row in prose.load()[seed % 3]
            if 90 < len(row.text) < 180 and ". " in row.text[:70]]
    return [TASKS[name](random, rows) for _ in range(n)]


def completion(random: np.random.Generator, rows: list[str]) -> tuple:
    """A paragraph's beginning, and how it goes on."""
    words = rows[random.integers(len(rows))].split()
    half = len(words) // 2
    return " ".join(words[:half]), f" {' '.join(words[half:])}"


def summary(random: np.random.Generator, rows: list[str]) -> tuple:
    """A paragraph, and its first sentence: a common way to shorten."""
    text = rows[random.integers(len(rows))]
    return f"{text} In short:", f" {text.partition('. ')[0]}."


def date(random: np.random.Generator, _: list[str]) -> tuple:
    """A date in words, and in figures."""
    y, m, d = (int(random.integers(*ends)) for ends in
               ((1900, 2100), (1, 13), (1, 29)))
    return f"{d} {MONTHS[m - 1]} {y} is", f" {y}-{m:02}-{d:02}"


def question(random: np.random.Generator, _: list[str]) -> tuple:
    """Three of six people have one thing each; what has one of them?"""
    names = random.permutation(PEOPLE)[:3]
    things = random.permutation(THINGS)[:3]
    told = " ".join(f"{a} has the {b}." for a, b in zip(names, things))
    i = random.integers(3)
    return f"{told} What has {names[i]}?", f" {things[i]}"


TASKS = {"completion": completion, "dates": date, "questions": question,
         "summaries": summary}


def prompt(examples: list[tuple[str, str]], asked: str) -> str:
    """Examples with their answers on one line, then what is asked."""
    return "".join(f"{a}{b}; " for a, b in examples) + asked


@torch.no_grad()
def answered(model: gpt.GPT, asked: list[str], answers: list[str]) -> tuple:
    """Shares of right tokens and of wholly right answers.

    A token is right if it is the likeliest after the true ones before it.
    An answer all of whose tokens are is what the model itself would write.
    """
    right = []
    for before, answer in zip(asked, answers):
        ids, end = (tokenization.encode(model.pieces, text)
                    for text in (f"\n{before}", answer))
        whole = torch.tensor([ids + end])
        best = model(whole[:, :-1]).argmax(dim=-1)[0, -len(end):]
        right.append(best == whole[0, -len(end):])
    wholly = np.mean([row.all().item() for row in right])
    return torch.cat(right).float().mean().item(), float(wholly)


# --8<-- [start:teach]
def teach(model: gpt.GPT, *, steps=90, lines=2000, seed=0) -> gpt.GPT:
    """A copy that was trained on lines of all four tasks at once.

    The model that is given stays as it is.
    """
    pairs = [task(name, lines, seed=3 * seed) for name in TASKS]
    rows = [f"{asked}{answer}\n" for some in pairs for asked, answer in some]
    np.random.default_rng(seed).shuffle(rows)
    data = tokenization.encode(model.pieces, "".join(rows))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return gpt.fit(copy.deepcopy(model), torch.tensor(data),
                       steps=steps, batch=16, rate=0.02)


# --8<-- [end:teach]


def train_dates(*, steps: int = 800, lines: int = 4000, seed: int = 0) -> gpt.GPT:
    """A network for dates alone, from random weights, with a token for each byte."""
    pieces = tokenization.Tokenizer({}, [bytes([byte]) for byte in range(256)])
    text = "".join(f"{asked}{answer}\n" for asked, answer in task("dates", lines, seed=3 * seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = gpt.GPT(size=256, width=64, depth=2, heads=4)
        model.pieces = pieces
        data = torch.tensor(tokenization.encode(pieces, text))
        return gpt.fit(model, data, steps=steps, batch=16, rate=0.02)


def new_dates(n: int, *, lines: int = 4000, seed: int = 0) -> list[tuple[str, str]]:
    """About n dates that `train_dates` with this seed has not read."""
    read = set(task("dates", lines, seed=3 * seed))
    return [pair for pair in task("dates", n, seed=2) if pair not in read]


def excess(guesses: Tensor, y: Tensor, best: Tensor) -> Array:
    """By how much the error is above the best one's, by the number of examples, as a share."""
    return ((guesses - y).square().mean(dim=0) / (best - y).square().mean(dim=0) - 1).numpy()


def experiments(seed: int, steps: float, n: int) -> dict[str, float]:
    """Train both networks and measure them; steps: the share of the steps that are taken."""
    tokens, period = repeats(500, seed=1)
    x, y = functions(n, 9, seed=1)
    seen = []

    def watch(model, step):
        if step % 10 == 9:
            seen.append(copied(model, tokens, period))

    copier = train_copier(steps=math.ceil(280 * steps), seed=seed, watch=watch)
    reader = train(steps=math.ceil(600 * steps), seed=seed)
    dates = train_dates(steps=math.ceil(800 * steps), seed=seed)
    with torch.no_grad():
        above = excess(reader(x, y), y, ridge(x, y))
    return {
        "dates": examined(dates, new_dates(min(n, 400), seed=seed))[1],
        "moment": 10.0 * (1 + sum(share <= 0.5 for share in seen)),
        "copied": copied(copier, tokens, period),
        "mean": float(above.mean()),
        "worst": float(above.max()),
    }


def study(*, seeds: int = 3, steps: float = 1.0, n: int = 20_000) -> dict:
    """Both experiments over seeds, and the tasks; steps: the share of the steps that are taken."""
    rows = [experiments(seed, steps, n) for seed in range(seeds)]
    table = {name: [row[name] for row in rows] for name in TITLES}
    for name, title in TITLES.items():
        print(f"{title:<44}" + "".join(f"{value:9.3f}" for value in table[name]))
    taught, longer = teach(gpt.load(), steps=math.ceil(270 * steps)), {}
    print("\none model, taught three times as long: right tokens, right answers")
    for name in TASKS:
        some, whole = examined(taught, task(name, min(n, 200), seed=2))
        longer[name] = {"tokens": some, "whole": whole}
        print(f"{name:<44}{some:9.3f}{whole:9.3f}")
    means = {name: float(np.mean(values)) for name, values in table.items()}
    spread = {f"{name}_sd": float(np.std(values)) for name, values in table.items()}
    return means | spread | {"longer": longer}


def examined(model: gpt.GPT, pairs: list[tuple[str, str]]) -> tuple:
    """`answered`, for questions that are asked without examples."""
    return answered(model, [asked for asked, _ in pairs], [answer for _, answer in pairs])


TITLES = {
    "moment": "copies half of the tokens after, steps",
    "copied": "copies at the end",
    "mean": "error above the posterior mean's, as a share",
    "worst": "the same, worst number of examples",
    "dates": "whole dates, by a network for dates alone",
}
