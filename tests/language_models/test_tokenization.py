"""Byte pair encoding: the merges of a slow and obvious version, and every byte comes back."""

import json
import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from snippets.language_models import gpt
from snippets.language_models import tokenization as bpe
from snippets.shared import prose
from snippets.site import ROOT

DATA = prose.load()
TEXT, NEW = prose.text_of(DATA.train), prose.text_of(DATA.test)
SOME = TEXT[:60_000]


@pytest.fixture(scope="module")
def model():
    return bpe.train(SOME, size=600)


@pytest.fixture(scope="module")
def full():
    return bpe.train(TEXT)


def join(words, pair, token):
    """By string replacement: a word is a string with one character for each token."""
    return [word.replace("".join(map(chr, pair)), chr(token)) for word in words]


def slow(text, size):
    """All words with all repetitions, all pairs counted anew for each merge."""
    words, merges = ["".join(map(chr, word)) for word in bpe.words(text)], []
    while 256 + len(merges) < size:
        pairs = Counter(tuple(map(ord, two)) for word in words for two in pairwise(word))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        words = join(words, best, 256 + len(merges))
        merges.append(best)
    return merges


# ---------------------------------------------------------------- the cut


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_cutting_loses_nothing(text):
    assert b"".join(bpe.words(text)).decode() == text
    assert b"".join(bpe.sentences(text)).decode() == text


def test_words_keep_the_space_before_them_and_kinds_apart():
    assert bpe.words("don't say  42nd\n\n_x") == [
        *(b"don", b"'", b"t", b" say", b" ", b" 42", b"nd"),
        *(b"\n", b"\n", b"_", b"x"),
    ]
    assert bpe.words(" Ärzte, 数") == [" Ärzte".encode(), b",", " 数".encode()]


def test_no_token_holds_letters_behind_a_sign_or_a_space(model):
    for piece in model.pieces[256:]:
        assert len(bpe.words(piece.decode("utf-8", "surrogateescape"))) == 1


# ---------------------------------------------------------------- learning


def test_the_first_merges_of_a_rhyme_by_hand():
    model = bpe.train("no now know known snow snows")
    assert model.pieces[256:] == [b"no", b"now", b" k", b" s", b" know", b" snow"]
    assert next(iter(model.merges)) == (ord("n"), ord("o"))
    assert list(model.merges.values()) == list(range(256, 262))


def test_ties_go_to_the_lowest_numbers():
    assert bpe.train("ba dc ba dc fe fe").pieces[256] == b" d"  # " d", " f", "dc", "fe": twice
    assert bpe.train("xy-ab-xy-ab").pieces[256:] == [b"ab", b"xy"]


def test_training_stops_when_no_pair_comes_twice():
    assert len(bpe.train("abcdef").pieces) == 256
    assert len(bpe.train("").pieces) == 256
    assert bpe.train("aaaa").pieces[256:] == [b"aa"]  # three pairs, two of them overlap


def test_merges_are_those_of_the_slow_and_obvious_version():
    model = bpe.train(SOME[:20_000], size=500)
    assert list(model.merges) == slow(SOME[:20_000], 500)


@settings(max_examples=60, deadline=None)
@given(st.text("abab  é1.", max_size=60))
def test_merges_are_right_on_texts_of_few_letters_too(text):
    assert list(bpe.train(text, size=280).merges) == slow(text, 280)


def with_hugging_face(text, new, *, size):
    """Merges and tokens by the `tokenizers` library; bytes are signs there, and words come cut."""

    def signs(text):
        return " ".join("".join(chr(0x4E00 + byte) for byte in word) for word in bpe.words(text))

    alphabet = [chr(0x4E00 + byte) for byte in range(256)]
    tool = Tokenizer(models.BPE())
    tool.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    options = {"vocab_size": size, "min_frequency": 2, "show_progress": False}
    teacher = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    tool.train_from_iterator([signs(text)], teacher)
    found = json.loads(tool.to_str())["model"]
    number = found["vocab"]
    return [(number[a], number[b]) for a, b in found["merges"]], tool.encode(signs(new)).ids


def test_merges_and_tokens_are_those_of_hugging_face(model):
    merges, tokens = with_hugging_face(SOME, NEW, size=600)
    assert list(model.merges) == merges
    assert bpe.encode(model, NEW) == tokens


ODD = ["a  b\n\n c\t d  ", " 12½ ²x_y__z", "e\u0301 naïve\xa0x", "٣٤ 👩‍👩‍👧", "\x1c\u200bः", ""]


def test_written_down_it_is_a_tokenizer_of_hugging_face(model):
    tool = Tokenizer.from_str(json.dumps(bpe.to_json(model)))
    for text in (NEW, *bpe.SAME.values(), *ODD):
        assert tool.encode(text).ids == bpe.encode(model, text)
        assert tool.decode(bpe.encode(model, text)) == text
    across = bpe.train("a b a b", size=258, cut=bpe.sentences)
    twice = model._replace(pieces=[*model.pieces, b"a"])
    for other in (across, twice):
        with pytest.raises(ValueError, match="cut by `words`, each piece once"):
            bpe.to_json(other)


def test_the_recorded_file_has_the_tokens_of_the_kept_gpt():
    folder = ROOT / "docs/outputs/language_models/tokenization"
    written = (folder / "tokenizer.json").read_text(encoding="utf-8")
    pieces = gpt.load().pieces
    assert json.loads(written) == bpe.to_json(pieces)
    tool, test = Tokenizer.from_str(written), prose.text_of(prose.load().test)
    assert tool.encode(test).ids == bpe.encode(pieces, test)
    for row in json.loads((folder / "golden.json").read_text(encoding="utf-8")):
        assert tool.encode(row["text"]).ids == row["tokens"] == bpe.encode(pieces, row["text"])


def test_each_piece_is_the_sum_of_its_parts(model):
    for (left, right), token in model.merges.items():
        assert max(left, right) < token
        assert model.pieces[token] == model.pieces[left] + model.pieces[right]
    assert [piece[0] for piece in model.pieces[:256]] == list(range(256))
    assert len(set(model.pieces)) == len(model.pieces) == 600


def test_a_shorter_list_is_the_beginning_of_a_longer_one(model):
    short, part = bpe.train(SOME, size=300), bpe.first(model, 300)
    assert part.merges == short.merges and part.pieces == short.pieces
    assert bpe.first(bpe.train("a b a b", cut=bpe.sentences), 256).cut is bpe.sentences


def test_tokens_run_across_words_if_the_cut_lets_them():
    model = bpe.train(SOME[:20_000], size=500, cut=bpe.sentences)
    assert any(b" " in piece.strip() for piece in model.pieces)
    assert bpe.decode(model, bpe.encode(model, NEW[:500])) == NEW[:500]


# ---------------------------------------------------------------- encoding


def test_training_text_is_encoded_as_training_left_it(model):
    """Replay of all merges, one after another, over the whole text."""
    words = ["".join(map(chr, word)) for word in bpe.words(SOME)]
    for pair, token in model.merges.items():
        words = join(words, pair, token)
    assert bpe.encode(model, SOME) == [ord(token) for word in words for token in word]


def test_the_earliest_merge_comes_first_and_not_the_leftmost():
    pieces = [bytes([byte]) for byte in range(256)]
    a, b, c = b"abc"
    model = bpe.Tokenizer({(b, c): 256, (a, b): 257}, [*pieces, b"bc", b"ab"])
    assert bpe.encode(model, "abc") == [a, 256]
    assert bpe.encode(model, "ab") == [257]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_come_back(model, data):
    text = data.decode("utf-8", "surrogateescape")
    tokens = bpe.encode(model, text)
    assert bpe.decode(model, tokens) == text
    assert b"".join(model.pieces[token] for token in tokens) == data


def test_a_text_is_encoded_word_for_word(model):
    one = bpe.encode(model, "the list")
    assert bpe.encode(model, "the list" * 3)[: len(one) - 1] == one[:-1]
    assert bpe.encode(model, "") == [] and bpe.decode(model, []) == ""
    assert len(bpe.encode(model, NEW)) < len(bpe.encode(bpe.first(model, 300), NEW))


@pytest.mark.parametrize("tokens", [[600], [3, -1]])
def test_tokens_that_are_not_on_the_list_are_refused(model, tokens):
    with pytest.raises(ValueError, match="expected tokens 0 to 599"):
        bpe.decode(model, tokens)


def test_a_list_shorter_than_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least the 256 bytes, got size=200"):
        bpe.train("text", size=200)


# ---------------------------------------------------------------- bits


def test_bits_are_the_entropy_of_tokens_that_come_as_before():
    old = [0, 1, 1, 2] * 5000
    text = "x" * len(old)
    assert bpe.bits(old, old, text, size=3) == pytest.approx(1.5, abs=1e-3)


def test_bits_of_what_never_came_are_finite():
    assert bpe.bits([0, 0], [1], "a", size=2) == pytest.approx(-math.log2(0.5 / 3))


def test_pair_bits_are_shares_that_sum_to_one():
    old = [0, 1, 2, 1, 1, 0, 0, 2]
    for before in (0, 1, 2, 3):  # 3 never came
        joint = [bpe.pair_bits(old, [before, token], "xx", size=4) for token in range(4)]
        alone = bpe.bits(old, [before], "xx", size=4)
        assert sum(2 ** (-2 * (bits - alone)) for bits in joint) == pytest.approx(1)


def test_pair_bits_know_that_one_follows_the_other():
    old = [0, 1] * 1000
    assert bpe.pair_bits(old, old, "x" * 2000, size=2) < 0.02


def test_the_baseline_spells_what_is_not_on_its_list():
    tell = bpe.by_words("the cat the dog a a a", 257)
    assert tell("the cat") == [*b"the", *b" cat"]  # " a" comes most often
    assert bpe.by_words(" the the cat", 257)(" the") == [256]


def test_study_prints_its_table_at_a_tiny_size(capsys, monkeypatch):
    few = prose.Prose(DATA.train[::40], [], DATA.test[::20])
    monkeypatch.setattr(bpe.prose, "load", lambda: few)
    table = bpe.study(sizes=(256, 300), seeds=2, share=0.5)
    printed = capsys.readouterr().out
    assert re.search(r"300 tokens +\d\.\d\d", printed) and "across words" in printed
    assert {"bytes", "rare", "never", "alone", "after_one"} <= set(table["size_256"])
    assert table["size_256"]["bytes"] == 1 and table["byte_pairs"]["bytes_sd"] > 0


# ---------------------------------------------------------------- the bars


@pytest.mark.bar
def test_new_text_takes_few_tokens_and_few_bits(full):
    old, now = bpe.encode(full, TEXT), bpe.encode(full, NEW)
    assert len(NEW.encode()) / len(now) > 3.4
    assert bpe.bits(old, now, NEW, size=2048) < 2.7
    assert bpe.decode(full, now) == NEW
    assert (list(full.merges), now) == with_hugging_face(TEXT, NEW, size=2048)
    assert 0 < (np.bincount(old, minlength=2048)[256:] == 0).sum() < 40


@pytest.mark.bar
def test_other_writing_takes_more_tokens(full):
    price = {name: len(bpe.encode(full, text)) for name, text in bpe.SAME.items()}
    assert price["English"] < 0.6 * min(price["German"], price["French"])
    assert price["Russian"] == len(bpe.SAME["Russian"].encode())  # not one merge applies
