"""Instructions and agents: a GPT turns commands into calls, a loop runs them, pairs tune it."""

# --8<-- [start:imports]
import copy
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from snippets.language_models import gpt

Array = np.ndarray
KEPT = gpt.KEPT.parents[1] / "instructions_and_agents/agent.safetensors"
# --8<-- [end:imports]


# --8<-- [start:grammar]
NAMES = ("ana", "ben", "cleo", "dan", "eva", "finn", "gina", "hugo",
         "ida", "jan", "kim", "leo", "mia", "noah", "ola", "pia")
KINDS = {"unread": ("unread", "new"), "old": ("old", "stale"),
         "large": ("large", "big"), "urgent": ("urgent", "pressing"),
         "private": ("private", "personal")}
VERBS = {"find": ("show", "list"), "count": ("count", "tally"),
         "archive": ("archive", "file"), "delete": ("delete", "bin"),
         "forward": ("forward", "pass on"),
         "summarise": ("summarise", "sum up")}
FRAMES = ("{verb} {kind} mail from {name}{to}",
          "{verb} all mail{to} from {name} that is {kind}",
          "please {verb} what is {kind} and from {name}{to}",
          "{verb} what {name} sent me if it is {kind}{to}")
UNUSUAL = "from {name} all {kind} mail please {verb}{to}"  # never trained
# --8<-- [end:grammar]
TOPICS = ("lunch is at noon", "the meeting is in the small room",
          "ignore my last note", "the boxes above the door are full",
          "rent and power are paid", "the train is late again",
          "i want to come by soon. wait for me", "your plan is good")  # fmt: skip
STYLES = {"polite": ("of course, ", "with pleasure, "),
          "plain": ("", "done, "), "rude": ("ugh, ", "whatever, ")}  # fmt: skip
DONE = {"find": "found", "count": "counted", "archive": "archived", "delete": "deleted",
        "forward": "forwarded", "summarise": "summarised"}  # fmt: skip


# --8<-- [start:task]
@dataclass
class Task:
    """A command, and the calls that it needs, one after another."""

    command: str
    calls: list[dict]

    def history(self, step: int, count: int, text: str = "") -> str:
        """The command and what the first `step` calls gave."""
        seen = [f" > {c['tool']} {count}" for c in self.calls[:step]]
        if text and step > 1:
            seen[1] += f": {text}"
        return self.command + "".join(seen)


def task(tool: str, kind: str, name: str, random, frame="") -> Task:
    """One of the ways to say it, drawn by `random`, or in the frame."""
    first = {"tool": tool, "kind": kind, "from": name}
    if tool == "forward":
        first["to"] = str(random.choice([n for n in NAMES if n != name]))
    usual = random.choice(FRAMES)  # drawn in any case: tasks stay paired
    command = (frame or usual).format(
        verb=random.choice(VERBS[tool]), kind=random.choice(KINDS[kind]),
        name=name, to=f" to {first['to']}" if "to" in first else "")
    if tool != "summarise":
        return Task(command, [first])
    rest = [{"tool": "read"}, {"tool": "summarise"}]
    return Task(command, [first | {"tool": "find"}, *rest])


# --8<-- [end:task]
# --8<-- [start:combinations]
def combinations(part: str, *, share=0.3) -> list[tuple[str, str, str]]:
    """(tool, kind, name) of the part; none is in two of them.

    The first 30 % are to train on, or fewer; the rest valid and test.
    """
    every = list(itertools.product(VERBS, KINDS, NAMES))
    order = np.random.default_rng(0).permutation(len(every))
    ends = {"train": (0, share), "valid": (0.3, 0.5), "test": (0.5, 1)}
    first, last = (int(len(every) * end) for end in ends[part])
    return [every[i] for i in order[first:last]]


def tasks(part: str, n: int, *, seed=0, frame="", share=0.3) -> list[Task]:
    """n tasks, through the combinations of the part in turn."""
    random = np.random.default_rng(seed)
    each = itertools.cycle(combinations(part, share=share))
    return [task(*next(each), random, frame) for _ in range(n)]


# --8<-- [end:combinations]
def report(style: str, t: Task, count: int, random) -> str:
    """What is said at the end of the task, in the style."""
    done, name = DONE[t.calls[-1]["tool"]], t.calls[0]["from"]
    mails = "mail" if count == 1 else "mails"
    return f"{random.choice(STYLES[style])}{count} {mails} from {name} {done}."


def lines(part: str = "train", *, n=720, seed=0, share=0.3) -> str:
    """Examples "history, tab, what to do next" from n tasks, one a line.

    In every fourth the user has changed his mind: what he said last counts.
    """
    random, rows = np.random.default_rng(seed), []
    long = [t for t in tasks(part, n, seed=seed + 1, share=share) if len(t.calls) > 1]
    for t in tasks(part, n, seed=seed, share=share):
        count, past = (int(c) for c in random.integers(10, size=2))
        text, other = (random.choice(["", topic]) for topic in random.choice(TOPICS, 2))
        old, style = long[random.integers(len(long))], random.choice(list(STYLES))
        before = f"{old.history(int(random.integers(1, 4)), past, other)}; "
        before = before if random.random() < 0.25 else ""
        t.calls = t.calls if count else t.calls[:1]  # nothing found, nothing to read
        steps = [*map(json.dumps, t.calls), report(style, t, count, random)]
        for i, step in enumerate(steps):
            rows.append(f"{before}{t.history(i, count, text)}\t{step}\n")
    return "".join(rows)


# --8<-- [start:words]
def cut(text: str) -> list[str]:
    """Words, and what stands between them if it is not one space."""
    return [part for part in re.findall(r"\w+|\W+", text) if part != " "]


def join(parts: list[str]) -> str:
    """Undo `cut`: one space between two words that touch."""
    text = re.sub(r"(?<=\w)\0(?=\w)", " ", "\0".join(parts))
    return text.replace("\0", "")


# --8<-- [end:words]
# --8<-- [start:rows]
def rows_of(words: dict[str, int], pairs) -> tuple[Tensor, Tensor]:
    """Tokens (n, time) of "prompt, tab, answer, end"; where answers are."""
    rows, marks = [], []
    for prompt, answer in pairs:
        asked, told = [*cut(prompt), "\t"], [*cut(answer), "\n"]
        if unknown := sorted({*asked, *told} - set(words)):
            raise ValueError(f"the model has no word {unknown[0]!r}: "
                             "say it in words of the training text")
        rows.append([words[part] for part in asked + told])
        marks.append([0] * len(asked) + [1] * len(told))
    long = max(map(len, rows))
    tokens = [row + [words["\n"]] * (long - len(row)) for row in rows]
    mask = [mark + [0] * (long - len(mark)) for mark in marks]
    return torch.tensor(tokens), torch.tensor(mask, dtype=torch.bool)


# --8<-- [end:rows]
# --8<-- [start:score]
def log_answers(model: gpt.GPT, tokens: Tensor, mask: Tensor) -> Tensor:
    """log p of each answer given its prompt, (n,), in nats."""
    long = int(mask.any(dim=0).nonzero().max()) + 1  # the rest is padding
    log_p = model(tokens[:, :long - 1]).log_softmax(dim=-1)
    each = log_p.gather(2, tokens[:, 1:long, None])[..., 0]
    return (each * mask[:, 1:long]).sum(dim=1)


# --8<-- [end:score]
# --8<-- [start:train]
def train(text: str, *, steps=240, batch=64, rate=0.04, seed=0, **shape):
    """A GPT that imitates the answers in lines "prompt, tab, answer"."""
    pairs = [line.split("\t") for line in text.splitlines()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError("expected lines of a prompt, a tab and an answer")
    parts = {part for pair in pairs for side in pair for part in cut(side)}
    words = {p: i for i, p in enumerate(["\t", "\n", *sorted(parts)])}
    shape = {"width": 64, "depth": 2, "heads": 4} | shape
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model = gpt.GPT(size=len(words), **shape)
        model.words, model.history = words, []
        rows = rows_of(words, pairs)
        return fit(model, *rows, steps=steps, batch=batch, rate=rate)


# --8<-- [end:train]
# --8<-- [start:fit]
def fit(model: gpt.GPT, tokens, mask, *, steps, batch, rate) -> gpt.GPT:
    """Train in place; only the answers' tokens cost anything."""
    matrices = [w for block in model.blocks for w in block.parameters()]
    memory = [torch.zeros_like(w) for w in matrices]
    adam = torch.optim.Adam([model.token.weight], betas=(0.9, 0.95))
    for step in range(steps):
        some = torch.randint(len(tokens), (batch,))
        total = log_answers(model, tokens[some], mask[some]).sum()
        loss = -total / mask[some].sum()  # nats per token
        model.zero_grad()
        loss.backward()
        left = min(1, step / 20 + 0.05, 1.02 - step / steps)
        adam.param_groups[0]["lr"] = rate / 2 * left
        adam.step()
        gpt.muon(matrices, memory, rate * left)
        model.history.append(loss.item())
    return model.eval()


# --8<-- [end:fit]
# --8<-- [start:answers]
@torch.no_grad()
def write(model, prompts: list[str], *, heat=0.0, seed=0):
    """An answer to each prompt, and the log p of its words, (n,).

    The likeliest words, or drawn with heat; all prompts at once.
    """
    rows, mask = rows_of(model.words, [(prompt, "") for prompt in prompts])
    start = mask.int().argmax(dim=1)  # where each answer begins
    rows = functional.pad(rows, (0, 31), value=model.words["\n"])
    at, end, row = start.clone(), model.words["\n"], torch.arange(len(rows))
    random, open_ = torch.Generator().manual_seed(seed), at > 0
    total = torch.zeros(len(rows))
    for _ in range(31):
        logits = model(rows[:, :at.max()])[row, at - 1]
        token = logits.argmax(dim=-1)
        if heat:
            p = (logits / heat).softmax(dim=-1)
            token = torch.multinomial(p, 1, generator=random)[:, 0]
        total += logits.log_softmax(dim=-1)[row, token] * open_
        open_ = open_ & (token != end)
        if not open_.any():
            break
        rows[row[open_], at[open_]] = token[open_]
        at = at + open_
    names, spans = list(model.words), zip(rows.tolist(), start, at)
    told = [join([names[t] for t in r[a:b]]) for r, a, b in spans]
    return told, total


def answers(model, prompts: list[str], *, heat=0.0, seed=0) -> list[str]:
    """An answer to each prompt: the likeliest words, or drawn with heat."""
    return write(model, prompts, heat=heat, seed=seed)[0]


def sample(model, n: int, *, seed=0, start="show new mail from ana"):
    """n drawn answers to one prompt, a list of strings."""
    return answers(model, [start] * n, heat=1.0, seed=seed)


# --8<-- [end:answers]
# --8<-- [start:keep]
def keep(model: gpt.GPT, path: Path) -> None:
    """Write the weights, in 16 bits, and the words."""
    words = torch.tensor(list(json.dumps(list(model.words)).encode()))
    weights = {k: w.half() for k, w in model.state_dict().items()}
    save_file({**weights, "words": words.to(torch.uint8)}, path)


def load(path: Path = KEPT) -> gpt.GPT:
    """A model of the default shape that was kept."""
    weights = load_file(path)
    names = json.loads(bytes(weights.pop("words").tolist()))
    model = gpt.GPT(size=len(names), width=64, depth=2, heads=4)
    model.load_state_dict(weights)
    model.words = {name: i for i, name in enumerate(names)}
    return model.eval()


# --8<-- [end:keep]
# --8<-- [start:mailbox]
@dataclass
class Mail:
    """A mail, where it lies, and to whom it was forwarded."""

    sender: str
    kinds: set[str]
    text: str
    place: str = "inbox"
    copies: list[str] = field(default_factory=list)


def mailbox(*, seed=0) -> list[Mail]:
    """Five mails from each name, of two sentences, made by rules."""
    random, made = np.random.default_rng(seed), []
    for name in NAMES * 5:
        kinds = {kind for kind in KINDS if random.random() < 0.4}
        text = ". ".join(random.choice(TOPICS, 2, replace=False))
        made.append(Mail(name, kinds, text))
    return made


def act(call: dict, mails: list[Mail], found: list[Mail]):
    """Run a checked call: the mails that it met, and a text to show."""
    if "from" in call:
        found = [m for m in mails if m.place == "inbox"
                 and m.sender == call["from"] and call["kind"] in m.kinds]
    for mail in found:
        if call["tool"] in ("archive", "delete"):
            mail.place = call["tool"]
        if call["tool"] == "forward":
            mail.copies.append(call["to"])
    texts = {"read": [mail.text for mail in found],
             "summarise": [mail.text.split(".")[0] for mail in found]}
    return found, ". ".join(texts.get(call["tool"], []))


# --8<-- [end:mailbox]
# --8<-- [start:check]
NEEDS = {**{tool: ("kind", "from") for tool in VERBS},
         "forward": ("kind", "from", "to"), "read": (), "summarise": ()}
CHANGES = {"archive", "delete", "forward"}


def said(command: str) -> set[str]:
    """The tools, kinds and names that the user's own words contain."""
    ways = {**VERBS, **KINDS, **{name: (name,) for name in NAMES}}
    return {value for value, each in ways.items()
            if any(f" {way} " in f" {command} " for way in each)}


def check(answer: str, command: str | None = None) -> dict:
    """The call, if it is one and the command (if given) allows it."""
    try:
        call = dict(json.loads(answer))
    except (ValueError, TypeError):
        raise ValueError(f"{answer!r} is no JSON object") from None
    if (tool := call.pop("tool", None)) not in list(NEEDS):
        raise ValueError(f"no tool {tool!r}: use {', '.join(NEEDS)}")
    if set(call) != set(NEEDS[tool]):
        raise ValueError(f"{tool} takes exactly {NEEDS[tool]}")
    for name, value in call.items():
        if value not in list(KINDS if name == "kind" else NAMES):
            raise ValueError(f"{value!r} is no {name}")
    wanted = {*call.values(), *CHANGES.intersection([tool])}
    if command is not None and (extra := sorted(wanted - said(command))):
        raise ValueError(f"{extra[0]} was not asked for by the user")
    return {"tool": tool, **call}


# --8<-- [end:check]
# --8<-- [start:settle]
def settle(ask: Callable, history: str, command: str | None, tries: int):
    """Ask until the answer is a report, or a call that passes the check."""
    for again in range(tries):
        answer = ask(history, again)
        if not answer.startswith("{"):
            return answer
        try:
            return check(answer, command)
        except ValueError as error:
            problem = error
    raise problem


# --8<-- [end:settle]
# --8<-- [start:run]
def run(ask: Callable, command: str, mails: list[Mail], *, limit=6,
        tries=3, guard=True, show=False) -> list[str]:
    """Call by call until the model reports: what was done, one a line.

    ask: (history, how often asked before) to an answer. guard: allow only
    what the command names. show: let the model see the text of mails.
    """
    history, found, trace = command, [], []
    for _ in range(limit):
        try:
            step = settle(ask, history, command if guard else None, tries)
        except ValueError as problem:
            return [*trace, f"stopped: {problem}"]
        if isinstance(step, str):
            return [*trace, step]
        found, text = act(step, mails, found)
        trace.append(f"{json.dumps(step)} {len(found)} {text}".strip())
        history += f" > {step['tool']} {len(found)}"
        if show and step["tool"] == "read":
            history += f": {text}"
    return [*trace, f"stopped: no report after {limit} calls"]


# --8<-- [end:run]
# --8<-- [start:asker]
def asker(model: gpt.GPT) -> Callable[[str, int], str]:
    """Ask the model: first its likeliest answer, then drawn ones."""
    return lambda history, again: answers(
        model, [history], heat=float(again > 0), seed=again)[0]


def attempt(model: gpt.GPT, some: list[Task], *, tries=1) -> tuple:
    """For each task: is its first call right, does it pass, how sure was it?

    tries: how often to ask until a call passes. Three arrays, (n,); how
    sure is the model's probability of the answer that it gave first.
    """
    told, log_p = write(model, [t.command for t in some])
    for again in range(tries):
        passed = np.array([passes(a, t) for a, t in zip(told, some)])
        left = np.flatnonzero(~passed) if again < tries - 1 else []
        if len(left):
            new = answers(model, [some[i].command for i in left],
                          heat=1.0, seed=again + 1)
            for i, answer in zip(left, new):
                told[i] = answer
    right = [a == json.dumps(t.calls[0]) for a, t in zip(told, some)]
    return np.array(right), passed, log_p.exp().numpy()


def passes(answer: str, t: Task) -> bool:
    """Would the loop run this answer to the task's command?"""
    try:
        return bool(check(answer, t.command))
    except ValueError:
        return False


def chains(right: Array, n: int) -> float:
    """The share of chains of n commands, one after another, all right."""
    return right[:len(right) // n * n].reshape(-1, n).all(axis=1).mean()


# --8<-- [end:asker]
# --8<-- [start:pairs]
def preferences(part="train", *, n=600, seed=0) -> list[tuple]:
    """(history, polite report, rude report), both true, n of them."""
    random, made = np.random.default_rng(seed), []
    for t in tasks(part, n, seed=seed):
        count = int(random.integers(1, 10))
        made.append((t.history(len(t.calls), count),
                     report("polite", t, count, random),
                     report("rude", t, count, random)))
    return made


# --8<-- [end:pairs]
# --8<-- [start:dpo]
def dpo_loss(now: Tensor, before: Tensor, *, beta: float) -> Tensor:
    """How badly the better answer leads; ln 2 before the first step.

    now, before: (2, n), log p of better and worse, of the model and of
    the one that it started from. Source: Rafailov et al., NeurIPS 2023.
    """
    better, worse = now - before
    return -functional.logsigmoid(beta * (better - worse)).mean()


# --8<-- [end:dpo]
# --8<-- [start:prefer]
def prefer(model, pairs: list[tuple], *, nll=0.3, beta=0.3, steps=60,
           batch=32, rate=3e-4, seed=0) -> gpt.GPT:
    """Tune a copy on (prompt, better, worse); nll holds the better up."""
    tuned, random = copy.deepcopy(model), torch.Generator()
    sides = [rows_of(model.words, [(pair[0], pair[k]) for pair in pairs])
             for k in (1, 2)]
    adam = torch.optim.Adam(tuned.parameters(), lr=rate)
    random.manual_seed(seed)
    tuned.history = []
    for _ in range(steps):
        some = torch.randint(len(pairs), (batch,), generator=random)
        rows = [(tokens[some], mask[some]) for tokens, mask in sides]
        now = torch.stack([log_answers(tuned, *row) for row in rows])
        with torch.no_grad():
            before = torch.stack([log_answers(model, *r) for r in rows])
        cost = -now[0].sum() / rows[0][1].sum()
        loss = dpo_loss(now, before, beta=beta) + nll * cost
        adam.zero_grad()
        loss.backward()
        adam.step()
        tuned.history.append((now.detach() - before).mean(dim=1).tolist())
    return tuned


# --8<-- [end:prefer]
# --8<-- [start:manners]
def manners(model: gpt.GPT, pairs: list[tuple], *, seed=0) -> dict:
    """Shares of drawn reports: polite, plain, rude, or untrue."""
    told = answers(model, [pair[0] for pair in pairs], heat=1.0, seed=seed)
    share = dict.fromkeys([*STYLES, "untrue"], 0.0)
    for (_, polite, _), answer in zip(pairs, told):
        fact = polite.split(", ")[-1]
        kind = [style for style, openings in STYLES.items()
                if answer in [opening + fact for opening in openings]]
        share[kind[0] if kind else "untrue"] += 1 / len(pairs)
    return share


# --8<-- [end:manners]
# --8<-- [start:slots]
def slots(known: list[Task], new: list[Task]) -> Array:
    """The baseline: one classifier of word pairs for each part of a call.

    Returns which of the new tasks' first calls are all right, (n,).
    """
    pairs = CountVectorizer(ngram_range=(1, 2))
    x = pairs.fit_transform(t.command for t in known)
    x_new = pairs.transform(t.command for t in new)
    right = np.ones(len(new), dtype=bool)
    for name in ("tool", "kind", "from", "to"):
        y, truth = ([t.calls[0].get(name, "none") for t in some]
                    for some in (known, new))
        model = LogisticRegression(C=100).fit(x, y)
        right &= model.predict(x_new) == np.array(truth)
    return right


# --8<-- [end:slots]
def study(*, seeds: int = 3, steps: int = 240, tuning: int = 60, n: int = 288) -> dict:
    """Over seeds: new combinations, new wording, few to learn from; what tuning does, two ways."""
    usual, unusual = (tasks("test", n, seed=1, frame=frame) for frame in ("", UNUSUAL))
    pairs, held = preferences(), preferences("test", n=n, seed=5)
    table = {}
    for seed in range(seeds):
        model = train(lines(), steps=steps, seed=seed)
        few = train(lines(share=0.05), steps=steps, seed=seed)
        found = {"new combinations": attempt(model, usual)[0].mean(),
                 "new wording": attempt(model, unusual)[0].mean(),
                 "few combinations": attempt(few, usual)[0].mean(),
                 "polite before": manners(model, held)["polite"]}  # fmt: skip
        for name, nll in (("DPO", 0.0), ("DPO and NLL", 0.3)):
            tuned = prefer(model, pairs, nll=nll, steps=tuning, seed=seed)
            shares = manners(tuned, held)
            found |= {f"polite, {name}": shares["polite"], f"rude, {name}": shares["rude"],
                      f"untrue, {name}": shares["untrue"],
                      f"calls, {name}": attempt(tuned, usual)[0].mean()}  # fmt: skip
        for name, value in found.items():
            table.setdefault(name, []).append(float(value))
    for name, values in table.items():
        print(f"{name:<24}", *(f"{value:6.2f}" for value in values))
    names = {name: re.sub(r"\W+", "_", name).lower() for name in table}
    spread = {f"{names[k]}_sd": float(np.std(v)) for k, v in table.items()}
    return {names[k]: float(np.mean(v)) for k, v in table.items()} | spread
