"""What it knows: the missing mass, answers by how often a fact was read, and BM25 by hand."""

import math

import numpy as np
import pytest
import torch

from snippets.language_models import gpt, hallucination, tokenization
from snippets.shared import prose

SHELF = [
    "The cat sat on the mat.",
    "The dog chased the cat; the cat ran. A dog is loud.",
    "A rare axolotl sleeps.",
    "The dog the dog the dog.",
    "Milk, bread and cheese.",
]


@pytest.fixture(scope="module")
def short():
    """A few facts, learned in a second."""
    land = hallucination.world(people=30, towns=5, seed=2)
    text = hallucination.tell(land, np.tile(np.arange(20), 6))
    return land, text, hallucination.train(text, steps=60, batch=8, width=32)


@pytest.fixture(scope="module")
def shelf():
    return hallucination.index(SHELF)


# ---------------------------------------------------------------- the facts


def test_people_are_all_different_and_share_their_names_with_many():
    land = hallucination.world(people=1600, towns=40, seed=3)
    assert len(set(land.names)) == 1600 and len(set(land.towns)) == 40
    for part in zip(*(name.split() for name in land.names)):
        assert np.unique(part, return_counts=True)[1].min() == 40
    words = {word for name in land.names for word in name.split()}
    assert len(words) == 80 and not words & set(land.towns)


def test_people_are_spoken_of_by_zipfs_law():
    land = hallucination.world(people=500)
    assert land.p.sum() == pytest.approx(1)
    np.testing.assert_allclose(land.p[0] / land.p, np.arange(1, 501))
    seen = np.bincount(hallucination.draw(land, 100_000, seed=0), minlength=500)
    np.testing.assert_allclose(seen[:20] / 100_000, land.p[:20], rtol=0.1)
    assert set(land.home) <= set(range(40))
    assert len({name.split()[0] for name in land.names[:40]}) > 12  # of 23 first names


def test_where_one_lives_cannot_be_told_from_either_name():
    """Chance alone: a first name says no more than it would after shuffling the homes."""
    land = hallucination.world(people=1600, towns=5)
    for k in (0, 1):
        name = np.unique([n.split()[k] for n in land.names], return_inverse=True)[1]
        table = np.histogram2d(name, land.home, bins=(40, 5))[0]
        chi = ((table - 8) ** 2 / 8).sum()  # 40 · 5 cells of eight, about 156 degrees of freedom
        assert 90 < chi < 260


def test_who_is_never_drawn_is_never_named_in_the_text():
    land = hallucination.world()
    who = hallucination.draw(land, 2000, seed=4)
    lines = set(hallucination.tell(land, who).splitlines())
    named = {line.partition(" lives")[0] for line in lines}
    assert named == {land.names[i] for i in set(who.tolist())}
    assert not named & {land.names[i] for i in set(range(1600)) - set(who.tolist())}
    assert len(lines) == len(named)  # one home each, always the same


def test_one_sentence_by_hand():
    land = hallucination.World(["Ada Bell", "Bob Bell"], ["Rome", "Oslo"], np.array([1, 0]), None)
    assert hallucination.tell(land, [1, 0, 1]) == (
        "Bob Bell lives in Rome.\nAda Bell lives in Oslo.\nBob Bell lives in Rome.\n"
    )


# ---------------------------------------------------------------- the missing mass


def test_good_turing_by_hand():
    assert hallucination.good_turing(np.array([0, 0, 1, 2, 2, 2, 5, 7])) == 3 / 8
    assert hallucination.good_turing(np.array([4, 4])) == 0


@pytest.mark.parametrize("n", [100, 1000])
def test_good_turing_has_the_mean_that_theory_says_and_that_of_the_missing_mass(n):
    land = hallucination.world(people=400)
    once, missing = [], []
    for seed in range(400):
        who = hallucination.draw(land, n, seed=seed)
        once.append(hallucination.good_turing(who))
        missing.append(land.p[np.bincount(who, minlength=400) == 0].sum())
    theory = (land.p * (1 - land.p) ** (n - 1)).sum()
    error = np.std(once) / 20
    assert np.mean(once) == pytest.approx(theory, abs=4 * error)
    assert np.mean(missing) == pytest.approx((land.p * (1 - land.p) ** n).sum(), abs=4 * error)
    assert np.mean(once) == pytest.approx(np.mean(missing), abs=4 * error + land.p[0] / n)


# ---------------------------------------------------------------- the model


def test_words_of_the_text_are_one_token_and_any_other_word_comes_back():
    pieces = hallucination.whole_words("Ada Bell lives in Rome.\nBob Bell lives in Oslo.\n")
    cut = tokenization.encode(pieces, "Bob Bell lives in Rome.")
    assert len(cut) == 6 and min(cut[:5]) >= 256
    for text in ("Ada lives in Paris, 数!", "", "Rome.\nRome"):
        assert tokenization.decode(pieces, tokenization.encode(pieces, text)) == text


def test_answers_are_the_models_own_probabilities_of_the_next_word(short):
    land, _, model = short
    p = hallucination.ask(model, [f"{n} lives in" for n in land.names[:3]], land.towns)
    assert p.shape == (3, 5) and (p > 0).all() and (p.sum(axis=1) <= 1).all()
    for i in range(3):
        question = f"{land.names[i]} lives in"
        whole, part = hallucination.log_prob(model, [f"{question} {land.towns[2]}", question])
        assert math.log(p[i, 2]) == pytest.approx(whole - part, abs=1e-3)


def test_all_next_words_sum_to_one(short):
    land, _, model = short
    ids = [10, *tokenization.encode(model.pieces, f"{land.names[0]} lives in")]
    tokens = range(len(model.pieces.pieces))
    every = [gpt.log_tokens(model, [*ids[1:], token])[-1].item() for token in tokens]
    assert np.exp(every).sum() == pytest.approx(1, abs=1e-4)


def test_a_question_is_read_behind_a_line_end(short):
    """As `log_prob` reads it: another start gives another answer."""
    land, _, model = short
    question = f"{land.names[4]} lives in"
    ids = torch.tensor([[10, *tokenization.encode(model.pieces, question)]])
    with torch.no_grad():
        logits = model(ids)[0, -1].softmax(dim=-1)
    town = tokenization.encode(model.pieces, " " + land.towns[1])[0]
    assert hallucination.ask(model, [question], land.towns)[0, 1] == pytest.approx(
        logits[town].item(), rel=1e-4
    )


def test_training_repeats_and_leaves_the_callers_random_stream_alone(short):
    _, text, _ = short
    state = torch.random.get_rng_state()
    one, again, two = (hallucination.train(text, steps=3, seed=s).history for s in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert one == again != two


def test_lines_are_drawn_that_begin_as_told(short):
    land, _, model = short
    drawn = hallucination.sample(model, 5, start=land.names[0], temperature=0.05)
    assert all(line.startswith(land.names[0]) and "\n" not in line for line in drawn)
    assert drawn != hallucination.sample(model, 5)


# ---------------------------------------------------------------- abstaining


def test_risk_and_coverage_by_hand():
    share, risk = hallucination.risk_coverage(
        np.array([0.2, 0.9, 0.6, 0.4]), np.array([False, True, False, True])
    )
    np.testing.assert_allclose(share, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 2 / 4])


def test_more_answers_never_mean_fewer_errors_and_the_last_point_is_all():
    random = np.random.default_rng(0)
    sure = random.random(500)
    right = random.random(500) < sure
    share, risk = hallucination.risk_coverage(sure, right)
    assert (np.diff(share) > 0).all() and share[-1] == 1
    assert (np.diff(share * risk) >= -1e-12).all()  # the number of errors
    assert risk[-1] == pytest.approx(1 - right.mean())
    assert risk[100] < risk[-1] - 0.2  # confidence helps here


def test_an_examination_by_hand(monkeypatch):
    """Four people, read 0, 1, 2 and 5 times; the first and the second are answered wrongly."""
    land = hallucination.World(
        ["A", "B", "C", "D"], ["X", "Y"], np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    )
    p = np.array([[0.05, 0.95], [0.4, 0.6], [0.01, 0.99], [0.2, 0.8]])
    monkeypatch.setattr(hallucination, "ask", lambda *_: p)
    row = hallucination.examine(None, land, np.array([1, 2, 2, 3, 3, 3, 3, 3]), n=20_000)
    assert [row[k] for k in ("never", "once", "twice", "more")] == [0, 0, 1, 1]
    assert row["unseen_sure"] == row["told_unseen"] == 1
    assert row["kept"] == 1 / 3 and row["auroc"] == 1 / 3
    assert row["missing"] == pytest.approx(0.1) and row["singletons"] == 1 / 8
    assert row["wrong"] == pytest.approx(0.3, abs=0.015)


# ---------------------------------------------------------------- search


def by_hand(texts, question, k1, b):
    """BM25, written out once more: sums over lists, nothing kept between texts."""
    docs = [hallucination.terms(text) for text in texts]
    mean = sum(map(len, docs)) / len(docs)
    scores = []
    for doc in docs:
        total = 0.0
        for word in set(hallucination.terms(question)):
            have = sum(word in other for other in docs)
            rare = math.log((len(docs) - have + 0.5) / (have + 0.5) + 1)
            often = doc.count(word)
            down = often + k1 * (1 - b + b * len(doc) / mean)
            total += rare * often * (k1 + 1) / down
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("k1, b", [(1.2, 0.75), (0.5, 0), (2.0, 1)])
@pytest.mark.parametrize("question", ["the cat", "cat cat dog", "axolotl?", "nothing here"])
def test_bm25_equals_the_formula_written_out(shelf, question, k1, b):
    found = hallucination.bm25(shelf, question, k1=k1, b=b)
    np.testing.assert_allclose(found, by_hand(SHELF, question, k1, b), atol=1e-12)


def test_one_score_by_hand(shelf):
    """axolotl: in 1 of 5 texts, once; 4 words long, 33 / 5 on average."""
    assert shelf.length.tolist() == [6, 12, 4, 6, 4]
    rare = math.log(1 + 4.5 / 1.5)
    expected = rare * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 4 / 6.4))
    assert hallucination.bm25(shelf, "Axolotl")[2] == pytest.approx(expected)


def test_more_of_a_word_scores_more_and_ever_less_more():
    """Texts of one length with 1, 2, 3 ... of the word."""
    texts = ["word " * k + "other " * (12 - k) for k in range(1, 12)] + ["other " * 12] * 30
    score = hallucination.bm25(hallucination.index(texts), "word")[:11]
    assert (np.diff(score) > 0).all() and (np.diff(score, n=2) < 0).all()
    rare = hallucination.rarity(hallucination.index(texts), "word")
    assert score.max() < rare * 2.2  # the bound that it nears


def test_a_rarer_word_weighs_more_and_none_weighs_less_than_nothing():
    texts = [f"all {'half' if k < 5 else 'x'} {'one' if k == 0 else 'y'}" for k in range(10)]
    shelf = hallucination.index(texts)
    weights = [hallucination.rarity(shelf, word) for word in ("all", "half", "one")]
    assert 0 < weights[0] < weights[1] < weights[2]


def test_of_two_texts_the_shorter_one_is_better_unless_b_is_nought():
    shelf = hallucination.index(["cat here", "cat and much else that is not asked for", "dog"])
    score = hallucination.bm25(shelf, "cat", b=0.75)
    assert score[0] > score[1] > score[2] == 0
    score = hallucination.bm25(shelf, "cat", b=0)
    assert score[0] == pytest.approx(score[1])


def test_the_best_come_first_and_nothing_is_found_without_a_shared_word(shelf):
    assert hallucination.best(np.array([0.0, 2.0, 3.0, 2.0]), 9) == [2, 1, 3]
    assert hallucination.best(np.array([0.0, 2.0, 3.0, 2.0]), 2) == [2, 1]
    assert hallucination.best(hallucination.bm25(shelf, "zebra"), 5) == []


def test_the_sentence_with_the_rarest_shared_words_is_read(shelf):
    told = hallucination.read(shelf, "Is a dog the loud one?", SHELF[1])
    assert told == "A dog is loud."
    assert hallucination.read(shelf, "the cat", SHELF[1]).startswith("The dog chased")


# ---------------------------------------------------------------- the questions


def test_each_question_has_its_passage_and_no_text_is_in_two_halves():
    rows = [row for part in prose.load() for row in part]
    known = {}
    for part in ("choose", "test", "reworded"):
        known[part] = hallucination.questions(part)
        for q in known[part]:
            hits = [r for r in rows if r.source == q.source and r.text.startswith(q.passage)]
            assert 1 <= len(hits) <= 3, q
    assert len(known["choose"]) + len(known["test"]) >= 40
    halves = [{(q.source, q.passage) for q in known[part]} for part in ("choose", "test")]
    assert not halves[0] & halves[1]
    assert all(q.source == q.passage == "" for q in hallucination.questions("none"))


def test_recall_by_hand():
    rows = [prose.Paragraph("a", "", "One two."), prose.Paragraph("b", "", "One two three."),
            prose.Paragraph("b", "", "Four.")]  # fmt: skip
    sought = (("?", "b", "One"), ("!", "b", "Four"))
    asked = [hallucination.Question("test", *row) for row in sought]
    rank = {"?": np.array([3.0, 2.0, 1.0]), "!": np.array([3.0, 2.0, 0.0])}.get
    assert [hallucination.recall(rows, asked, rank, n) for n in (1, 2, 3)] == [0, 0.5, 0.5]


def test_bad_input_is_refused_in_words(short):
    land, _, model = short
    with pytest.raises(ValueError, match="answers that are words of the training text"):
        hallucination.ask(model, ["A"], ["Atlantis"])
    with pytest.raises(ValueError, match="questions of equally many tokens"):
        hallucination.ask(model, [land.names[0], f"{land.names[0]} lives in"], land.towns)
    with pytest.raises(ValueError, match="a list of texts"):
        hallucination.index("one text")
    with pytest.raises(ValueError, match="one of choose, test"):
        hallucination.questions("all")
    with pytest.raises(ValueError, match="pass \\[text\\]"):
        hallucination.log_prob(model, "text")


def test_study_prints_its_table_at_a_tiny_size(capsys):
    table = hallucination.study(seeds=2, steps=(2,), n=120, people=30, towns=4)
    assert "unseen sure" in capsys.readouterr().out
    row = table["after_2"]
    assert 0 <= row["wrong"] <= 1 and row["never"] < 0.5 and row["missing"] > 0


# ---------------------------------------------------------------- the bars


@pytest.fixture(scope="module")
def trained():
    """As on the page, with fewer people so that it takes a few seconds."""
    land = hallucination.world(people=900)
    who = hallucination.draw(land, 1500, seed=1)
    model = hallucination.train(hallucination.tell(land, who), steps=700)
    return hallucination.examine(model, land, who)


@pytest.mark.bar
def test_what_was_read_is_known_and_what_was_not_is_made_up(trained):
    assert trained["once"] > 0.85 and trained["twice"] > 0.95 and trained["more"] > 0.98
    assert trained["never"] < 0.08  # one town of forty, by chance
    assert trained["unseen_sure"] > 0.25
    assert trained["auroc"] > 0.75


@pytest.mark.bar
def test_the_errors_are_the_missing_mass(trained):
    assert trained["wrong"] == pytest.approx(trained["missing"], abs=0.04)
    assert trained["singletons"] == pytest.approx(trained["missing"], abs=0.03)


@pytest.mark.bar
def test_search_finds_the_passage_among_five():
    rows = [row for part in prose.load() for row in part]
    library = hallucination.index([row.text for row in rows])
    asked = hallucination.questions("test")
    five = hallucination.recall(
        rows, asked, lambda text: hallucination.bm25(library, text, b=0.25), 5
    )
    assert five >= 0.75  # asked for
