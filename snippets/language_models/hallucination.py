"""What a language model knows: facts it read often, once or never, and how to look them up."""

# --8<-- [start:imports]
import csv
import math
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from snippets.language_models import gpt, tokenization
from snippets.language_models.gpt import GPT
from snippets.shared import metrics, prose, sample_quality
from snippets.shared.prose import Paragraph

Array = np.ndarray
QUESTIONS = Path(prose.__file__).parents[1] / "data/questions/questions.tsv"
# --8<-- [end:imports]


# --8<-- [start:world]
class World(NamedTuple):
    """Invented people; each lives in one of a few invented towns."""

    names: list[str]  # first and last name, each shared by many people
    towns: list[str]
    home: Array  # (people,) the number of each one's town
    p: Array  # (people,) how often each is spoken of, sums to one


def world(*, people=1600, towns=40, seed=0) -> World:
    """Any first name goes with any last name; p falls as 1 / rank (Zipf)."""
    random = np.random.default_rng(seed)
    parts = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]  # 70
    side = math.isqrt(people - 1) + 1
    codes = random.choice(70**3, 2 * side + towns, replace=False).tolist()
    words = [(parts[k // 4900] + parts[k // 70 % 70] + parts[k % 70]).title()
             for k in codes]  # fmt: skip
    pairs = [f"{a} {b}" for a in words[:side] for b in words[side:2 * side]]
    names = [pairs[i] for i in random.permutation(len(pairs))[:people]]
    p = 1 / np.arange(1, people + 1)
    return World(names, words[2 * side:], random.integers(towns, size=people),
                 p / p.sum())  # fmt: skip


# --8<-- [end:world]
# --8<-- [start:tell]
def draw(world: World, n: int, *, seed: int) -> Array:
    """Who is spoken of, or asked about, n times: numbers of people."""
    people = len(world.names)
    return np.random.default_rng(seed).choice(people, n, p=world.p)


def tell(world: World, who: Array) -> str:
    """One true sentence for each."""
    return "".join(f"{world.names[i]} lives in "
                   f"{world.towns[world.home[i]]}.\n" for i in who)


def good_turing(who: Array) -> float:
    """The share of sentences about somebody who is named in no other.

    Source: Good, "The Population Frequencies of Species", Biometrika 1953.
    """
    return float((np.bincount(who) == 1).sum() / len(who))


# --8<-- [end:tell]
# --8<-- [start:words]
def whole_words(text: str) -> tokenization.Tokenizer:
    """Each word of the text is one token; any other is spelt in bytes."""
    words = dict.fromkeys(w for w in tokenization.words(text) if len(w) > 1)
    number = {word: 256 + k for k, word in enumerate(words)}

    def cut(text):
        return [(number[word],) if word in number else word
                for word in tokenization.words(text)]  # fmt: skip

    return tokenization.Tokenizer({}, [bytes([b]) for b in range(256)]
                                  + list(words), cut)  # fmt: skip


# --8<-- [end:words]
# --8<-- [start:train]
def train(
    text: str, *, steps=800, batch=32, rate=0.02, seed=0, **shape,
) -> GPT:  # fmt: skip
    """A small GPT, one token for each word; shape: what `GPT` takes."""
    shape = {"width": 64, "depth": 1, "heads": 2, "context": 32} | shape
    pieces = whole_words(text)
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model = GPT(size=len(pieces.pieces), **shape)
        model.pieces = pieces
        data = torch.tensor(tokenization.encode(pieces, text))
        return gpt.fit(model, data, steps=steps, batch=batch, rate=rate)


# --8<-- [end:train]
# --8<-- [start:ask]
@torch.no_grad()
def ask(model: GPT, questions: list[str], answers: list[str]) -> Array:
    """p(answer | question), (questions, answers); rows sum to at most one.

    An answer is the one token after the question.
    """
    cut = [tokenization.encode(model.pieces, f" {a}") for a in answers]
    if any(len(tokens) != 1 for tokens in cut):
        raise ValueError("expected answers that are words "
                         "of the training text")  # fmt: skip
    ids = [[10, *tokenization.encode(model.pieces, q)] for q in questions]
    if len({len(row) for row in ids}) > 1:
        raise ValueError("expected questions of equally many tokens")
    p = model(torch.tensor(ids))[:, -1].double().softmax(dim=-1)
    return p[:, [tokens[0] for tokens in cut]].numpy()


# --8<-- [end:ask]
# --8<-- [start:verbs]
def log_prob(model: GPT, texts: list[str]) -> Array:
    """log p of each text, (n,), in nats: the sum over its tokens."""
    return gpt.log_prob(model, texts)


def sample(
    model: GPT, n: int, *, seed=0, start="", length=12, temperature=1.0,
) -> list[str]:  # fmt: skip
    """n lines that begin with `start`, of at most `length` new tokens."""
    return gpt.sample(model, n, seed=seed, start=start, length=length,
                      temperature=temperature)  # fmt: skip


# --8<-- [end:verbs]
# --8<-- [start:abstain]
def risk_coverage(confidence: Array, right: Array) -> tuple[Array, Array]:
    """Answer the surest k of n only, k = 1 .. n: share answered, and wrong.

    confidence, right: (n,). Source: El-Yaniv and Wiener, JMLR 2010.
    """
    wrong = ~right[np.argsort(-confidence, kind="stable")].astype(bool)
    answered = np.arange(1, len(wrong) + 1)
    return answered / len(wrong), np.cumsum(wrong) / answered


# --8<-- [end:abstain]
# --8<-- [start:index]
def terms(text: str) -> list[str]:
    """The words of a text in small letters; "_" parts them, too."""
    return re.findall(r"[^\W_]+", text.lower())


class Index(NamedTuple):
    """For each word, the numbers of the texts that hold it, and how often."""

    texts: list[str]
    places: dict[str, tuple[Array, Array]]
    length: Array  # (texts,) in words


def index(texts: list[str]) -> Index:
    """Read all texts once."""
    if isinstance(texts, str) or not texts:
        raise ValueError("expected a list of texts, with one at least")
    places = defaultdict(list)
    for i, text in enumerate(texts):
        for word, often in Counter(terms(text)).items():
            places[word].append((i, often))
    arrays = {w: tuple(np.array(at).T) for w, at in places.items()}
    return Index(texts, arrays, np.array([len(terms(t)) for t in texts]))


# --8<-- [end:index]
# --8<-- [start:bm25]
def rarity(index: Index, word: str) -> float:
    """How much a word tells: the fewer texts hold it, the more."""
    n, have = len(index.texts), len(index.places[word][0])
    return math.log(1 + (n - have + 0.5) / (have + 0.5))


def bm25(index: Index, question: str, *, k1=1.2, b=0.75) -> Array:
    """A score for each text, (texts,), 0 where no word is shared.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework:
    BM25 and Beyond", 2009; in the form whose rarity is never negative.
    """
    score = np.zeros(len(index.texts))
    relative = index.length / index.length.mean()
    for word in dict.fromkeys(terms(question)):
        if word in index.places:
            at, often = index.places[word]
            norm = k1 * (1 - b + b * relative[at])
            score[at] += (rarity(index, word) * often * (k1 + 1)
                          / (often + norm))  # fmt: skip
    return score


# --8<-- [end:bm25]
# --8<-- [start:best]
def best(score: Array, n: int) -> list[int]:
    """The numbers of the n best texts, best first; none that scores 0."""
    return [i for i in np.argsort(-score, kind="stable")[:n].tolist()
            if score[i] > 0]  # fmt: skip


# --8<-- [end:best]
# --8<-- [start:read]
def read(index: Index, question: str, text: str) -> str:
    """The sentence whose shared words tell most; the first of equals."""
    asked = {word for word in terms(question) if word in index.places}

    def told(sentence):
        shared = sorted(asked.intersection(terms(sentence)))
        return sum(rarity(index, word) for word in shared)

    return max(re.split(r"(?<=[.!?])\s+", text), key=told)


# --8<-- [end:read]
# --8<-- [start:questions]
class Question(NamedTuple):
    """part: choose, test, reworded or none; passage: how it begins."""

    part: str
    text: str
    source: str
    passage: str


def questions(part: str) -> list[Question]:
    """Hand-written questions about the documentation; none: no answer."""
    with QUESTIONS.open(encoding="utf-8", newline="") as file:
        rows = [Question(*row) for row in csv.reader(file, delimiter="\t")][1:]
    found = [row for row in rows if row.part == part]
    if not found:
        raise ValueError("expected one of choose, test, reworded, none")
    return found


def recall(rows: list[Paragraph], asked: list[Question], rank, n: int) -> float:
    """Share of questions whose passage is among the n best of rank(text)."""
    hits = [any(rows[i].source == q.source
                and rows[i].text.startswith(q.passage)
                for i in best(rank(q.text), n)) for q in asked]  # fmt: skip
    return sum(hits) / len(hits)


# --8<-- [end:questions]


def examine(model: GPT, world: World, who: Array, *, n: int = 4000) -> dict:
    """Right answers by the times that a fact was read, and on n fresh questions."""
    times = np.bincount(who, minlength=len(world.names))
    p = ask(model, [f"{name} lives in" for name in world.names], world.towns)
    right, sure = p.argmax(axis=1) == world.home, p.max(axis=1)
    groups = {"never": times == 0, "once": times == 1, "twice": times == 2, "more": times > 2}
    table = {name: float(right[some].mean()) for name, some in groups.items()}
    asked = draw(world, n, seed=10_007)
    return table | {
        "unseen_sure": float((sure[times == 0] > 0.5).mean()),
        "auroc": float(roc_auc_score(times > 0, sure)),
        "kept": float((sure[times > 0] > 0.9).mean()),
        "told_unseen": float((sure[times == 0] > 0.9).mean()),
        "wrong": float(1 - right[asked].mean()),
        "singletons": good_turing(who),
        "missing": float(world.p[times == 0].sum()),
        "ece": metrics.expected_calibration_error(p[asked], world.home[asked]),
    }


def study(*, seeds=3, steps=(200, 400, 800, 1600), n=3000, people=1600, towns=40) -> dict:
    """What is known by the times that it was read, after fewer and more steps; over seeds."""
    table = {}
    for count in steps:
        runs = []
        for seed in range(seeds):
            people_of = world(people=people, towns=towns, seed=seed)
            who = draw(people_of, n, seed=seed + 1)
            model = train(tell(people_of, who), steps=count, seed=seed)
            runs.append(examine(model, people_of, who))
        table[f"after_{count}"] = sample_quality.spread(runs)
    print(f"{'':<12}" + "".join(f"{f'{count} steps':>15}" for count in steps))
    for name in runs[0]:
        cells = "".join(f"{row[name]:>8.3f} ±{row[f'{name}_sd']:.3f}" for row in table.values())
        print(f"{name.replace('_', ' '):<12}{cells}")
    return table
