"""Fine-tuning: nothing changes at the start, only what is named moves, and how well it goes."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch

from snippets.language_models import fine_tuning, gpt, tokenization
from snippets.shared import prose
from snippets.shared.prose import Paragraph
from snippets.site import ROOT

OLD = prose.text_of(prose.load().train)[:20_000]
SKLEARN = prose.load("sklearn")
NEW = prose.text_of(SKLEARN.train)[30_000:50_000]
TINY = {"size": 300, "width": 32, "depth": 2, "heads": 2, "context": 16}
MAPS = ("look", "tell", "up", "down")
STUDY = ROOT / "docs/outputs/language_models/fine_tuning/study.json"


@pytest.fixture(scope="module")
def base():
    return gpt.train(OLD, steps=40, batch=8, seed=3, **TINY)


@pytest.fixture(scope="module")
def tuned(base):
    """Way → what 20 steps have made of the base, at a rate that shows."""
    rates = {"full": 0.01, "lora": 0.05, "table": 0.01}
    return {way: short(base, way=way, rate=rate) for way, rate in rates.items()}


def short(base, text=NEW, **how):
    return fine_tuning.train(text, **{"base": base, "steps": 20, "batch": 8, "seed": 1} | how)


def tokens(rows=3, time=16):
    return torch.randint(300, (rows, time), generator=torch.Generator().manual_seed(0))


def logits(model):
    with torch.no_grad():
        return model(tokens())


def weights(model):
    """Name → weights, under the names of the base."""
    return {name.replace(".linear", ""): w for name, w in model.state_dict().items()}


# ---------------------------------------------------------------- the start


@pytest.mark.parametrize("way", ["full", "lora", "table"])
def test_before_the_first_step_nothing_has_changed(base, way):
    torch.manual_seed(0)
    assert torch.equal(logits(fine_tuning.prepare(base, way)), logits(base))
    assert torch.equal(logits(short(base, way=way, steps=0)), logits(base))


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_what_can_be_trained_is_what_the_formula_counts(base, rank):
    def count(way):
        model = fine_tuning.prepare(base, way, rank=rank)
        return sum(w.numel() for w in model.parameters() if w.requires_grad)

    table, width = 300 * 32, 32
    assert count("table") == table
    assert count("full") == table + 2 * 12 * width**2
    assert count("lora") == 2 * rank * (4 + 2 + 5 + 5) * width  # in + out of four maps


def test_a_starts_as_wide_as_it_keeps_lengths():
    torch.manual_seed(0)
    part = fine_tuning.LoRA(torch.nn.Linear(400, 30, bias=False), 8)
    assert part.a.std().item() == pytest.approx(1 / 20, rel=0.1)
    assert part.a.shape == (8, 400) and part.b.shape == (30, 8)


# ---------------------------------------------------------------- what moves


def test_only_what_is_named_moves(base, tuned):
    before = weights(base)
    moved = {
        way: {n for n, w in weights(model).items() if n in before and (w != before[n]).any()}
        for way, model in tuned.items()
    }
    assert moved == {"full": set(before), "lora": set(), "table": {"token.weight"}}
    for block in tuned["lora"].blocks:
        for name in MAPS:
            assert (getattr(block, name).b != 0).any(dim=1).all(), name


def test_the_base_stays_as_it_was(base):
    before = copy.deepcopy(base.state_dict())
    for way in ("full", "lora", "table"):
        short(base, way=way, steps=2)
    assert set(before) == set(base.state_dict())
    assert all(torch.equal(before[name], w) for name, w in base.state_dict().items())
    assert all(w.requires_grad for w in base.parameters())


def test_tokens_stay_those_of_the_base(base, tuned):
    assert all(model.pieces == base.pieces for model in tuned.values())


# ---------------------------------------------------------------- merging


def test_merged_and_unmerged_say_the_same(base, tuned):
    merged = fine_tuning.merge(tuned["lora"])
    assert set(merged.state_dict()) == set(base.state_dict())
    torch.testing.assert_close(logits(merged), logits(tuned["lora"]), atol=1e-5, rtol=1e-5)
    assert (logits(merged) - logits(base)).abs().max() > 0.1


def test_merging_leaves_the_model_as_it_was(tuned):
    before = logits(tuned["lora"])
    fine_tuning.merge(tuned["lora"])
    assert torch.equal(logits(tuned["lora"]), before)
    part = tuned["lora"].blocks[1].up
    assert isinstance(part, fine_tuning.LoRA)


def test_a_change_has_no_higher_rank_than_asked(base):
    model = fine_tuning.merge(short(base, way="lora", rank=3, steps=5, rate=0.05))
    for block, was in zip(model.blocks, base.blocks):
        for name in MAPS:
            change = (getattr(block, name).weight - getattr(was, name).weight).detach()
            sizes = torch.linalg.svdvals(change)
            assert sizes[2] > 1e-4 > 20 * sizes[3]


# ---------------------------------------------------------------- training


def test_windows_are_runs_of_the_text_and_all_can_come():
    torch.manual_seed(0)
    rows = fine_tuning.draw(torch.arange(20), 500, 5)
    assert rows.shape == (500, 5) and (rows.diff(dim=1) == 1).all()
    assert set(rows[:, 0].tolist()) == set(range(16))


def test_steps_are_those_of_a_loop_by_hand(base, monkeypatch):
    """The share of each text, targets one ahead, fresh gradients, the rate, no decay."""
    asked, honest = [], fine_tuning.draw
    monkeypatch.setattr(
        fine_tuning, "draw", lambda t, n, k: asked.append((t, n, k)) or honest(t, n, k)
    )
    new, old = torch.arange(300), torch.arange(300).flip(0)
    torch.manual_seed(5)
    model = fine_tuning.prepare(base, "full")
    model = fine_tuning.fit(model, new, old, steps=6, batch=8, rate=0.01, replay=0.25)
    assert asked == [(new, 6, 17), (old, 2, 17)] * 6

    torch.manual_seed(5)
    hand = copy.deepcopy(base)
    adam = torch.optim.AdamW(hand.parameters(), betas=(0.9, 0.95), weight_decay=0)
    for step in range(6):
        some = torch.cat([honest(new, 6, 17), honest(old, 2, 17)])
        log_p = hand(some[:, :16]).log_softmax(dim=-1)
        cost = -log_p.gather(2, some[:, 1:, None]).mean()
        for group in adam.param_groups:
            group["lr"] = 0.01 * min(0.1 * (1 + step), 1, 1.02 - step / 6)
        hand.zero_grad()
        cost.backward()
        adam.step()
        assert model.history[step] == pytest.approx(cost.item(), rel=1e-4)
    torch.testing.assert_close(logits(model), logits(hand), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("replay, new, old", [(0.0, 16, 0), (0.25, 12, 4), (0.5, 8, 8)])
def test_replay_is_the_share_that_was_asked_and_all_ways_read_as_much(
    base, monkeypatch, replay, new, old
):
    read, honest = [], fine_tuning.draw
    monkeypatch.setattr(
        fine_tuning, "draw", lambda t, n, k: read.append((len(t), n * k)) or honest(t, n, k)
    )
    short(base, old=OLD, replay=replay, steps=1, batch=16)
    sizes = [len(tokenization.encode(base.pieces, text)) for text in (NEW, OLD)]
    wanted = [(size, 17 * n) for size, n in zip(sizes, (new, old)) if n]
    assert read == wanted


def test_every_way_learns_the_new_text_and_replay_keeps_more_of_the_old(base, tuned):
    new, old = NEW[:3000], OLD[:3000]
    before = fine_tuning.bits(base, new)
    for way, model in tuned.items():
        assert fine_tuning.bits(model, new) < before - 0.05, way
    again = short(base, rate=0.01, replay=0.5, old=OLD)
    assert fine_tuning.bits(again, old) < fine_tuning.bits(tuned["full"], old) - 0.02


def test_training_repeats_and_leaves_the_callers_random_stream_alone(base):
    state = torch.random.get_rng_state()
    first, same, other = (
        short(base, way="lora", steps=3, seed=seed, rate=0.05).history for seed in (1, 1, 2)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert first == same != other


def test_from_scratch_uses_the_tokens_of_the_kept_model():
    text = prose.text_of(SKLEARN.train)[:3000]
    model = fine_tuning.scratch(text, steps=1, batch=2)
    assert model.pieces == gpt.load().pieces
    assert model.history[0] == pytest.approx(np.log(2048), abs=0.2)


# ---------------------------------------------------------------- use


def test_scores_and_draws_are_those_of_the_merged_model(tuned):
    model = tuned["lora"]
    texts = [NEW[:80], "Return the mean."]
    expected = [gpt.log_tokens(model, tokenization.encode(model.pieces, t)).sum() for t in texts]
    np.testing.assert_allclose(fine_tuning.log_prob(model, texts), expected, rtol=1e-4)
    drawn = fine_tuning.sample(model, 2, seed=4, start="The", length=8)
    assert drawn == gpt.sample(fine_tuning.merge(model), 2, seed=4, start="The", length=8)
    assert fine_tuning.bits(model, "abc") == pytest.approx(
        -fine_tuning.log_prob(model, ["abc"])[0] / np.log(2) / 3
    )


def test_what_lora_learned_comes_back_from_a_small_file(base, tuned, tmp_path):
    path = tmp_path / "lora.safetensors"
    fine_tuning.keep(tuned["lora"], path)
    back = fine_tuning.load(path, base=base)
    torch.testing.assert_close(logits(back), logits(tuned["lora"]), atol=0.05, rtol=0.01)
    assert (logits(back) - logits(base)).abs().max() > 0.1
    learned = 2 * 8 * (4 + 2 + 5 + 5) * 32
    assert 2 * learned < path.stat().st_size < 2 * learned + 2500
    with pytest.raises(ValueError, match="way='lora'"):
        fine_tuning.keep(tuned["full"], path)


def test_some_is_whole_documents_in_random_order_cut_at_the_tokens():
    rows = [Paragraph(f"d{k}", "", f"paragraph {i} of {k}.") for k in range(30) for i in range(3)]
    text, other = (fine_tuning.some(rows, 60, seed=seed) for seed in (0, 1))
    pieces = gpt.load().pieces
    assert len(tokenization.encode(pieces, text)) == 60 and text != other
    order = [line.split(" of ")[1] for line in text.splitlines()[:-1] if " of " in line]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes == len(set(order)) - 1, "documents are torn"
    assert order != sorted(order, key=lambda name: int(name[:-1]))


def test_turned_changes_one_whole_word():
    rows = [
        Paragraph("", "", text)
        for text in (
            "If True, inputs are kept.",
            "True, not False.",
            "True is True.",
            "Trueness.",
            "It is False.",
        )
    ]
    assert fine_tuning.turned(rows, (("True", "False"), ("input", "output"))) == [
        ("True", "If True, inputs are kept.", "If False, inputs are kept."),
        ("False", "It is False.", "It is True."),
    ]


def test_right_is_where_the_true_paragraph_is_more_probable(monkeypatch):
    costs = {"a": -1.0, "b": -2.0, "c": -3.0}
    monkeypatch.setattr(
        fine_tuning, "log_prob", lambda _, texts: np.array([costs[text] for text in texts])
    )
    cases = [("", "a", "b"), ("", "c", "a"), ("", "b", "c")]
    assert fine_tuning.right(None, cases).tolist() == [True, False, True]


def test_bad_input_is_refused_in_words(base):
    with pytest.raises(ValueError, match="one of full, lora, table, got 'head'"):
        short(base, way="head")
    for how in ({"replay": 0.5}, {"replay": 1.0, "old": OLD}, {"replay": -0.1, "old": OLD}):
        with pytest.raises(ValueError, match="replay in \\[0, 1\\) and, above 0, old text"):
            short(base, **how)
    with pytest.raises(ValueError, match="17 tokens of text or more"):
        short(base, text="Too short.")
    with pytest.raises(ValueError, match="a list of texts: pass \\[text\\]"):
        fine_tuning.log_prob(base, "text")


# ---------------------------------------------------------------- the study and the bars


def test_the_recorded_study_meets_the_bars():
    """Three seeds each; `check` refuses the record when the code has changed since."""
    found = json.loads(STUDY.read_text("utf-8"))["metrics"]
    full, replay, before = found["full"], found["replay"], found["before"]
    assert full["new"] < 1.92
    assert full["new"] < found["scratch"]["new"] - 0.3
    assert before["old"] < replay["old"] < full["old"]
    assert full["old"] - replay["old"] > 0.4 * (full["old"] - before["old"])
    assert full["new"] < found["lora"]["new"] - 0.1


@pytest.mark.bar
def test_study_prints_its_table_at_a_tiny_size(capsys):
    table = fine_tuning.study(seeds=1, steps=1, tokens=700, letters=300)
    assert capsys.readouterr().out.count("\n") == len(table) + 1 == 22
    assert all(0.5 < row["new"] < 12 for row in table.values())


@pytest.mark.bar
def test_the_kept_lora_is_better_than_the_base_on_new_text():
    new = prose.text_of(SKLEARN.valid)[:20_000]
    kept = fine_tuning.load()
    assert fine_tuning.bits(kept, new) < fine_tuning.bits(gpt.load(), new) - 0.3
    assert sum(w.numel() for w in kept.parameters() if w.requires_grad) == 36_864


@pytest.mark.bar
def test_full_tuning_reaches_the_bar():
    model = fine_tuning.train(fine_tuning.some(SKLEARN.train, 100_000))
    new = prose.text_of(SKLEARN.test)
    assert fine_tuning.bits(model, new) < 1.92
