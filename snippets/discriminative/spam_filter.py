"""Spam filter: count words; naive Bayes and logistic regression weigh the same counts."""

# --8<-- [start:imports]
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from snippets.discriminative.logistic_regression import Model
from snippets.shared import digits, metrics, plots

Array = np.ndarray
DATA = Path(plots.__file__).parents[1] / "data/messages/messages.tsv"
# --8<-- [end:imports]


# --8<-- [start:data]
class Message(NamedTuple):
    spam: bool
    topic: str
    kind: str  # "plain", or what makes it a hard case
    text: str


def load() -> list[Message]:
    """438 messages written for this site; see the datasheet beside them."""
    lines = DATA.read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return [Message(label == "spam", *rest) for label, *rest in rows]


# --8<-- [end:data]


# --8<-- [start:load_sms]
def load_sms(path: Path) -> list[Message]:
    """The SMS Spam Collection, if you have the file: label, tab, message.

    Raises FileNotFoundError and ValueError with one line that says why.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: unpack SMSSpamCollection")
    messages = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        label, tab, body = line.partition("\t")
        if label not in ("ham", "spam") or not tab or not body.strip():
            wanted = "expected ham or spam, a tab and a message"
            raise ValueError(f"{path.name}, line {number}: {wanted}")
        messages.append(Message(label == "spam", "sms", "plain", body))
    return messages


# --8<-- [end:load_sms]


# --8<-- [start:words]
PIECES = re.compile(
    r"(?P<link>(?:https?://|www\.)\S+"
    r"|(?:[\w-]+\.)+(?:example|com|net|org|uk)\b\S*)"
    r"|(?P<money>[£$€])|(?P<number>\d[\d.,:]*)|!|[a-z]+(?:'[a-z]+)*"
)  # fmt: skip


def words(text: str) -> list[str]:
    """Lower case; every address, number and currency sign is one word."""
    found = PIECES.finditer(text.lower().replace("’", "'"))
    return [f"<{m.lastgroup}>" if m.lastgroup else m[0] for m in found]


# --8<-- [end:words]


# --8<-- [start:counts]
def vocabulary(lists: list[list], *, least: int = 2) -> dict:
    """Word → column, for words that stand in at least so many messages."""
    seen = Counter(word for one in lists for word in dict.fromkeys(one))
    kept = sorted(word for word, times in seen.items() if times >= least)
    return {word: column for column, word in enumerate(kept)}


def count(lists: list[list], known: dict) -> csr_array:
    """How often each known word is in each message: (messages, words)."""
    found = [(row, known[word]) for row, one in enumerate(lists)
             for word in one if word in known]  # fmt: skip
    row, column = np.array(found, dtype=int).reshape(-1, 2).T
    shape = len(lists), len(known)
    return csr_array((np.ones(len(row)), (row, column)), shape=shape)


# --8<-- [end:counts]


# --8<-- [start:tfidf]
def rarity(x: csr_array) -> Array:
    """Weight of each word: 1, plus the log of how few messages have it."""
    return 1 + np.log((1 + x.shape[0]) / (1 + (x > 0).sum(axis=0)))


def tfidf(x: csr_array, weight: Array) -> csr_array:
    """Counts times weight, each message then scaled to length one."""
    x = csr_array(x * weight)
    length = np.sqrt((x * x).sum(axis=1))
    return csr_array(x / np.maximum(length, 1e-12)[:, None])


# --8<-- [end:tfidf]


# --8<-- [start:naive_bayes]
def train(x, y: Array, *, alpha: float = 1.0) -> Model:
    """Multinomial naive Bayes: each class draws words from a bag of its own.

    x: (messages, words) counts; y: (messages,) classes 0, 1, ...
    alpha: imagined sightings of each word in each class (Laplace).
    """
    y = digits.check_labels(y, count=x.shape[0])
    if alpha <= 0:
        raise ValueError(f"expected alpha > 0, got {alpha}: log 0 is -inf")
    if x.min() < 0:
        raise ValueError("expected counts, got a number below zero")
    mine = np.eye(y.max() + 1)[y].T  # (classes, messages)
    seen = mine @ x + alpha  # (classes, words)
    share = seen / seen.sum(axis=1, keepdims=True)  # p(word|class)
    return Model(np.log(share).T, np.log(mine.mean(axis=1)))


# --8<-- [end:naive_bayes]


# --8<-- [start:logistic]
def train_logistic(x, y: Array, *, c: float = 10.0) -> Model:
    """The same form, fitted to p(spam|x) alone; x as for `train`."""
    y = digits.check_labels(y, count=x.shape[0])
    line = LogisticRegression(C=c, max_iter=1000).fit(x, y)
    weights = np.column_stack([np.zeros(x.shape[1]), line.coef_[0]])
    return Model(weights, np.append(0.0, line.intercept_))


def predict_proba(model: Model, x) -> Array:
    """p(y|x) for counts (messages, words): (messages, classes)."""
    if np.ndim(x) != 2 and not hasattr(x, "tocsr"):
        raise ValueError("expected a batch of counts, shape (n, words)")
    if x.shape[1] != len(model.weights):
        wanted = f"expected counts of {len(model.weights)} words"
        raise ValueError(f"{wanted}, got {x.shape[1]}")
    scores = x @ model.weights + model.bias  # (messages, classes)
    return np.exp(scores - logsumexp(scores, axis=1, keepdims=True))


# --8<-- [end:logistic]


# --8<-- [start:filter]
class Filter(NamedTuple):
    known: dict  # word → column
    form: str  # "counts", "once" (yes or no) or "TF-IDF"
    weight: Array  # rarity of each word, for TF-IDF
    model: Model


def features(lists, known: dict, form: str, weight: Array) -> csr_array:
    """Messages, given as words, in the form that the model was fitted to."""
    x = count(lists, known)
    if form == "TF-IDF":
        return tfidf(x, weight)
    return x if form == "counts" else csr_array(x > 0, dtype=float)


def build(lists: list[list], y: Array, *, fit, form="counts") -> Filter:
    """A filter from training messages; fit: `train` or the other."""
    if form not in ("counts", "once", "TF-IDF"):
        raise ValueError(f"expected counts, once or TF-IDF, got {form!r}")
    known = vocabulary(lists)
    weight = rarity(count(lists, known))
    model = fit(features(lists, known, form, weight), y)
    return Filter(known, form, weight, model)


def spam_probability(built: Filter, lists: list[list]) -> Array:
    """p(spam) of each message, given as words; (messages,)."""
    known, form, weight, model = built
    return predict_proba(model, features(lists, known, form, weight))[:, 1]


# --8<-- [end:filter]


# --8<-- [start:groups]
def near_duplicates(lists: list[list], *, length=3, share=0.25) -> Array:
    """A group number per message; those that are alike have the same one.

    Alike: of all runs of `length` words that two messages have, at least
    this share stands in both.
    """
    runs = [[" ".join(one[i : i + length])
             for i in range(max(1, len(one) - length + 1))]
            for one in lists]  # fmt: skip
    has = (count(runs, vocabulary(runs, least=1)) > 0).astype(int)
    common, size = (has @ has.T).tocoo(), has.sum(axis=1)
    row, column = common.coords
    union = size[row] + size[column] - common.data
    near = common.data >= share * union
    links = row[near], column[near]
    graph = csr_array((np.ones(near.sum()), links), shape=common.shape)
    return connected_components(graph, directed=False)[1]


def folds(y: Array, group: Array, *, parts: int = 4, seed: int = 0) -> list:
    """(train, test) row numbers; a group is never on both sides."""
    cut = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    return list(cut.split(y, y, group))


# --8<-- [end:groups]


# --8<-- [start:cost]
def cost(p: Array, y: Array, *, above: float, lost: float = 20) -> float:
    """Of 100 messages: `lost` for a good one filed, 1 for spam passed."""
    filed = p > above
    wrong = lost * (filed & (y == 0)).sum() + (~filed & (y == 1)).sum()
    return 100 * float(wrong) / len(y)


def cheapest(p: Array, y: Array, *, lost: float = 20) -> float:
    """The threshold that would have cost least on these messages."""
    candidates = np.append(np.unique(p), 0)
    prices = [cost(p, y, above=above, lost=lost) for above in candidates]
    return float(candidates[int(np.argmin(prices))])


# --8<-- [end:cost]


# --8<-- [start:choose]
def pick(lists: list, rows: Array) -> list:
    return [lists[row] for row in rows]


def log_loss(p: Array, y: Array) -> float:
    return metrics.log_loss(np.column_stack([1 - p, p]), y)


def choose(lists, y, group, candidates, *, seed=0) -> tuple:
    """The candidate with the least log loss on held-out parts.

    candidates: functions (lists, y) → Filter. Second: its p(spam) there.
    """
    tried = [np.zeros(len(y)) for _ in candidates]
    for fit, held in folds(y, group, parts=3, seed=seed):
        for p, make in zip(tried, candidates):
            built = make(pick(lists, fit), y[fit])
            p[held] = spam_probability(built, pick(lists, held))
    best = int(np.argmin([log_loss(p, y) for p in tried]))
    return candidates[best], tried[best]


# --8<-- [end:choose]


# --8<-- [start:cross_predict]
def cross_predict(lists, y, group, candidates, *, seed=0) -> tuple:
    """p(spam) of each message by a filter that has not seen it.

    Second: the threshold that was cheapest within its training part.
    """
    p, above = np.zeros(len(y)), np.zeros(len(y))
    for fit, test in folds(y, group, seed=seed):
        known, mine = pick(lists, fit), (y[fit], group[fit])
        make, inside = choose(known, *mine, candidates, seed=seed)
        built = make(known, y[fit])
        p[test] = spam_probability(built, pick(lists, test))
        above[test] = cheapest(inside, y[fit])
    return p, above


# --8<-- [end:cross_predict]


# --8<-- [start:contenders]
TEN = ("free", "win", "won", "winner", "cash",
       "prize", "claim", "urgent", "click", "guaranteed")  # fmt: skip


def contenders() -> dict:
    """Two ways to fit, three forms of input, each with its settings."""
    alphas, strengths = (0.1, 0.3, 1, 3), (0.3, 1, 3, 10, 30, 100)
    bayes = [partial(train, alpha=alpha) for alpha in alphas]
    logistic = [partial(train_logistic, c=c) for c in strengths]
    return {
        f"{name}, {form}": [partial(build, fit=f, form=form) for f in fits]
        for name, fits in (("naive Bayes", bayes), ("logistic", logistic))
        for form in ("counts", "once", "TF-IDF")
    }


# --8<-- [end:contenders]


# --8<-- [start:attack]
def good_words(built: Filter, number: int) -> list[str]:
    """The words that speak most for a good message, strongest first."""
    speaks = built.model.weights[:, 0] - built.model.weights[:, 1]
    names = list(built.known)
    return [names[k] for k in np.argsort(-speaks)[:number]]


def passing(built: Filter, spam: list[list], added: list[str]) -> Array:
    """Share of caught spam that passes with the first 0, 1, 2, ... added."""
    caught = [one for one in spam if spam_probability(built, [one])[0] > 0.5]
    return np.array([
        (spam_probability(built, [one + added[:k] for one in caught]) <= 0.5)
        .mean() for k in range(len(added) + 1)
    ])  # fmt: skip


# --8<-- [end:attack]


# --8<-- [start:drift]
QUIET = "polite", "subtle", "personal"  # spam that does not shout


def quiet_caught(
    messages: list[Message], make, *, seen: bool, seed: int = 0
) -> tuple[float, float]:
    """Share of quiet and of loud spam that is caught.

    seen: whether quiet spam was in training; if so, as much loud spam is
    left out, so that both filters learn from equally many.
    """
    lists = [words(m.text) for m in messages]
    y = np.array([m.spam for m in messages], dtype=int)
    quiet = np.array([m.spam and m.kind in QUIET for m in messages])
    rng, p = np.random.default_rng(seed), np.zeros(len(y))
    for fit, test in folds(y, near_duplicates(lists), seed=seed):
        soft = fit[quiet[fit]]
        loud = fit[(y[fit] == 1) & ~quiet[fit]]
        left_out = rng.choice(loud, len(soft), replace=False)
        rest = np.setdiff1d(fit, left_out if seen else soft)
        built = make(pick(lists, rest), y[rest])
        p[test] = spam_probability(built, pick(lists, test))
    hit = p > 0.5
    return float(hit[quiet].mean()), float(hit[(y == 1) & ~quiet].mean())


# --8<-- [end:drift]


# --8<-- [start:draw_plane]
def draw_plane(lists: list[list], y: Array, named: dict, *, least=4):
    """Each word by the share of good messages and of spam that have it.

    named: word → where to write it, in points from its dot.
    """
    known = vocabulary(lists, least=least)
    has = count(lists, known) > 0
    good, spam = (has[y == k].mean(axis=0) for k in (0, 1))
    _, axes = plots.subplots(height=4.6)
    axes.axline((0.01, 0.01), (0.1, 0.1), color=plots.MUTED, lw=1, marker="")
    inks = [plots.SERIES[5 if s > g else 2] for g, s in zip(good, spam)]
    axes.scatter(good + 0.003, spam + 0.003, s=7, c=inks, rasterized=True)
    for word, shift in named.items():
        at = good[known[word]] + 0.003, spam[known[word]] + 0.003
        style = {"va": "center", "arrowprops": {"arrowstyle": "-", "lw": 0.5}}
        axes.annotate(word, at, shift, textcoords="offset points", **style)
    axes.set(xscale="log", yscale="log")
    ticks = [0, 0.01, 0.03, 0.1, 0.3, 1]
    for axis, kind in ((axes.xaxis, "good messages"), (axes.yaxis, "spam")):
        axis.set_ticks([t + 0.003 for t in ticks], labels=ticks)
        axis.set_ticks([], minor=True)
        axis.set_label_text(f"share of {kind} with the word")
    return axes


# --8<-- [end:draw_plane]


# --8<-- [start:draw_votes]
def draw_votes(bayes: Filter, line: Filter, messages: list[list]) -> None:
    """What each word says for spam (up) or against, by two filters."""
    _, rows = plots.subplots(len(messages), height=2.5 * len(messages))
    for axes, one in zip(np.atleast_1d(rows), messages):
        place, said = np.arange(len(one)), []
        for built, shift, ink in zip((bayes, line), (-0.2, 0.2), (1, 0)):
            gap = built.model.weights[:, 1] - built.model.weights[:, 0]
            votes = [gap[built.known[w]] if w in built.known else 0
                     for w in one]  # fmt: skip
            axes.bar(place + shift, votes, 0.4, color=plots.SERIES[ink])
            said.append(spam_probability(built, [one])[0])
        axes.axhline(0, color=plots.MUTED, lw=0.8, marker="")
        axes.set_xticks(place, one, rotation=90)
        title = "p(spam): naive Bayes {:.2f}, logistic {:.2f}"
        axes.set(title=title.format(*said), ylabel="vote")


# --8<-- [end:draw_votes]


def summary(pairs: list[tuple], y: Array) -> dict:
    """What a filter does to the messages: mean and spread over (p, chosen threshold) pairs."""
    rows = []
    for p, above in pairs:
        row = {"right": ((p > 0.5) == y).mean(), "log_loss": log_loss(p, y)}
        row |= {"lost": (p > 0.5)[y == 0].mean(), "caught": (p > 0.5)[y == 1].mean()}
        thresholds = {"even": 0.5, "priced": 20 / 21, "chosen": above}
        rows.append(row | {name: cost(p, y, above=at) for name, at in thresholds.items()})
    return spread(rows)


def spread(rows: list[dict]) -> dict:
    """Of every number the mean, and under its name with _sd the spread."""
    values = np.array([list(row.values()) for row in rows], dtype=float)
    sd = values.std(axis=0, ddof=min(1, len(rows) - 1))
    names = [*rows[0], *(f"{name}_sd" for name in rows[0])]
    return dict(zip(names, [*values.mean(axis=0).tolist(), *sd.tolist()]))


def study(*, seeds: int = 10, messages: list[Message] | None = None) -> dict:
    """Baselines and contenders over several foldings; then topics and manners left out."""
    messages = load() if messages is None else messages
    lists, y = [words(m.text) for m in messages], np.array([m.spam for m in messages], dtype=int)
    group, even = near_duplicates(lists), np.full(len(y), 0.5)
    ten = np.array([any(word in TEN for word in one) for one in lists], dtype=float)
    runs = {"deliver everything": [(0 * even, even)], "ten words": [(ten, even)]} | {
        name: [cross_predict(lists, y, group, makers, seed=seed) for seed in range(seeds)]
        for name, makers in contenders().items()
    }
    print("                      right          good   spam    cost of 100, threshold")
    print("                                     lost   caught  1/2   20/21        chosen")
    result = {}
    for name, pairs in runs.items():
        result[re.sub(r"\W+", "_", name).lower()] = row = summary(pairs, y)
        print(
            f"{name:<22}{row['right']:.3f} ± {row['right_sd']:.3f}  {row['lost']:.3f}  "
            f"{row['caught']:.3f}   {row['even']:<4.0f}{row['priced']:>6.1f} ± "
            f"{row['priced_sd']:<4.1f}  {row['chosen']:>5.1f} ± {row['chosen_sd']:.1f}"
        )
    return result | {"drift": drift(messages, lists, y, group, seeds=seeds)}


def share_right(lists: list[list], y: Array, cut: list, make) -> float:
    """Share of messages that are judged rightly by a filter trained on the rest of the cut."""
    p = np.zeros(len(y))
    for fit, test in cut:
        p[test] = spam_probability(make(pick(lists, fit), y[fit]), pick(lists, test))
    return float(((p > 0.5) == y).mean())


def drift(messages, lists, y, group, *, seeds: int) -> dict:
    """Whole topics left out of training beside random parts; then quiet spam left out."""
    topics, result = np.array([m.topic for m in messages]), {}
    by_topic = [(np.flatnonzero(topics != t), np.flatnonzero(topics == t))
                for t in np.unique(topics)]  # fmt: skip
    print("\n              right, part held out:          quiet spam caught, training")
    print("              at random       a topic        with its like   without")
    for name, fit, form in (("bayes", train, "counts"), ("logistic", train_logistic, "TF-IDF")):
        make, rows = partial(build, fit=fit, form=form), []
        for seed in range(seeds):
            at_random = folds(y, group, parts=len(by_topic), seed=seed)
            row = {"random": share_right(lists, y, at_random, make)}
            for seen, key in ((True, "seen"), (False, "unseen")):
                row[key] = quiet_caught(messages, make, seen=seen, seed=seed)[0]
            rows.append(row)
        result[name] = row = spread(rows) | {"topic": share_right(lists, y, by_topic, make)}
        print(
            f"{name:<12}  {row['random']:.3f} ± {row['random_sd']:.3f}   {row['topic']:.3f}"
            f"          {row['seen']:.2f} ± {row['seen_sd']:.2f}     "
            f"{row['unseen']:.2f} ± {row['unseen_sd']:.2f}"
        )
    return result
