"""A language model on labels: one slip each, scores by hand, padding unseen, the base untouched."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from snippets.discriminative import spam_filter
from snippets.language_models import as_classifier as ac
from snippets.language_models import gpt, tokenization
from snippets.shared import prose

SLIPS = ("swap", "far", "agree", "drop", "twice")
SENTENCE = "This is a list of the names, which are sorted by length."
# Whether they speak of strings or of numbers: a task that a tiny network learns in a second.
TEXTS = [
    f"{a} {b}."
    for a in ("Return a", "Take the", "Print each", "Store this")
    for b in ("string of text", "number of rows", "text as a string", "rows by number")
]
LABELS = np.array(["number" in text for text in TEXTS], dtype=int)


@pytest.fixture(scope="module")
def base():
    """A tiny GPT that has read nothing, with the kept tokens and a context of 16."""
    torch.manual_seed(1)
    model = gpt.GPT(width=32, depth=2, heads=2, context=16).eval()
    model.pieces = gpt.load().pieces
    return model


@pytest.fixture(scope="module")
def tuned(base):
    return ac.train(TEXTS, LABELS, base=base, steps=30, batch=8, rate=3e-3)


@pytest.fixture(scope="module")
def reviews():
    return ac.load_reviews()


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------- sentences and slips


def test_sentences_are_plain_and_come_once():
    rows = [
        prose.Paragraph("a", "Summary", text)
        for text in (
            "It has six words, just so. It has five of them. Call `f` to get all of these now.",
            "It has six words, just so. it begins in lower case, and so it stays out.",
        )
    ]
    assert ac.sentences(rows) == ["It has six words, just so."]
    found = ac.sentences(prose.load().test)
    assert len(found) > 400 and all(6 <= len(text.split()) <= 20 for text in found)


@pytest.mark.parametrize("seed", range(20))
def test_each_slip_is_the_one_that_it_is_named_for(seed):
    w = SENTENCE[:-1].split()
    made = {slip: ac.corrupt(SENTENCE, slip, seed=seed) for slip in SLIPS}
    assert all(text.endswith(".") and text != SENTENCE for text in made.values())
    new = {slip: text[:-1].split() for slip, text in made.items()}
    assert all(words[0] == w[0] for words in new.values())
    for slip in ("swap", "far", "agree"):
        places = [i for i in range(len(w)) if w[i] != new[slip][i]]
        if slip == "agree":
            (at,) = places
            assert {w[at], new[slip][at]} in ({"is", "are"}, {"this", "these"})
        else:
            i, j = places
            assert new[slip][i] == w[j] and new[slip][j] == w[i]
            assert (j == i + 1) if slip == "swap" else (j >= i + 3)
    i = next(i for i in range(len(w)) if new["drop"][i : i + 1] != w[i : i + 1])
    assert new["drop"] == w[:i] + w[i + 1 :] and i < len(w) - 1
    i = next(i for i in range(len(w)) if new["twice"][i] != w[i])
    assert new["twice"] == [*w[:i], w[i - 1], *w[i:]]


def test_slips_are_everywhere_follow_the_seed_and_need_a_place():
    for slip in SLIPS:
        made = {ac.corrupt(SENTENCE, slip, seed=seed) for seed in range(40)}
        assert len(made) > (1 if slip == "agree" else 6)
        assert ac.corrupt(SENTENCE, slip, seed=3) == ac.corrupt(SENTENCE, slip, seed=3)
    assert ac.corrupt("No such word stands in here.", "agree", seed=0) is None
    assert ac.corrupt("All all all.", "swap", seed=0) is None
    with pytest.raises(ValueError, match="expected a slip out of swap, far"):
        ac.corrupt(SENTENCE, "typo", seed=0)


def test_words_that_must_agree_come_in_pairs():
    assert all(ac.OTHER[other] == word != other for word, other in ac.OTHER.items())


# ---------------------------------------------------------------- scores


def test_frequencies_are_counts_plus_one(base):
    alone = ac.frequencies(base, "a a b")
    count = {token: 1 for token in range(2048)}
    for token in tokenization.encode(base.pieces, "a a b"):
        count[token] += 1
    np.testing.assert_allclose(np.exp(alone), np.array([*count.values()]) / (2048 + 3))


def test_weights_are_log_prob_the_tokens_alone_and_their_number(base):
    alone = np.random.default_rng(0).normal(size=2048)
    texts = [SENTENCE, "A short one.", " ".join([SENTENCE] * 3)]
    found = ac.weigh(base, alone, texts)
    cut = [tokenization.encode(base.pieces, text) for text in texts]
    np.testing.assert_allclose(found[:, 0], gpt.log_prob(base, texts), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], [sum(alone[t] for t in row) for row in cut])
    assert found[:, 2].tolist() == [len(row) for row in cut]
    # The neighbours in the list make no difference.
    np.testing.assert_array_equal(ac.weigh(base, alone, texts[1:2]), found[1:2])
    with pytest.raises(ValueError, match="a list of texts: pass \\[text\\]"):
        ac.weigh(base, alone, SENTENCE)


def test_four_scores_by_hand():
    found = ac.scores(np.array([[-12.0, -20.0, 4.0]]))
    assert {name: value.item() for name, value in found.items()} == {
        "sum": -12, "per_token": -3, "SLOR": 2, "ratio": 8,
    }  # fmt: skip


def test_what_each_score_does_not_see():
    """Length, frequency, or neither: the invariances that the page states."""
    rng = np.random.default_rng(0)
    joint, each, tokens = -rng.uniform(20, 60, 9), -rng.uniform(60, 90, 9), rng.integers(6, 20, 9)
    before = ac.scores(np.column_stack([joint, each, tokens]))
    # The same text k times, in a model without memory.
    thrice = ac.scores(3 * np.column_stack([joint, each, tokens]))
    for name in ("per_token", "SLOR"):
        np.testing.assert_allclose(thrice[name], before[name])
    # One more token that the past makes neither likelier nor less likely.
    more = ac.scores(np.column_stack([joint - 5, each - 5, tokens + 1]))
    np.testing.assert_allclose(more["ratio"], before["ratio"])
    assert (more["sum"] < before["sum"]).all()
    # Rarer words, each by the same factor, with the past as telling as before.
    rare = ac.scores(np.column_stack([joint - 2 * tokens, each - 2 * tokens, tokens]))
    for name in ("SLOR", "ratio"):
        np.testing.assert_allclose(rare[name], before[name])
    assert (rare["per_token"] < before["per_token"]).all()


def test_on_the_same_tokens_all_scores_agree():
    base = gpt.load()
    alone = ac.frequencies(base, "any text")
    made = [ac.corrupt(SENTENCE, "swap", seed=seed) for seed in range(1, 9)]
    right, wrong = (ac.scores(ac.weigh(base, alone, t)) for t in ([SENTENCE] * 8, made))
    verdicts = [right[name] > wrong[name] for name in right]
    assert all((verdict == verdicts[0]).all() for verdict in verdicts)


# ---------------------------------------------------------------- reading


def test_a_text_is_a_line_of_tokens_cut_at_the_context(base):
    tokens, lengths = ac.pad(base, ["A short one.", " ".join([SENTENCE] * 3)])
    cut = tokenization.encode(base.pieces, "A short one.")
    assert tokens[0, : len(cut) + 1].tolist() == [10, *cut]
    assert lengths.tolist() == [len(cut) + 1, 16] and tokens.shape == (2, 16)


def test_what_is_read_is_the_mean_of_the_rows_that_predict(base):
    """Oracle: the rows from the network's own logits, text by text, without padding."""
    texts = ["A short one.", "A text that is somewhat longer."]
    found = ac.read(base, *ac.pad(base, texts))
    for text, row in zip(texts, found):
        ids = [10, *tokenization.encode(base.pieces, text)]
        with torch.no_grad():
            logits = base(torch.tensor([ids]))[0].mean(dim=0)
        torch.testing.assert_close(row @ base.token.weight.T, logits, atol=1e-5, rtol=1e-4)


def test_padding_is_not_seen_whatever_stands_there(base):
    tokens, lengths = ac.pad(base, ["A short one.", "A text that is somewhat longer."])
    assert lengths[0] < tokens.shape[1]
    other = tokens.clone()
    other[0, lengths[0] :] = 77
    wide = torch.nn.functional.pad(tokens, (0, 4), value=5)
    before = ac.read(base, tokens, lengths)
    torch.testing.assert_close(ac.read(base, other, lengths), before, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ac.read(base, wide, lengths), before, atol=1e-6, rtol=1e-5)


# ---------------------------------------------------------------- probabilities


def test_rows_sum_to_one_and_are_even_before_training(base):
    p = ac.predict_proba(ac.Classifier(base, 3), TEXTS)
    np.testing.assert_allclose(p, 1 / 3)


def test_rows_sum_to_one_and_do_not_depend_on_the_neighbours(tuned):
    texts = [*TEXTS, *[f"{text[:-1]} {'and more ' * (k % 3)}here." for k, text in
                       enumerate(TEXTS * 4)]]  # fmt: skip
    p = ac.predict_proba(tuned, texts)
    assert p.shape == (80, 2) and len(texts) > 64
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    alone = np.concatenate([ac.predict_proba(tuned, [text]) for text in texts])
    np.testing.assert_allclose(p, alone, atol=1e-5)
    np.testing.assert_allclose(ac.predict_proba(tuned, texts[::-1]), p[::-1], atol=1e-5)


# ---------------------------------------------------------------- training


def test_fine_tuning_learns_and_leaves_its_base_alone(base):
    before, state = weights(base), torch.random.get_rng_state()
    model = ac.train(TEXTS, LABELS, base=base, steps=30, batch=8, rate=3e-3)
    assert same(before, base.state_dict())
    assert torch.equal(state, torch.random.get_rng_state())
    p = ac.predict_proba(model, TEXTS)
    assert (p.argmax(axis=1) == LABELS).all()
    moved = [not torch.equal(before[n], w) for n, w in model.base.state_dict().items()]
    assert all(moved), "the whole copy is tuned"
    assert not model.training


def test_fine_tuning_repeats_and_follows_the_seed(base, tuned):
    again, other = (
        ac.train(TEXTS, LABELS, base=base, steps=30, batch=8, rate=3e-3, seed=s) for s in (0, 1)
    )
    assert same(tuned.state_dict(), again.state_dict())
    assert not same(tuned.state_dict(), other.state_dict())


def test_one_step_is_on_the_mean_cost_of_a_batch_and_its_own_labels(base, monkeypatch):
    costs, honest = [], torch.nn.functional.cross_entropy

    def spy(logits, labels):
        costs.append(labels.tolist())
        return honest(logits, labels)

    rows, order = [], torch.randperm
    monkeypatch.setattr(ac.functional, "cross_entropy", spy)
    monkeypatch.setattr(torch, "randperm", lambda n: rows.append(order(n)) or rows[-1])
    ac.train(TEXTS, LABELS, base=base, steps=4, batch=8)
    seen = torch.cat(rows)[:32]
    assert [label for some in costs for label in some] == LABELS[seen].tolist()
    assert sorted(seen[:16].tolist()) == list(range(16)), "each text once before any comes again"


def test_a_batch_is_of_the_texts_that_the_labels_belong_to(base):
    """What is trained on text and label in pairs cannot learn from labels in another order."""
    mixed = np.random.default_rng(0).permutation(LABELS)
    p = ac.predict_proba(ac.train(TEXTS, LABELS, base=base, steps=30, batch=4, rate=3e-3), TEXTS)
    assert (p.argmax(axis=1) == LABELS).mean() > (p.argmax(axis=1) == mixed).mean() + 0.3


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_is_logistic_regression_on_frozen_features(base, classes):
    before = weights(base)
    labels = np.arange(len(TEXTS)) % classes
    model = ac.probe(TEXTS, labels, base=base, c=0.5)
    assert same(before, base.state_dict()) and model.base is base
    x = torch.cat([ac.read(base, *ac.pad(base, [text])) for text in TEXTS]).detach().numpy()
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
    expected = oracle.fit(x.astype(float), labels).predict_proba(x.astype(float))
    np.testing.assert_allclose(ac.predict_proba(model, TEXTS), expected, atol=1e-3)


def test_bad_input_is_refused_in_words(base, tuned):
    for fit in (ac.train, ac.probe):
        with pytest.raises(ValueError, match="a list of texts and a label for each"):
            fit(TEXTS, LABELS[1:], base=base)
        with pytest.raises(ValueError, match=r"labels 0, 1, \.\.\. with none left out"):
            fit(TEXTS, 2 * LABELS, base=base)
        with pytest.raises(ValueError, match=r"labels 0, 1, \.\.\. with none left out"):
            fit(TEXTS, 0 * LABELS, base=base)
    for texts in ("one text", []):
        with pytest.raises(ValueError, match="a list of texts: pass \\[text\\]"):
            ac.predict_proba(tuned, texts)


# ---------------------------------------------------------------- rivals and shares


def test_the_list_counts_and_a_draw_is_half_right():
    p = ac.count_list(["Great, lovely, slow.", "An awful waste.", "A book.", "Good and bad."])
    np.testing.assert_allclose(p, [[2 / 5, 3 / 5], [3 / 4, 1 / 4], [0.5, 0.5], [0.5, 0.5]])
    assert not set(ac.GOOD.split()) & set(ac.BAD.split())
    np.testing.assert_array_equal(ac.right(p, np.array([1, 1, 0, 1])), [1, 0, 0.5, 0.5])


def test_the_rival_sees_pairs_of_words():
    texts = ["not bad", "bad", "not good", "good"] * 5
    y = np.array([1, 0, 0, 1] * 5)
    p = ac.count_words(texts, y).predict_proba(texts[:4])
    assert (p.argmax(axis=1) == y[:4]).all()


def test_mean_recall_weighs_classes_alike():
    p = np.eye(2)[[0, 0, 0, 0, 1]]
    assert ac.mean_recall(p, np.array([0, 0, 0, 1, 1])) == pytest.approx((1 + 1 / 2) / 2)


def test_draws_are_balanced_new_for_each_seed_and_grow():
    labels = np.repeat([0, 1, 2, 3], (50, 40, 30, 10))
    rows = ac.draw(labels, 20, seed=0)
    assert len(set(rows.tolist())) == 20
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5, 5]
    assert set(rows) != set(ac.draw(labels, 20, seed=1))
    assert set(rows) < set(ac.draw(labels, 40, seed=0))


def test_sections_have_their_own_labels_and_held_ones_are_held():
    rows = prose.load("sklearn")
    texts, labels = ac.sections(rows.test)
    truth = {(row.text, row.section) for row in rows.test}
    assert all((t, ac.SECTIONS[k]) in truth for t, k in zip(texts, labels))
    new, of = ac.held_sections(50)
    assert np.bincount(of).max() == 50 and np.bincount(of).min() >= 30
    known = set(ac.sections(rows.train)[0])
    assert not known & set(new)


# ---------------------------------------------------------------- reviews


def test_reviews_are_as_the_datasheet_says(reviews):
    said = (ac.REVIEWS.parent / "README.md").read_text(encoding="utf-8")
    assert f"{len(reviews)} short product reviews" in said and len(reviews) >= 400
    good = sum(review.positive for review in reviews)
    assert f"{good} positive reviews, {len(reviews) - good} negative" in said
    for product in {review.product for review in reviews}:
        sides = [r.positive for r in reviews if r.product == product]
        groups = len({r.group for r in reviews if r.product == product})
        assert f"| {product} | {sum(sides)} | {len(sides) - sum(sides)} | {groups} |" in said
        assert abs(2 * sum(sides) - len(sides)) <= 2, "balanced within each product"
    for kind in ("plain", "negation", "mixed", "irony"):
        sides = [r.positive for r in reviews if r.kind == kind]
        assert f"| {kind} | {sum(sides)} | {len(sides) - sum(sides)} |" in said
    assert {review.kind for review in reviews} == {"plain", "negation", "mixed", "irony"}


def test_reviews_are_short_differ_and_have_no_twin_in_another_group(reviews):
    lists = [spam_filter.words(review.text) for review in reviews]
    assert len({review.text for review in reviews}) == len(reviews)
    assert all(8 <= len(review.text.split()) <= 30 for review in reviews)
    near = spam_filter.near_duplicates(lists)
    group = np.array([review.group for review in reviews])
    assert all(len(set(group[near == k])) == 1 for k in set(near))
    both = [{r.positive for r in reviews if r.group == k} for k in set(group)]
    assert np.mean([len(sides) == 2 for sides in both]) > 0.9


def test_no_review_is_judged_by_a_model_that_met_its_group(reviews):
    of = {review.text: (review.group, review.positive) for review in reviews}
    folds = []

    def fit(texts, labels):
        assert [of[text][1] for text in texts] == list(labels)
        known = {of[text][0] for text in texts}

        def told(new):
            assert not known & {of[text][0] for text in new}
            folds.append(len(new))
            return np.array([[0.0, len(text)] for text in new])

        return told

    p = ac.across(reviews, fit)
    assert p[:, 1].tolist() == [len(review.text) for review in reviews]
    assert len(folds) == 4 and sum(folds) == len(reviews)


def test_study_prints_its_table_at_a_tiny_size(capsys):
    table = ac.study(draws=1, sizes=(8,), steps=1, most=24)
    printed = capsys.readouterr().out
    assert printed.count("±") == 5 + 4
    assert 0 < table["words"]["n_8"] < 1 and table["probe"]["n_8_sd"] >= 0
    assert 0 < table["reviews"]["fine_tuned"]["all"] < 1
    assert table["reviews"]["list"]["sd"] == 0


# ---------------------------------------------------------------- the bars


@pytest.mark.bar
def test_without_labels_slips_are_found_and_the_sum_prefers_the_shorter():
    base = gpt.load()
    alone = ac.frequencies(base, prose.text_of(prose.load().train))
    good = ac.sentences(prose.load().test)[::3]
    found = {}
    for slip in SLIPS:
        pairs = [(s, c) for k, s in enumerate(good) if (c := ac.corrupt(s, slip, seed=k))]
        a, b = (ac.scores(ac.weigh(base, alone, list(side))) for side in zip(*pairs))
        found[slip] = {name: (a[name] > b[name]).mean() for name in a}
    assert found["swap"]["sum"] > 0.85 and found["far"]["sum"] > 0.9
    assert found["agree"]["sum"] > 0.85
    assert found["drop"]["sum"] < 0.4 and found["twice"]["sum"] > 0.98
    assert found["drop"]["ratio"] > 0.85 and found["twice"]["ratio"] < 0.4
    assert min(found["drop"]["per_token"], found["twice"]["per_token"]) > 0.65


@pytest.mark.bar
def test_fine_tuning_on_500_labels_beats_the_probe():
    texts, labels = ac.sections(prose.load("sklearn").train)
    rows = ac.draw(labels, 500, seed=0)
    new, truth = ac.held_sections(50)
    some = [texts[row] for row in rows]
    tuned = ac.mean_recall(ac.predict_proba(ac.train(some, labels[rows]), new), truth)
    probed = ac.mean_recall(ac.predict_proba(ac.probe(some, labels[rows]), new), truth)
    assert tuned > 0.45  # four classes: guessing gives 0.25
    assert probed > 0.35
    assert tuned > probed
