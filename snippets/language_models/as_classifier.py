"""A language model on labels: compare what it gives to texts, or put a layer on what it reads."""

# --8<-- [start:imports]
import copy
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn import feature_extraction, pipeline, preprocessing
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from snippets.discriminative import spam_filter
from snippets.language_models import gpt, tokenization
from snippets.shared import prose

Array = np.ndarray
REVIEWS = Path(prose.__file__).parents[1] / "data/reviews/reviews.tsv"
SECTIONS = ("Summary", "Parameters", "Returns", "Attributes")
OTHER = {"is": "are", "has": "have", "this": "these", "was": "were",
         "are": "is", "have": "has", "these": "this", "were": "was"}
# --8<-- [end:imports]


# --8<-- [start:sentences]
def sentences(paragraphs: list[prose.Paragraph]) -> list[str]:
    """Sentences of 6 to 20 plain words, each once."""
    found = []
    for paragraph in paragraphs:
        for text in re.split(r"(?<=\.) (?=[A-Z])", paragraph.text):
            plain = re.fullmatch(r"[A-Z][\w' ,-]*\.", text)
            if plain and 6 <= len(text.split()) <= 20:
                found.append(text)
    return list(dict.fromkeys(found))


# --8<-- [end:sentences]
# --8<-- [start:corrupt]
def places(w: list[str], slip: str) -> list[tuple[int, int]]:
    """Where the slip fits among words: first and last place, never word 0."""
    fits = {"swap": lambda i, j: j == i + 1 and w[i] != w[j],
            "far": lambda i, j: j >= i + 3 and w[i] != w[j],
            "agree": lambda i, j: i == j and w[i] in OTHER,
            "drop": lambda i, j: i == j < len(w) - 1,
            "twice": lambda i, j: i == j < len(w) - 1}
    if slip not in fits:
        raise ValueError(f"expected a slip out of {', '.join(fits)}")
    return [(i, j) for i in range(1, len(w)) for j in range(i, len(w))
            if fits[slip](i, j)]


def corrupt(sentence: str, slip: str, *, seed: int) -> str | None:
    """The sentence with one slip, or None where there is no place for it.

    slip: swap (neighbours), far (two words, three or more apart), agree
    (is for are ...), drop (a word), twice (a word).
    """
    w, random = sentence[:-1].split(), np.random.default_rng(seed)
    found = places(w, slip)
    if not found:
        return None
    i, j = found[random.integers(len(found))]
    new = {"agree": [OTHER.get(w[i])], "drop": [], "twice": [w[i]] * 2}
    w[i:j + 1] = new.get(slip, [w[j], *w[i + 1:j], w[i]])
    return " ".join(w) + "."


# --8<-- [end:corrupt]
# --8<-- [start:weigh]
def frequencies(base: gpt.GPT, text: str) -> Array:
    """log p of each token by itself, (tokens,): counted, plus one each."""
    tokens = tokenization.encode(base.pieces, text)
    count = np.bincount(tokens, minlength=len(base.pieces.pieces)) + 1.0
    return np.log(count / count.sum())


def weigh(base: gpt.GPT, alone: Array, texts: list[str]) -> Array:
    """What a comparison of texts can use, (n, 3).

    Columns: log p of the text, log p of its tokens each by itself (both in
    nats), and the number of tokens.
    """
    if isinstance(texts, str):
        raise ValueError("expected a list of texts: pass [text]")
    cut = [tokenization.encode(base.pieces, text) for text in texts]
    joint = [gpt.log_tokens(base, t).double().sum().item() for t in cut]
    each = [alone[t].sum() for t in cut]
    return np.column_stack([joint, each, [len(t) for t in cut]])


# --8<-- [end:weigh]
# --8<-- [start:scores]
def scores(weight: Array) -> dict[str, Array]:
    """Four scores of the same texts, (n,) each, higher for the better.

    weight: what `weigh` gives. SLOR: Lau et al., Cognitive Science 2017.
    """
    joint, each, tokens = weight.T
    return {"sum": joint, "per_token": joint / tokens,
            "SLOR": (joint - each) / tokens, "ratio": joint - each}


# --8<-- [end:scores]
# --8<-- [start:pad]
def pad(base: gpt.GPT, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Tokens after a line's end, (n, time), noughts behind; lengths (n,).

    A text longer than the context is cut there.
    """
    cut = [[ord("\n"), *tokenization.encode(base.pieces, text)]
           for text in texts]
    rows = [torch.tensor(tokens[:base.context]) for tokens in cut]
    lengths = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


# --8<-- [end:pad]
# --8<-- [start:model]
def read(base: gpt.GPT, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The mean of each text's last rows, (n, width).

    What stands behind a text is seen by none of its tokens: no mask but
    that of the mean is needed.
    """
    h = gpt.normal(base.token(tokens))
    for block in base.blocks:
        h = block(h)
    inside = torch.arange(tokens.shape[1]) < lengths[:, None]
    return (gpt.normal(h) * inside[..., None]).sum(1) / lengths[:, None]


class Classifier(nn.Module):
    """Texts as padded tokens to logits of the labels, (n, classes)."""

    def __init__(self, base: gpt.GPT, classes: int):
        super().__init__()
        self.base = base
        self.head = nn.Linear(base.token.embedding_dim, classes)
        nn.init.zeros_(self.head.weight)  # every label alike at first
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.head(read(self.base, tokens, lengths))


# --8<-- [end:model]
# --8<-- [start:train]
def train(
    texts: list[str], labels, *, base=None, steps=150, batch=16, rate=1e-3,
    seed=0,
) -> Classifier:  # fmt: skip
    """Fine-tune a copy of the base and a new head on labels 0, 1, ...

    base: a GPT, by default the kept one; it stays as it is.
    """
    labels, classes = check(texts, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(copy.deepcopy(base or gpt.load()), classes)
        rounds = steps * batch // len(labels) + 1
        order = [torch.randperm(len(labels)) for _ in range(rounds)]
    parts = torch.cat(order).split(batch)[:steps]  # all once, then again
    return fit(model, *pad(model.base, texts), labels, parts, rate=rate)


# --8<-- [end:train]
# --8<-- [start:fit]
def fit(model, tokens, lengths, labels, parts, *, rate) -> Classifier:
    """A step for each part, row numbers; the rate rises and then falls."""
    weights = [{"params": model.base.parameters()},
               {"params": model.head.parameters(), "lr": 10 * rate}]
    adam = torch.optim.AdamW(weights, lr=rate)
    slow = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda t: min(1, (t + 1) / 10) * (1 - t / len(parts)))
    for some in parts:
        longest = lengths[some].max()
        logits = model(tokens[some, :longest], lengths[some])
        loss = functional.cross_entropy(logits, labels[some])
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        slow.step()
    return model.eval()


# --8<-- [end:fit]
# --8<-- [start:check]
def check(texts: list[str], labels) -> tuple[Tensor, int]:
    """The labels as numbers (n,), and how many classes there are."""
    labels = torch.as_tensor(np.asarray(labels))
    seen = labels.unique().tolist()
    if isinstance(texts, str) or labels.shape != (len(texts),):
        raise ValueError("expected a list of texts and a label for each")
    if seen != list(range(len(seen))) or len(seen) < 2:
        raise ValueError("expected labels 0, 1, ... with none left out")
    return labels.long(), len(seen)


def features(base: gpt.GPT, texts: list[str]) -> Array:
    """What `read` makes of each text, (n, width)."""
    parts = [texts[i:i + 64] for i in range(0, len(texts), 64)]
    with torch.no_grad():
        rows = [read(base, *pad(base, part)) for part in parts]
    return torch.cat(rows).double().numpy()


# --8<-- [end:check]
# --8<-- [start:probe]
def probe(texts: list[str], labels, *, base=None, c=0.01) -> Classifier:
    """A head alone, by logistic regression; the base is not trained."""
    labels, classes = check(texts, labels)
    model = Classifier(base or gpt.load(), classes)
    scale = preprocessing.StandardScaler()
    x = scale.fit_transform(features(model.base, texts))
    fit = LogisticRegression(C=c, max_iter=1000).fit(x, labels.numpy())
    w, b = fit.coef_, fit.intercept_
    if classes == 2:  # scikit-learn gives one row
        w, b = np.stack([-w[0], w[0]]) / 2, np.append(-b, b) / 2
    w = w / scale.scale_
    model.head.weight.data = torch.tensor(w).float()
    model.head.bias.data = torch.tensor(b - w @ scale.mean_).float()
    return model.eval()


# --8<-- [end:probe]
# --8<-- [start:predict]
@torch.no_grad()
def predict_proba(model: Classifier, texts: list[str]) -> Array:
    """p(label | text), (n, classes); rows sum to one."""
    if isinstance(texts, str) or not len(texts):
        raise ValueError("expected a list of texts: pass [text]")
    parts = [texts[i:i + 64] for i in range(0, len(texts), 64)]
    logits = torch.cat([model(*pad(model.base, part)) for part in parts])
    return logits.double().softmax(dim=1).numpy()


# --8<-- [end:predict]
# --8<-- [start:words]
def count_words(texts: list[str], labels) -> pipeline.Pipeline:
    """The rival: TF-IDF of words and pairs of words, a linear layer."""
    counts = feature_extraction.text.TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    return pipeline.make_pipeline(
        counts, LogisticRegression(C=10, max_iter=1000)).fit(texts, labels)


# --8<-- [end:words]
# --8<-- [start:list]
GOOD = """adore amazing beautiful best brilliant charming clever comfy
comfortable delicious delight easy excellent fantastic favourite fun good
great happy helpful love loved lovely nice perfect pleasant pleasure reliable
recommend solid superb well wonderful worth"""
BAD = """annoying awful bad boring broke broken cheap complaint confusing
dirty disappointed disappointing dreadful dull failed hate horrible late noisy
nothing poor refund regret rude rubbish slow stale terrible tired ugly useless
waste wasted worse worst wrong"""


def count_list(texts: list[str]) -> Array:
    """p(positive) by two word lists and no training, (n, 2)."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    good = np.array([sum(w in GOOD.split() for w in some) for some in words])
    bad = np.array([sum(w in BAD.split() for w in some) for some in words])
    p = (good + 1) / (good + bad + 2)
    return np.column_stack([1 - p, p])


# --8<-- [end:list]
# --8<-- [start:data]
class Review(NamedTuple):
    group: int  # reviews of the same thing: one side of a split
    product: str
    positive: bool
    kind: str  # plain, negation, mixed or irony
    text: str


def load_reviews() -> list[Review]:
    """Short reviews written for this site; see the datasheet beside them."""
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return [Review(int(group), product, sentiment == "positive", kind, text)
            for group, product, sentiment, kind, text in rows]


# --8<-- [end:data]
# --8<-- [start:sections]
def sections(paragraphs: list[prose.Paragraph]) -> tuple[list[str], Array]:
    """Paragraphs of the four kinds of docstring section, and which it is."""
    rows = [row for row in paragraphs if row.section in SECTIONS]
    labels = [SECTIONS.index(row.section) for row in rows]
    return [row.text for row in rows], np.array(labels)


def draw(labels: Array, n: int, *, seed: int) -> Array:
    """n row numbers, equally many of each class."""
    random, classes = np.random.default_rng(seed), np.unique(labels)
    mixed = [random.permutation(np.flatnonzero(labels == k)) for k in classes]
    return np.concatenate([rows[:n // len(classes)] for rows in mixed])


def mean_recall(p: Array, labels: Array) -> float:
    """The share found of each class, averaged: guessing gives 1 / classes."""
    hit = p.argmax(axis=1) == labels
    each = [hit[labels == k].mean() for k in np.unique(labels)]
    return float(np.mean(each))


# --8<-- [end:sections]
# --8<-- [start:right]
def right(p: Array, labels) -> Array:
    """1 where the likeliest label is the true one, ½ for a draw of two."""
    best = p == p.max(axis=1, keepdims=True)
    return best[np.arange(len(p)), labels] / best.sum(axis=1)


# --8<-- [end:right]
# --8<-- [start:folds]
def across(reviews: list[Review], fit, *, seed=0) -> Array:
    """p of each review, (n, 2), by a model that never met its group.

    fit(texts, labels) gives what maps texts to probabilities.
    """
    texts = [review.text for review in reviews]
    y = np.array([review.positive for review in reviews], dtype=int)
    p, group = np.zeros((len(y), 2)), np.array([r.group for r in reviews])
    for old, new in spam_filter.folds(y, group, seed=seed):
        told = fit([texts[row] for row in old], y[old])
        p[new] = told([texts[row] for row in new])
    return p


# --8<-- [end:folds]
# --8<-- [start:ways]
def ways(base: gpt.GPT, *, steps=150) -> dict:
    """Name → fit(texts, labels), which gives what maps texts to p."""

    def tuned(texts, labels):
        few = min(steps, 2 * len(texts))  # twenty labels are soon known
        model = train(texts, labels, base=base, steps=few)
        return lambda new: predict_proba(model, new)

    def probed(texts, labels):
        model = probe(texts, labels, base=base)
        return lambda new: predict_proba(model, new)

    return {"words": lambda *rows: count_words(*rows).predict_proba,
            "probe": probed, "fine_tuned": tuned}


# --8<-- [end:ways]


def held_sections(most: int = 100) -> tuple[list[str], Array]:
    """The test paragraphs, at most 100 of a kind."""
    texts, labels = sections(prose.load("sklearn").test)
    rows = np.concatenate([np.flatnonzero(labels == k)[:most] for k in range(len(SECTIONS))])
    return [texts[row] for row in rows], labels[rows]


def study(*, draws: int = 3, sizes=(20, 50, 100, 200, 500), steps=150, most=10**9) -> dict:
    """Sections by number of labels and reviews by kind: each way, over draws and over splits.

    most: how many reviews are used, for a quick try.
    """
    base, table = gpt.load(), {}
    torch.manual_seed(0)
    blank = gpt.GPT()
    blank.pieces = base.pieces
    texts, labels = sections(prose.load("sklearn").train)
    new, truth = held_sections(min(most, 100))
    plans = [(name, fit, sizes) for name, fit in ways(base, steps=steps).items()]
    plans += [(f"{name}_untrained", fit, sizes[-1:])
              for name, fit in ways(blank, steps=steps).items() if name != "words"]  # fmt: skip
    print("sections: mean recall by the number of labels, mean and spread over draws")
    for name, fit, some in plans:
        table[name] = {}
        for n in some:
            rows = [draw(labels, n, seed=seed) for seed in range(draws)]
            found = [fit([texts[r] for r in part], labels[part])(new) for part in rows]
            share = [mean_recall(p, truth) for p in found]
            table[name] |= {f"n_{n}": np.mean(share), f"n_{n}_sd": np.std(share)}
            print(f"{name:<21}{n:>4}  {np.mean(share):.3f} ± {np.std(share):.3f}")
    return table | {"reviews": study_reviews(base, draws, steps, most)}


def study_reviews(base: gpt.GPT, draws: int, steps: int, most: int) -> dict:
    """The share right of all reviews and of each kind, over ways to split them."""
    reviews, table = load_reviews()[:most], {}
    y = np.array([review.positive for review in reviews], dtype=int)
    kinds = np.array([review.kind for review in reviews])
    plans = ways(base, steps=steps) | {"list": lambda *_: count_list}
    print("reviews: share right, mean and spread over splits")
    for name, fit in plans.items():
        hits = [right(across(reviews, fit, seed=seed), y) for seed in range(draws)]
        share = {"all": [hit.mean() for hit in hits]}
        share |= {kind: [hit[kinds == kind].mean() for hit in hits] for kind in sorted(set(kinds))}
        table[name] = {kind: float(np.mean(values)) for kind, values in share.items()}
        table[name]["sd"] = float(np.std(share["all"]))
        each = "  ".join(f"{kind} {np.mean(values):.2f}" for kind, values in share.items())
        print(f"{name:<11}{each}  ± {table[name]['sd']:.3f}")
    return table
