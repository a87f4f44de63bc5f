"""The rules on code: what they must find, and what looks like it and is right."""

import ast

import pytest

from snippets.site.code_rules import (
    chance_has_a_seed,
    nothing_is_fetched,
    nothing_is_unpickled,
    torch_draws,
)


def found(rule, code: str) -> list[int]:
    """The lines on which a rule finds something."""
    return [line for line, _, _ in rule(ast.parse(code))]


@pytest.mark.parametrize(
    "code",
    [
        "np.random.default_rng()",
        "default_rng(None)",
        "np.random.Generator(np.random.PCG64())",
        "numpy.random.rand(3)",
        "import random\nrandom.shuffle(x)",
        "GaussianMixture(4)",
        "ensemble.RandomForestClassifier(n_estimators=9, random_state=None)",
        "KFold(5, shuffle=True)",
        "train_test_split(x, y)",
        "stats.norm.rvs(size=8)",
        "hash(name)",
        "time.time()",
        "datetime.datetime.now()",
        "for name in {1, 2}: print(name)",
        "[x for x in set(y)]",
        "list(set(y))",
        "', '.join({a for a in b})",
    ],
)
def test_chance_without_a_seed_is_found(code):
    assert found(chance_has_a_seed, code) == [code.count("\n") + 1]


@pytest.mark.parametrize(
    "code",
    [
        "random = np.random.default_rng(seed)\nrandom.shuffle(x)\nrandom.choice(y)",
        "default_rng(seed=0)",
        "np.random.Generator(np.random.PCG64(0))",
        "GaussianMixture(4, random_state=0)",
        "GaussianMixture(4, **settings)",
        "KFold(5)",
        "KFold(5, shuffle=True, random_state=seed)",
        "sorted(set(y))",
        "for name in sorted({1, 2}): print(name)",
        "len([x for x in set(y)])",
        "{x for x in {1, 2}}",
        "if x in {1, 2}: print(x)",
        "hashlib.sha256(b)",
        "model.sample(9)",
        "time.perf_counter()",
    ],
)
def test_chance_with_a_seed_is_not(code):
    assert found(chance_has_a_seed, code) == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("torch.randn(3)", 1),
        ("torch.randn_like(mu)", 1),
        ("weight.normal_(0, 1)", 1),
        ("torch.randn(3, generator=g)", 0),
        ("random.normal(3)", 0),
        ("torch.zeros(3)", 0),
    ],
)
def test_draws_from_the_stream_of_torch(code, count):
    assert len(list(torch_draws(ast.parse(code)))) == count


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("import os\nimport urllib.request", [2]),
        ("from urllib import request", [1]),
        ("from http.client import HTTPConnection", [1]),
        ("import requests as r", [1]),
        ("import socketserver", []),
        ("from urllib.parse import quote", []),
        ("from sklearn.datasets import fetch_openml, load_digits", [1]),
        ("from sklearn import datasets\ndatasets.fetch_openml()", [2]),
        ("from sklearn.datasets import load_digits", []),
    ],
)
def test_what_reads_the_network_is_found(code, lines):
    assert found(nothing_is_fetched, code) == lines


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("import pickle", [1]),
        ("from joblib import load", [1]),
        ("torch.save(net.state_dict(), 'a')", [1]),
        ("np.load('a.npz', allow_pickle=True)", [1]),
        ("np.load('a.npz', allow_pickle=False)", []),
        ("model.eval()", []),
        ("eval('1')", [1]),
        ("exec('1')", [1]),
    ],
)
def test_what_runs_what_it_reads_is_found(code, lines):
    assert found(nothing_is_unpickled, code) == lines
