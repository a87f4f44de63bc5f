"""The frozen prose: what is in it, how it is split, and that the code still makes its like."""

import hashlib
import math

import pytest

from snippets.shared import prose, prose_extraction

DIGESTS = {
    "python": "bff436e79def9883",
    "sklearn": "f0d7ea9450325c5d",
}
both = pytest.mark.parametrize("name", prose.COLLECTIONS)


@both
def test_the_files_are_those_on_which_everything_was_measured(name):
    packed = (prose.FOLDER / f"{name}.tsv.xz").read_bytes()
    assert hashlib.sha256(packed).hexdigest()[:16] == DIGESTS[name]
    assert (prose.FOLDER / f"LICENSE_{name}.txt").stat().st_size > 1000


@both
def test_the_parts_share_no_document_and_no_paragraph(name):
    parts = prose.load(name)
    documents = [{row.source for row in rows} for rows in parts]
    texts = [{row.text for row in rows} for rows in parts]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not documents[a] & documents[b]
        assert not texts[a] & texts[b]
    sizes = [len(prose.text_of(rows)) for rows in parts]
    assert sizes[0] > 800_000 and min(sizes[1:]) > 40_000
    assert all(sizes[0] > 6 * size for size in sizes[1:])


@both
def test_no_held_out_paragraph_is_nearly_known(name):
    train, *held = prose.load(name)
    known = set().union(*(prose.shingles(row.text) for row in train))
    for rows in held:
        for row in rows:
            own = prose.shingles(row.text)
            assert len(own & known) <= 0.4 * len(own), row


def test_near_duplicates_are_told_by_their_six_word_sequences():
    text = "one two three four five six seven eight nine ten"
    assert len(prose.shingles(text)) == 5
    known = prose.shingles("one two three four five six seven") | prose.shingles("a b c d e f")
    assert not prose.is_known(text, known)  # 2 of 5 is 40 %
    assert prose.is_known(text, known | prose.shingles("five six seven eight nine ten"))
    assert not prose.is_known("too short", known)


def test_bits_per_byte_counts_bytes_and_not_letters():
    assert prose.bits_per_byte(-8 * math.log(2), "abcd") == pytest.approx(2)
    assert prose.bits_per_byte(-8 * math.log(2), "éééé") == pytest.approx(1)
    with pytest.raises(ValueError, match="some text"):
        prose.bits_per_byte(-1.0, "")


def test_a_misspelt_collection_gets_the_names_that_there_are():
    with pytest.raises(ValueError, match="expected one of python, sklearn, got 'pyhton'"):
        prose.load("pyhton")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Return the smallest of the numbers, or None if there are none at all.", True),
        (">>> min([3, 1, 2]) returns the smallest of these numbers, which is one.", False),
        ("a | b | c and so on, a table of words that nobody would call a sentence.", False),
        ("Too short to be prose.", False),
        ("return the smallest of the numbers or none at all if there are no more", False),
        ("X = 3 + 4 * (5 - 6) / 7 ** 8 % 9 // 10, then y = x, z = y, w = z, v = w.", False),
    ],
)
def test_prose_is_told_from_code_and_tables(text, kept):
    assert prose_extraction.is_prose(text) == kept


def test_what_differs_in_case_and_punctuation_only_is_kept_once():
    rows = [prose.Paragraph("a", "s", "One, two."), prose.Paragraph("b", "s", "one two"),
            prose.Paragraph("c", "s", "Three.")]  # fmt: skip
    assert [row.source for row in prose_extraction.unique(rows)] == ["a", "c"]


@pytest.mark.bar
@both
def test_the_code_still_makes_the_same_kind_of_text(name):
    """Of another release too: as much, as long paragraphs, and most of it the same words."""
    made, kept = getattr(prose_extraction, name)(), prose.load(name)
    frozen = [row for part in kept for row in part]
    assert len(made) == pytest.approx(len(frozen), rel=0.25)
    lengths = [sum(len(row.text) for row in rows) / len(rows) for rows in (made, frozen)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.15)
    same = {row.text for row in made} & {row.text for row in frozen}
    assert len(same) > 0.5 * len(frozen)
    assert {row.section for row in made} <= {"Summary", "Notes", *prose_extraction.LISTS}
