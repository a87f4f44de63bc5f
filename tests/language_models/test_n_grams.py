"""N-grams: equal to the formula written out with dictionaries, and a distribution everywhere."""

from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest

from snippets.language_models import n_grams as ng
from snippets.shared import prose

TINY = "she sells sea shells. so she says, the shells she sells\n"
DATA = prose.load("python")
KNOWN, TEST = prose.text_of(DATA.train), prose.text_of(DATA.test)


@pytest.fixture(scope="module")
def some():
    return ng.train(KNOWN[:60_000], order=5)


def told(model, past):
    """All 256 conditionals after a past."""
    return ng.next_byte(model, ng.start_of(model, past))[0]


# ---------------------------------------------------------------- the formula, by brute force


def oracle(text, order, *, steps=ng.discount):
    """p(w|h) of interpolated Kneser–Ney, by dictionaries and sets and by recursion."""
    x = text.encode()
    runs = {n: Counter(x[i : i + n] for i in range(len(x) - n + 1)) for n in range(1, order + 2)}

    def counts(n):
        if n == order:
            return runs[n]
        lefts = defaultdict(set)
        for run in runs[n + 1]:
            lefts[run[1:]].add(run[0])
        return Counter({run: len(lefts[run]) for run in runs[n]})

    used = {n: counts(n) for n in range(1, order + 1)}
    off = {}
    for n, table in used.items():
        names = list(table)
        off[n] = dict(zip(names, steps(np.array([table[name] for name in names]))))

    def p(h, w):
        h = h[max(0, len(h) - order + 1) :]
        after = {run: c for run, c in used[len(h) + 1].items() if run[:-1] == h and c}
        shorter = p(h[1:], w) if h else 1 / 256
        if not after:
            return shorter
        total, own = sum(after.values()), h + bytes([w])
        freed = sum(off[len(h) + 1][run] for run in after) / total
        return max(after.get(own, 0) - off[len(h) + 1].get(own, 0), 0) / total + freed * shorter

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [ng.discount, ng.three])
def test_equal_to_the_formula_written_out(order, steps):
    model = ng.smooth(ng.count(TINY, order=order), discount=steps)
    p = oracle(TINY, order, steps=steps)
    for past in ("", "s", "she", "ells", "xsh", "zzzz", " sea shel", "q"):
        full = (ng.BEFORE + past).encode()
        expected = [p(full, w) for w in range(256)]
        np.testing.assert_allclose(told(model, past), expected, rtol=1e-12)


def test_tokens_are_counted_as_bytes_are():
    """Renamed bytes, among more tokens than 256: only the last step to all alike is another."""
    named = np.random.default_rng(0).permutation(2048)[:256]
    named[list(ng.BEFORE.encode())] = list(ng.BEFORE.encode())
    renamed = named[list(TINY.encode())]
    ours = ng.smooth(ng.count(renamed, order=3, size=2048))
    new = "she sells sea shells"
    told = ng.log_bytes(ours, named[list(new.encode())])
    far = [table._replace(size=2048) for table in ng.train(TINY, order=3)]
    far = [t._replace(keys=t.keys // 256 * 2048 + t.keys % 256) for t in far]
    np.testing.assert_allclose(told, ng.log_bytes(far, np.array(list(new.encode()))), rtol=1e-12)
    each = [ng.log_bytes(ours, np.append(renamed[:5], w))[-1] for w in range(2048)]
    assert np.exp(each).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="tokens below size=256, got"):
        ng.count(renamed, order=2)


def test_order_one_is_the_smoothed_share_of_each_byte():
    model, c = ng.train("aaabbc", order=1), {"a": 3, "b": 2, "c": 1}
    d = 1.5 / 4  # one run seen once, one seen twice
    for w, often in c.items():
        share = (often - d) / 6 + 3 * d / 6 / 256
        assert told(model, "x")[ord(w)] == pytest.approx(share, rel=1e-12)
    assert told(model, "")[ord("z")] == pytest.approx(3 * d / 6 / 256, rel=1e-12)


def test_counts_and_lefts_by_hand():
    one, two = ng.count("abcbdbcb", order=2)
    assert [int(k) for k in one.keys] == [97, 98, 99, 100]
    assert [list(one.count), list(two.count)] == [[1, 4, 2, 1], [1, 2, 1, 2, 1]]
    assert list(one.lefts) == [0, 3, 1, 1]  # nothing before a; a, c and d before b
    names = [chr(97 + k // 256) + chr(k % 256) for k in two.keys]
    assert names == ["ab", "bc", "bd", "cb", "db"]


def test_discount_by_hand_and_never_whole():
    c = np.array([1, 1, 1, 2, 2, 5, 0])
    assert list(ng.discount(c)) == pytest.approx([0.4375] * 6 + [0])  # 3.5 / 8
    assert 0 < ng.discount(np.array([7]))[0] < 1
    assert 0 < ng.discount(np.array([1]))[0] < 1


def test_three_discounts_rise_with_the_count_and_never_exceed_it():
    off = ng.three(np.array([0] + 60 * [1] + 25 * [2] + 12 * [3] + 8 * [4] + [90]))
    assert off[0] == 0 and 0 < off[1] < off[61] < off[86] == off[-1] < 3
    for few in ([1], [3, 3], [1, 2], [9]):
        assert (ng.three(np.array(few)) < few).all()


# ---------------------------------------------------------------- a distribution everywhere


@pytest.mark.parametrize("past", ["", "the fil", "Return", "qqqq", "naïve 数", "\n\n", "(x"])
def test_probabilities_sum_to_one_after_any_past(some, past):
    p = told(some, past)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p > 0).all()


def test_texts_of_three_letters_and_all_that_leave_the_alphabet_sum_to_one():
    model, letters = ng.train("abba ab\n", order=3), "ab \n"
    total = np.exp(ng.log_prob(model, ["".join(t) for t in product(letters, repeat=3)])).sum()
    own = [ord(w) for w in letters]
    for n in range(3):  # texts that stay inside for n letters and then leave
        for past in map("".join, product(letters, repeat=n)):
            inside = np.exp(ng.log_prob(model, [past])[0]) if past else 1
            total += inside * (1 - told(model, past)[own].sum())
    assert total == pytest.approx(1, abs=1e-10)


def test_log_prob_is_the_sum_of_conditionals_asked_one_by_one(some):
    text = "Return the naïve Zqx.\n"
    p, past = [], b""
    for w in text.encode():
        h = [np.zeros(1, int)] + [np.full(1, -1)] * (len(some) - 1)
        for seen in ng.BEFORE.encode() + past:
            h = ng.read(some, h, np.int64(seen))
        p.append(ng.next_byte(some, h)[0, w])
        past += bytes([w])
    assert ng.log_prob(some, [text])[0] == pytest.approx(np.log(p).sum(), rel=1e-12)
    np.testing.assert_allclose(ng.log_bytes(some, text), np.log(p), rtol=1e-10)


def test_texts_are_scored_alone(some):
    both = ng.log_prob(some, ["the file", "Return"])
    assert both.shape == (2,)
    assert both[1] == ng.log_prob(some, ["Return"])[0]


def test_nothing_beyond_the_context_is_remembered(some):
    assert (told(some, "(the module") == told(some, ", the module")).all()
    assert (told(some, "of t") != told(some, "at t")).any()  # four bytes are


def test_a_run_after_one_letter_only_is_a_bad_guess_elsewhere():
    text = "San Francisco. " * 20 + "a lamp, a leg, old luck, blue lake, ill life."
    model = ng.train(text, order=2)
    after = told(model, "Z")  # never seen: the lefts decide
    counts = Counter(text)
    assert counts["F"] > counts["l"] and after[ord("l")] > after[ord("F")]


# ---------------------------------------------------------------- drawing


def test_draws_come_as_often_as_their_probability_says():
    model = ng.train("abacab\n", order=2)
    drawn = ng.sample(model, 10_000, seed=1, start="a", length=1)
    often = np.bincount([ord(t[1]) for t in drawn if ord(t[1]) < 256], minlength=256) / 10_000
    assert np.abs(often - told(model, "a"))[:128].max() < 0.02


def test_the_context_moves_on_while_drawing(some):
    """Along a draw, each byte has the probability that log_prob gives it."""
    text = ng.sample(ng.smooth(ng.count(TINY, order=12), discount=ng.none), 1, length=40)[0]
    with np.errstate(divide="ignore"):
        bare = ng.smooth(ng.count(TINY, order=12), discount=ng.none)
        assert np.isfinite(ng.log_prob(bare, [text])[0])


def test_draws_repeat_begin_as_told_and_have_the_length(some):
    drawn = ng.sample(some, 3, seed=2, start="Return ", length=50)
    assert drawn == ng.sample(some, 3, seed=2, start="Return ", length=50)
    assert drawn != ng.sample(some, 3, seed=3, start="Return ", length=50)
    assert all(text.startswith("Return ") and len(text) <= 57 for text in drawn)
    assert len(set(drawn)) == 3


# ---------------------------------------------------------------- measures and bad input


def test_copied_by_hand():
    assert ng.copied(["abcd", "xbcx"], "zabcz", width=3) == 0.25  # abc of abc, bcd, xbc, bcx
    assert ng.copied([KNOWN[:200]], KNOWN) == 1


def test_paired_by_hand():
    assert ng.paired(["(a) b)", "((c))", ")("]) == pytest.approx(3 / 5)
    assert ng.paired(["(a\nb)"]) == 0  # another paragraph


def test_packed_by_hand():
    def plain(data):
        return b"head" + data

    assert ng.packed("abcd", tool=plain) == 16
    assert ng.packed("abcd", tool=plain, primed="long ago") == 8


def test_add_one_by_hand():
    model = ng.add_one(ng.count("abaab", order=2))
    assert told(model, "a")[ord("b")] == pytest.approx(3 / 259)
    assert told(model, "z")[ord("b")] == pytest.approx(1 / 256)


@pytest.mark.parametrize("text", ["", None, 3])
def test_bad_texts_are_refused_in_words(some, text):
    with pytest.raises(ValueError, match="expected a text"):
        ng.train(text)


def test_other_bad_input_is_refused_in_words(some):
    for order in (0, -1, 2.5):
        with pytest.raises(ValueError, match="order of 1 or more"):
            ng.train("abc", order=order)
    with pytest.raises(ValueError, match="1 or more"):
        ng.sample(some, 0)
    with pytest.raises(ValueError, match=r"pass \[text\]"):
        ng.log_prob(some, "one text")


def test_a_text_shorter_than_the_order_trains():
    assert told(ng.train("ab", order=5), "a").sum() == pytest.approx(1)


# ---------------------------------------------------------------- the bars


def bits(model):
    return prose.bits_per_byte(ng.log_prob(model, [TEST])[0], TEST)


@pytest.mark.bar
def test_bits_by_order_and_smoothing():
    grams = ng.count(KNOWN, order=8)
    five, eight = (bits(ng.smooth(grams[:n])) for n in (5, 8))
    assert five < 1.88  # measured 1.85; asked for: 1.80, on a comparable text
    assert eight < 1.78  # measured 1.75; asked for: 1.66
    assert bits(ng.smooth(grams, discount=ng.three)) < 1.72
    assert bits(ng.by_count(grams)) > eight + 0.3


@pytest.mark.bar
def test_more_text_lowers_the_cost():
    cost = [bits(ng.train(KNOWN[: len(KNOWN) // part], order=5)) for part in (16, 4, 1)]
    assert cost[0] > cost[1] + 0.2 > cost[2] + 0.4


@pytest.mark.bar
def test_plain_counts_of_long_runs_copy_and_discounts_stop_it():
    grams = ng.count(KNOWN, order=12)
    bare = ng.sample(ng.smooth(grams, discount=ng.none), 8, length=400)
    assert ng.copied(bare, KNOWN) > 0.04
    assert ng.copied(ng.sample(ng.smooth(grams), 8, length=400), KNOWN) < 0.03


@pytest.mark.bar
def test_study_prints_its_table_at_a_tiny_size(capsys):
    table = ng.study(orders=(3, 8), seeds=1, size=30_000)
    assert "order 8 three discounts" in capsys.readouterr().out
    assert np.isinf(table["order_8_as_counted"]["bits"])
    assert table["order_8_kneser_ney"]["bits"] < table["order_8_add_one"]["bits"]
    assert {"copied", "se", "runs", "seconds"} <= set(table["order_8_kneser_ney"])
