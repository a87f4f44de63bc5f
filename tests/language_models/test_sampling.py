"""Sampling text: what each filter keeps, that no more is changed, and that the cache is true."""

import math
import time

import numpy as np
import pytest
import torch

from snippets.language_models import gpt, n_grams, sampling, tokenization
from snippets.shared import prose

TEXT = prose.text_of(prose.load().train)[:20_000]


@pytest.fixture(scope="module")
def small():
    """A model of 300 tokens and a short context, trained in a second."""
    return gpt.train(TEXT, steps=30, batch=8, seed=3, size=300, width=32, depth=2, heads=2,
                     context=16)  # fmt: skip


def draw(*size, seed=0):
    return 3 * torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def kept(logits):
    return torch.isfinite(logits)


def prompt(model, text="The value", rows=1):
    return torch.tensor([[10, *tokenization.encode(model.pieces, text)]] * rows)


# ---------------------------------------------------------------- heat


def test_temperature_raises_probabilities_to_the_power_of_one_over_it():
    p = draw(5, 40).softmax(dim=-1)
    for t in (0.5, 1.0, 2.0):
        powers = p ** (1 / t)
        expected = powers / powers.sum(dim=-1, keepdim=True)
        torch.testing.assert_close(sampling.sharpen(p.log(), t).softmax(dim=-1), expected)


def test_temperature_towards_nought_is_greedy():
    z = draw(50, 40)
    cold = sampling.sharpen(z, 0).softmax(dim=-1)
    assert torch.equal(cold.argmax(dim=-1), z.argmax(dim=-1)) and (cold.amax(dim=-1) == 1).all()
    torch.testing.assert_close(sampling.sharpen(z, 1e-4).softmax(dim=-1), cold)


# ---------------------------------------------------------------- cut


@pytest.mark.parametrize("k", [1, 3, 40, 60])
def test_top_k_keeps_exactly_the_k_likeliest_also_of_equal_ones(k):
    z = draw(20, 40)
    z[:5] = z[:5].round()  # many ties
    z[0] = 0
    stay = kept(sampling.keep_top_k(z, k))
    assert (stay.sum(dim=-1) == min(k, 40)).all()
    least = z.masked_fill(~stay, torch.inf).amin(dim=-1)
    assert (z.masked_fill(stay, -torch.inf).amax(dim=-1) <= least).all()
    assert stay[0, : min(k, 40)].all()  # all equal: the first


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_fewest_that_reach_p(p):
    z = draw(200, 40)
    mass = z.double().softmax(dim=-1)
    stay = kept(sampling.keep_top_p(z, p))
    assert (torch.where(stay, mass, 0).sum(dim=-1) >= p - 1e-12).all()
    least = mass.masked_fill(~stay, torch.inf).amin(dim=-1)
    assert (torch.where(stay, mass, 0).sum(dim=-1) - least < p).all()  # one fewer is too few
    assert (mass.masked_fill(stay, 0).amax(dim=-1) <= least).all()  # and none likelier is out
    counts = stay.sum(dim=-1)
    assert p < 0.1 or counts.max() > counts.min()  # it adapts, top-k does not


def test_top_p_by_hand_stops_when_p_is_reached():
    z = torch.tensor([[0.25, 0.5, 0.125, 0.125]]).log()
    for p, expected in ((0.5, [0, 1, 0, 0]), (0.51, [1, 1, 0, 0]), (0.8, [1, 1, 1, 0])):
        assert kept(sampling.keep_top_p(z, p)).int().tolist() == [expected]
    assert kept(sampling.keep_top_p(torch.zeros(1, 4), 0.5)).int().tolist() == [[1, 1, 0, 0]]
    assert kept(sampling.keep_top_p(draw(3, 50) * 20, 1.0)).all()


@pytest.mark.parametrize("how", [{"top_k": 7}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.8}])
def test_what_is_kept_keeps_its_proportions_and_sums_to_one(how):
    z = draw(30, 40)
    p, q = z.softmax(dim=-1), sampling.reshape(z, **how).softmax(dim=-1)
    torch.testing.assert_close(q.sum(dim=-1), torch.ones(30))
    share = torch.where(q > 0, p, 0)
    torch.testing.assert_close(q, share / share.sum(dim=-1, keepdim=True))
    assert (q == 0).any(dim=-1).any()


def test_no_setting_leaves_what_the_model_said():
    z = draw(4, 40)
    assert torch.equal(sampling.reshape(z), z)
    assert torch.equal(sampling.reshape(z, top_k=40, top_p=1.0), z)


def test_heat_comes_before_the_cut():
    z = draw(30, 40)
    a = sampling.reshape(z, temperature=3.0, top_p=0.8)
    assert torch.equal(kept(a), kept(sampling.keep_top_p(z / 3, 0.8)))
    assert (kept(a).sum() > kept(sampling.keep_top_p(z, 0.8)).sum()).all()
    # For top-k the order does not matter.
    assert torch.equal(kept(sampling.reshape(z, temperature=3.0, top_k=5)),
                       kept(sampling.keep_top_k(z, 5)))  # fmt: skip


def test_the_penalty_is_taken_once_off_what_was_seen_and_knows_no_origin():
    z, seen = draw(2, 10), torch.tensor([[1, 4, 1], [9, 9, 9]])
    found = sampling.discourage(z, seen, 1.5)
    expected = z.clone()
    expected[0, [1, 4]] -= 1.5
    expected[1, 9] -= 1.5
    torch.testing.assert_close(found, expected)
    up = sampling.discourage(z + 7, seen, 1.5).softmax(dim=-1)
    torch.testing.assert_close(up, found.softmax(dim=-1))


# ---------------------------------------------------------------- cache


def test_a_table_of_turns_is_the_rotation():
    x = draw(2, 3, 20, 8)
    by_matrix = torch.einsum("nhti,tij->nhtj", x, sampling.turns(20, 8))
    torch.testing.assert_close(by_matrix, gpt.rotate(x))


@pytest.mark.parametrize("steps", [[1] * 16, [9, 1, 1, 1], [4, 5, 1, 6]])
def test_read_bit_by_bit_gives_the_logits_of_the_full_pass(small, steps):
    ids = torch.randint(300, (3, 16), generator=torch.Generator().manual_seed(1))
    cache, end = None, 0
    for new in steps:
        logits, cache = sampling.read(small, ids[:, end : end + new], cache)
        end += new
        with torch.no_grad():
            full = small(ids[:, :end])[:, -1]
        torch.testing.assert_close(logits, full, atol=1e-5, rtol=1e-5)
    assert cache[0][0].shape == (3, 2, end, 16)


def test_the_kept_model_says_the_same_at_256_tokens():
    model = gpt.load(context=256)
    ids = torch.tensor([tokenization.encode(model.pieces, TEXT)[:256]])
    _, cache = sampling.read(model, ids[:, :200])
    for t in range(200, 256):
        logits, cache = sampling.read(model, ids[:, t : t + 1], cache)
    with torch.no_grad():
        full = model(ids)[:, -1]
    torch.testing.assert_close(logits, full, atol=1e-4, rtol=1e-5)  # logits are up to 20


@pytest.mark.parametrize("how", [{}, {"temperature": 0.7}])
def test_draws_are_those_of_the_gpt_without_a_cache(how):
    model = gpt.load()
    for start in ("", "If the file"):
        slow, fast = (
            by(model, 4, seed=5, start=start, length=40, **how)
            for by in (gpt.sample, sampling.sample)
        )
        assert slow == fast


def test_greedy_with_a_cache_is_greedy_without():
    model = gpt.load(context=256)
    ids = prompt(model, "The function")
    drawn = sampling.generate(model, ids, 60, temperature=0)
    for _ in range(60):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(drawn, ids)


def test_each_new_token_is_one_row_until_the_context_is_full(small):
    rows = []
    hook = small.blocks[1].look.register_forward_pre_hook(
        lambda _, given: rows.append(given[0].shape[1])
    )
    sampling.generate(small, torch.full((2, 3), 65), 40, seed=1)
    hook.remove()
    # 14 draws fill the context of 16; then the last 9 tokens are read again, and again after 8.
    assert rows == [3] + [1] * 13 + [9] + [1] * 7 + [9] + [1] * 7 + [9] + [1] * 7 + [9, 1]


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize("start", [2, 16, 17, 40])
def test_a_draw_has_the_probability_that_scoring_gives_it(small, start, monkeypatch):
    """Also when the context is full: the same tokens are seen when drawing and when scoring."""
    seen, honest = [], sampling.reshape

    def watched(logits, **how):
        seen.append(logits.log_softmax(dim=-1))
        return honest(logits, **how)

    monkeypatch.setattr(sampling, "reshape", watched)
    cut = tokenization.encode(small.pieces, TEXT)[: start - 1]
    ids = sampling.generate(small, torch.tensor([[10, *cut]]), 50, seed=2)[0]
    drawn = torch.stack([z[0, token] for z, token in zip(seen, ids[start:])])
    scored = gpt.log_tokens(small, ids[1:].tolist())[start - 1 :]
    torch.testing.assert_close(drawn, scored, atol=1e-4, rtol=1e-4)


def test_frequencies_follow_the_filtered_distribution(small):
    ids = prompt(small, "The", rows=6_000)
    logits, _ = sampling.read(small, ids[:1])
    p = sampling.reshape(logits, temperature=0.8, top_p=0.7).softmax(dim=-1)[0]
    drawn = sampling.generate(small, ids, 1, seed=4, temperature=0.8, top_p=0.7)[:, -1]
    often = torch.bincount(drawn, minlength=300) / len(drawn)
    assert (often[p == 0] == 0).all() and 1 < (p > 0).sum() < 300
    torch.testing.assert_close(often, p, atol=0.025, rtol=0)


def test_a_strong_penalty_never_says_a_token_twice(small):
    ids = sampling.generate(small, prompt(small, ""), 15, temperature=0, penalty=1e4)[0]
    assert len(set(ids.tolist())) == 16
    again = sampling.generate(small, prompt(small, ""), 15, temperature=0)[0]
    assert len(set(again.tolist())) < 16


def test_samples_follow_the_seed_begin_as_told_and_are_one_paragraph(small):
    one, same, two = (sampling.sample(small, 3, seed=s, start="Return") for s in (1, 1, 2))
    assert one == same != two
    assert all(text.startswith("Return") and "\n" not in text for text in one)
    assert all(sampling.sample(small, 20, length=1)), "none is empty"
    assert all(sampling.sample(small, 2, length=1, temperature=0)), "also where a line's end leads"


def test_none_is_empty_even_if_a_lines_end_is_the_likeliest(small, monkeypatch):
    honest = sampling.read

    def eager(model, new, kept=None):
        logits, cache = honest(model, new, kept)
        logits[:, 10] = 100.0
        return logits, cache

    monkeypatch.setattr(sampling, "read", eager)
    for text in sampling.sample(small, 3, length=5, top_k=1):
        assert len(tokenization.encode(small.pieces, text)) == 1


# ---------------------------------------------------------------- measures


def test_repeats_by_hand():
    assert sampling.repeated(["a b c d e"]) == 0
    assert sampling.repeated(["a a a a a a"]) == pytest.approx(2 / 3)
    assert sampling.repeated(["a b c d", "a b c d"]) == 0.5
    assert sampling.repeated(["too short"]) == 0


def test_measured_is_what_follows_the_prompt(small):
    ids = sampling.passages(small, TEXT, n=3, time=30)
    judge = n_grams.train(TEXT[5000:9000], order=3)
    found = sampling.measure(small, judge, ids)
    own = other = size = 0
    for row in ids:
        begin, rest = (tokenization.decode(small.pieces, part.tolist())
                       for part in (row[:16], row[16:]))  # fmt: skip
        own -= gpt.log_tokens(small, row.tolist())[16:].sum().item()
        other -= (n_grams.log_prob(judge, [begin + rest]) - n_grams.log_prob(judge, [begin]))[0]
        size += len(rest.encode()) * math.log(2)
    assert found["own"] == pytest.approx(own / size)
    assert found["judge"] == pytest.approx(other / size)


def test_passages_follow_on_each_other(small):
    cut = tokenization.encode(small.pieces, TEXT)
    for part in (0, 1):
        rows = sampling.passages(small, TEXT, part=part, n=4, time=10)
        assert rows.flatten().tolist() == cut[40 * part : 40 * (part + 1)]


def test_bad_input_is_refused_in_words(small):
    z = draw(1, 5)
    for wrong in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected a number from 0 up"):
            sampling.sharpen(z, wrong)
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="expected a k of 1 or more"):
            sampling.keep_top_k(z, wrong)
    for wrong in (0, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected a p above 0 and up to 1"):
            sampling.keep_top_p(z, wrong)
    with pytest.raises(ValueError, match="expected 1 or more, got n=0"):
        sampling.sample(small, 0)
    with pytest.raises(ValueError, match="no part 99"):
        sampling.passages(small, TEXT, part=99)


def test_study_prints_its_table_at_a_tiny_size(capsys):
    few = {"greedy": {"temperature": 0}, "top_p_90": {"top_p": 0.9}}
    table = sampling.study(seeds=2, n=3, time=40, order=2, settings=few)
    assert capsys.readouterr().out.count("±") == 3 * 4
    assert table["greedy"]["own"] < table["people"]["own"]
    assert table["people"]["judge_sd"] > 0


# ---------------------------------------------------------------- the bars


@pytest.mark.bar
def test_the_cache_is_two_and_a_half_times_as_fast_at_256_tokens():
    """The median of pairs of processor time, so that a loaded machine slows both."""
    model, ratios = gpt.load(context=256), []
    for _ in range(3):
        clocks = [time.process_time()]
        for by, cold in ((gpt.sample, 1e-5), (sampling.sample, 0)):
            by(model, 1, start="The", length=250, temperature=cold)
            clocks.append(time.process_time())
        ratios.append((clocks[1] - clocks[0]) / (clocks[2] - clocks[1]))
    assert np.median(ratios) >= 2.5


@pytest.mark.bar
def test_people_lie_between_greedy_and_pure_draws_for_the_judge():
    model = gpt.load()
    old, _, new = map(prose.text_of, prose.load())
    judge, rows = n_grams.train(old, order=5), sampling.passages(model, new, n=16, time=64)
    found = {"people": sampling.measure(model, judge, rows)}
    for name, how in {
        "greedy": {"temperature": 0},
        "pure": {},
        "hot": {"temperature": 1.5},
    }.items():
        ids = sampling.generate(model, rows[:, :16], 48, **how)
        found[name] = sampling.measure(model, judge, ids)
    bits = [found[name]["judge"] for name in ("greedy", "people", "pure", "hot")]
    assert bits == sorted(bits) and bits[1] - bits[0] > 0.3
    assert found["greedy"]["repeated"] > 0.3 > 5 * found["pure"]["repeated"]
