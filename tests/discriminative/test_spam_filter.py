"""Spam filter: words and weights equal to scikit-learn's, splits without leaks, honest prices."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from snippets.discriminative.spam_filter import (
    DATA,
    Filter,
    Message,
    Model,
    build,
    cheapest,
    choose,
    contenders,
    cost,
    count,
    cross_predict,
    draw_plane,
    draw_votes,
    features,
    folds,
    good_words,
    load,
    load_sms,
    log_loss,
    near_duplicates,
    passing,
    predict_proba,
    quiet_caught,
    rarity,
    share_right,
    spam_probability,
    spread,
    study,
    summary,
    tfidf,
    train,
    train_logistic,
    vocabulary,
    words,
)


@pytest.fixture(scope="module")
def messages():
    return load()


@pytest.fixture(scope="module")
def lists(messages):
    return [words(m.text) for m in messages]


@pytest.fixture(scope="module")
def y(messages):
    return np.array([m.spam for m in messages], dtype=int)


def toy():
    """Twelve tiny messages in which win speaks for spam and tea for good."""
    texts = ["win now", "win cash now", "tea at four", "tea please"] * 3
    lists = [[*text.split(), f"own{k}"] for k, text in enumerate(texts)]
    return lists, np.array([1, 1, 0, 0] * 3)


# ---------------------------------------------------------------- the messages


def test_the_messages_are_as_the_datasheet_says(messages):
    assert len(messages) == 438 >= 420
    assert sum(m.spam for m in messages) == 203
    per_topic = [m.topic for m in messages]
    assert {per_topic.count(t) for t in set(per_topic)} == {54, 55, 56}
    datasheet = (DATA.parent / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| \n").split(" |") for line in datasheet.splitlines() if "| " in line]
    told = {r[0].strip(): [int(n) if n.strip() else 0 for n in r[1:3]] for r in rows[2:]}
    counted = {
        kind: [sum(m.kind == kind and m.spam == spam for m in messages) for spam in (False, True)]
        for kind in {m.kind for m in messages}
    }
    assert told == counted
    assert "CC0" in datasheet


def test_messages_differ_and_links_lead_nowhere(messages, lists):
    assert len({m.text for m in messages}) == len(messages)
    group = near_duplicates(lists)
    assert np.bincount(group).max() == 2 and len(set(group)) == len(lists) - 6
    links = [w for m in messages for w in m.text.split() if "http" in w or ".com" in w]
    assert not links, "addresses end in .example"
    for side in (False, True):
        assert any(".example" in m.text for m in messages if m.spam == side)


def test_alike_messages_have_the_same_label(lists, y):
    group = near_duplicates(lists)
    for number in np.flatnonzero(np.bincount(group) > 1):
        assert len(set(y[group == number])) == 1


# ---------------------------------------------------------------- the public file


def test_the_sms_file_is_read(tmp_path):
    path = tmp_path / "SMSSpamCollection"
    path.write_text("ham\tsee you at five\nspam\tWIN a prize\tnow\u2028!\n", encoding="utf-8")
    read = load_sms(path)
    assert read[0] == Message(False, "sms", "plain", "see you at five")
    assert read[1].spam and read[1].text == "WIN a prize\tnow\u2028!"


@pytest.mark.parametrize("line", ["eggs\thello", "ham hello", "spam\t", ""])
def test_a_bad_line_of_the_sms_file_is_named(tmp_path, line):
    path = tmp_path / "SMSSpamCollection"
    path.write_text(f"ham\thello\n{line}\nham\thello\n", encoding="utf-8")
    with pytest.raises(ValueError, match="SMSSpamCollection, line 2: expected ham or spam, a tab"):
        load_sms(path)


def test_a_missing_sms_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing: unpack"):
        load_sms(tmp_path / "nothing")


# ---------------------------------------------------------------- words and counts


def test_words():
    text = "Pay £3,400.50 NOW!! at bank-x.example/pay?a=1 or WWW.foo.net, don’t e-mail a.b"
    assert words(text) == [
        *("pay", "<money>", "<number>", "now", "!", "!", "at", "<link>", "or", "<link>"),
        *("don't", "e", "mail", "a", "b"),
    ]


def test_counts_and_tfidf_are_scikit_learns(lists):
    known = vocabulary(lists, least=2)
    oracle = CountVectorizer(analyzer=lambda one: one, min_df=2)
    theirs = oracle.fit_transform(lists)
    assert list(known) == list(oracle.get_feature_names_out())
    x = count(lists, known)
    np.testing.assert_array_equal(x.toarray(), theirs.toarray())
    scaled = TfidfTransformer().fit(theirs)
    np.testing.assert_allclose(rarity(x), scaled.idf_)
    np.testing.assert_allclose(
        tfidf(x, rarity(x)).toarray(), scaled.transform(theirs).toarray(), atol=1e-12
    )


def test_a_message_without_a_known_word_is_all_zeros():
    x = count([["a"], ["b"]], {"b": 0, "c": 1})
    np.testing.assert_array_equal(x.toarray(), [[0, 0], [1, 0]])
    assert np.isfinite(tfidf(x, np.ones(2)).toarray()).all()
    assert count([["a"]], {"b": 0}).shape == (1, 1)


def test_once_is_yes_or_no():
    x = features([["a", "a", "b"]], {"a": 0, "b": 1}, "once", np.ones(2))
    np.testing.assert_array_equal(x.toarray(), [[1, 1]])


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_naive_bayes_is_scikit_learns(lists, y, alpha):
    x = count(lists, vocabulary(lists))
    oracle = MultinomialNB(alpha=alpha).fit(x, y)
    model = train(x, y, alpha=alpha)
    np.testing.assert_allclose(model.weights.T, oracle.feature_log_prob_)
    np.testing.assert_allclose(model.bias, oracle.class_log_prior_)
    np.testing.assert_allclose(predict_proba(model, x), oracle.predict_proba(x), atol=1e-12)


def test_logistic_is_scikit_learns(lists, y):
    x = count(lists[::3], vocabulary(lists[::3]))
    oracle = LogisticRegression(C=0.7, max_iter=1000).fit(x, y[::3])
    p = predict_proba(train_logistic(x, y[::3], c=0.7), x)
    np.testing.assert_allclose(p, oracle.predict_proba(x), atol=1e-9)


def test_words_of_a_class_are_a_distribution():
    model = train(np.array([[2.0, 0, 1], [0, 1, 0], [1, 1, 1]]), np.array([0, 1, 1]))
    np.testing.assert_allclose(np.exp(model.weights).sum(axis=0), 1)
    np.testing.assert_allclose(np.exp(model.weights[:, 0]), np.array([3, 1, 2]) / 6)
    np.testing.assert_allclose(np.exp(model.bias), [1 / 3, 2 / 3])


def test_votes_add_up_and_order_does_not_matter(lists, y):
    built = build(lists[::4], y[::4], fit=train)
    gap = built.model.weights @ [-1, 1]
    one = lists[2]
    known = [w for w in one if w in built.known]
    odds = built.model.bias @ [-1, 1] + sum(gap[built.known[w]] for w in known)
    p = spam_probability(built, [one, one[::-1], [*one, "neverseen"]])
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-odds)), rtol=1e-9)


def test_the_same_message_twice_over_squares_the_evidence(lists, y):
    built = build(lists[::4], y[::4], fit=train)
    even = built._replace(model=built.model._replace(bias=np.zeros(2)))
    p, q = spam_probability(even, [lists[5], lists[5] * 2])
    assert q / (1 - q) == pytest.approx((p / (1 - p)) ** 2)


def test_bad_input_is_named():
    x, y = np.eye(4), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="expected counts of 4 words, got 3"):
        predict_proba(train(x, y), np.ones((1, 3)))
    with pytest.raises(ValueError, match="expected a batch of counts"):
        predict_proba(train(x, y), np.ones(4))
    with pytest.raises(ValueError, match="expected alpha > 0, got 0"):
        train(x, y, alpha=0)
    with pytest.raises(ValueError, match="below zero"):
        train(-x, y)
    with pytest.raises(ValueError, match="expected 4 labels"):
        train_logistic(x, y[:3])
    with pytest.raises(ValueError, match="expected counts, once or TF-IDF, got 'tfidf'"):
        build([["a"]], y, fit=train, form="tfidf")


# ---------------------------------------------------------------- splits


def test_near_duplicates_are_found_and_chains_are_joined():
    texts = [
        "please confirm your account today or lose it",
        "see you at seven",
        "please confirm your account today or lose all",
        "kindly confirm your account today or lose all",
        "see you at the match on sunday then",
    ]
    group = near_duplicates([text.split() for text in texts])
    assert group[0] == group[2] == group[3]
    assert len({group[0], group[1], group[4]}) == 3


def test_a_split_never_parts_near_duplicates(lists, y):
    group = near_duplicates(lists)
    for seed in range(5):
        seen = []
        for fit, test in folds(y, group, seed=seed):
            assert not set(group[fit]) & set(group[test])
            assert abs(y[test].mean() - y.mean()) < 0.03
            seen += test.tolist()
        assert sorted(seen) == list(range(len(y)))
    first, again, other = (folds(y, group, seed=s)[0][1].tolist() for s in (0, 0, 1))
    assert first == again != other


def test_no_message_has_a_say_in_its_own_verdict():
    """Each message has a word of its own: were it judged by a filter that saw it, labels show."""
    y = np.arange(12) % 2
    lists = [["abcdefghijkl"[k]] * 5 + ["same"] for k in range(12)]

    def by_heart(lists, y):
        known = vocabulary(lists, least=1)
        x = count(lists, known)
        return Filter(known, "counts", rarity(x), train(x, y, alpha=0.01))

    p, above = cross_predict(lists, y, np.arange(12), [by_heart])
    np.testing.assert_allclose(p, 0.5, atol=0.2)
    assert p.shape == above.shape == (12,)


def test_settings_are_chosen_on_held_out_parts():
    """Of a candidate that learns by heart and one that says one half, the second is better."""
    lists, y = toy()
    y = np.random.default_rng(0).permutation(y)
    heart = partial(build, fit=partial(train, alpha=1e-6))
    half = partial(build, fit=lambda x, y: Model(np.zeros((x.shape[1], 2)), np.zeros(2)))
    make, p = choose(lists, y, np.arange(12), [heart, half])
    assert make is half
    np.testing.assert_allclose(p, 0.5)


def test_the_vocabulary_is_that_of_training_messages():
    lists, y = toy()
    built = build(lists, y, fit=train)
    assert set(built.known) == {"win", "now", "cash", "tea", "at", "four", "please"}


# ---------------------------------------------------------------- price


def test_cost_by_hand():
    p, y = np.array([0.9, 0.2, 0.96, 0.5]), np.array([1, 1, 0, 0])
    assert cost(p, y, above=0.95) == 100 * (20 + 2) / 4
    assert cost(p, y, above=0.5, lost=3) == 100 * (3 + 1) / 4
    assert cost(p, y, above=np.array([0, 0, 1, 1])) == 0


def test_with_true_probabilities_the_price_gives_the_threshold():
    rng = np.random.default_rng(0)
    p = rng.random(400_000)
    y = (rng.random(p.size) < p).astype(int)
    prices = {above: cost(p, y, above=above) for above in (0.5, 0.9, 20 / 21, 0.98, 0.999)}
    assert min(prices, key=prices.get) == 20 / 21


def test_the_cheapest_threshold_is_the_best_of_all():
    rng = np.random.default_rng(1)
    p, y = rng.random(60).round(2), rng.integers(0, 2, 60)
    best = cost(p, y, above=cheapest(p, y, lost=3), lost=3)
    assert best == min(cost(p, y, above=t, lost=3) for t in np.linspace(-0.01, 1, 500))
    assert cost(p, np.ones(60), above=cheapest(p + 0.01, np.ones(60))) <= 100 / 60


def test_summary_and_spread_by_hand():
    p, y = np.array([0.9, 0.2, 0.96, 0.4]), np.array([1, 1, 0, 0])
    row = summary([(p, 0.95), (1 - p, 0.95)], y)
    assert (row["right"], row["lost"], row["caught"]) == (0.5, 0.5, 0.5)
    assert row["priced"] == row["chosen"] == 100 * (22 / 4 + 2 / 4) / 2
    assert log_loss(p[:2], y[:2]) == pytest.approx(-np.log(0.9 * 0.2) / 2)
    assert spread([{"a": 1}, {"a": 3}]) == {"a": 2, "a_sd": pytest.approx(2**0.5)}


# ---------------------------------------------------------------- failures


def test_good_words_speak_for_good_and_let_spam_through():
    lists, y = toy()
    built = build(lists, y, fit=train)
    assert good_words(built, 1) == ["tea"]
    curve = passing(built, [["win", "now"], ["tea"]], ["tea"] * 5)
    assert curve.tolist() == [0, 0, 1, 1, 1, 1]


def test_quiet_spam_is_left_out_or_its_like_is():
    """Training sizes are equal; with its like in training, quiet spam is caught."""
    kinds = [("plain", "win cash now"), ("polite", "dear sir kindly"), ("plain", "tea at four")]
    kinds, messages = kinds[:1] * 2 + kinds[1:2] + kinds[2:] * 3, []
    for letter in "abcdefgh":
        for k, (kind, text) in enumerate(kinds):
            own = " ".join(letter * (6 * m + k) for m in range(1, 9))  # no two are alike
            messages.append(Message(k < 3, "t", kind, f"{text} {own}"))
    sizes = []

    def make(lists, y):
        sizes.append((len(lists), int(y.sum()), sum("kindly" in one for one in lists)))
        return build(lists, y, fit=train)

    assert quiet_caught(messages, make, seen=True)[0] == 1
    with_its_like = sizes.copy()
    sizes.clear()
    quiet, loud = quiet_caught(messages, make, seen=False)
    assert quiet < 0.5 < loud
    assert [s[:2] for s in sizes] == [s[:2] for s in with_its_like]
    assert all(s[2] == 0 for s in sizes) and all(s[2] for s in with_its_like)


def test_share_right_uses_the_cut_that_it_is_given():
    lists, y = toy()
    cut = [(np.arange(6), np.arange(6, 12)), (np.arange(6, 12), np.arange(6))]
    assert share_right(lists, y, cut, partial(build, fit=train)) == 1
    assert share_right(lists, 1 - y, cut, lambda a, b: build(a, 1 - b, fit=train)) == 0


def test_drawings_show_their_words():
    lists, y = toy()
    axes = draw_plane(lists, y, {"tea": (5, 5)}, least=2)
    assert [text.get_text() for text in axes.texts] == ["tea"]
    built = build(lists, y, fit=train)
    draw_votes(built, built, [["win", "tea", "other"]])
    heights = [bar.get_height() for bar in plt.gca().patches]
    assert len(heights) == 6 and heights[:3] == heights[3:]
    assert heights[0] > 0 > heights[1] and heights[2] == 0


def test_contenders_fit_every_form():
    lists, y = toy()
    for makers in contenders().values():
        built = makers[-1](lists, y)
        assert isinstance(built, Filter)
        p = spam_probability(built, [["win"], ["tea"]])
        assert p[0] > 0.5 > p[1]


def test_dense_and_sparse_counts_agree():
    lists, y = toy()
    x = count(lists, vocabulary(lists))
    assert isinstance(x, csr_array)
    dense, sparse = train(x.toarray(), y), train(x, y)
    np.testing.assert_allclose(dense.weights, sparse.weights)


def test_study_runs_at_a_tiny_size(messages, capsys):
    few = [m for m in messages if m.topic in ("money", "family")]
    result = study(seeds=1, messages=few)
    assert "deliver everything" in capsys.readouterr().out
    assert result["deliver_everything"]["priced"] == result["deliver_everything"]["even"]
    assert {"random", "topic", "seen", "unseen"} <= set(result["drift"]["bayes"])


# ---------------------------------------------------------------- bars


@pytest.mark.bar
def test_both_families_beat_the_word_list_and_honesty_beats_doing_nothing(lists, y):
    group, rivals = near_duplicates(lists), contenders()
    chosen = "naive Bayes, counts", "naive Bayes, once", "logistic, once"
    rows = {
        name: summary([cross_predict(lists, y, group, rivals[name], seed=s) for s in range(3)], y)
        for name in chosen
    }
    assert all(row["right"] >= 0.80 for row in rows.values())
    nothing = 100 * y.mean()
    assert rows["naive Bayes, once"]["priced"] < nothing - 4
    assert rows["naive Bayes, counts"]["priced"] > nothing + 4, "the page says that it costs more"


@pytest.mark.bar
def test_quiet_spam_gets_through_where_none_was_seen(messages):
    make = contenders()["logistic, TF-IDF"][-2]
    seen, unseen = (quiet_caught(messages, make, seen=s)[0] for s in (True, False))
    assert seen - unseen > 0.3
