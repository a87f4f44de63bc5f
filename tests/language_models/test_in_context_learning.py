"""Learning in context: the past alone decides, nothing is trained, and how near the optimum is."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from snippets.language_models import gpt, tokenization
from snippets.language_models import in_context_learning as icl


def untrained(seed=0):
    torch.manual_seed(seed)
    return icl.Reader().eval()


@pytest.fixture(scope="module")
def kept():
    return gpt.load()


# ---------------------------------------------------------------- sequences that repeat


def test_sequences_repeat_with_their_period_and_not_before():
    tokens, period = icl.repeats(200)
    assert tokens.shape == (200, 33) and tokens.min() >= 0 and tokens.max() == 63
    assert period.min() == 8 and period.max() == 16
    for row, p in zip(tokens.tolist(), period.tolist()):
        assert len(set(row[:p])) == p
        assert row[p:] == row[:-p]
    other, _ = icl.repeats(200, seed=1)
    assert (tokens == other).float().mean() < 0.1


def test_copied_counts_only_what_the_past_holds():
    """A copier by rule is right wherever the token came before, and a wrong guess elsewhere."""
    tokens, period = icl.repeats(50)

    class Rule(torch.nn.Module):
        wrong = 0

        def forward(self, x):
            logits = torch.zeros(*x.shape, 64)
            for i, row in enumerate(x.tolist()):
                for t, token in enumerate(row):
                    before = [s for s in range(t) if row[s] == token]
                    best = row[before[-1] + 1] if before else row[t]
                    logits[i, t, (best + self.wrong) % 64] = 1
            return logits

    rule = Rule()
    assert icl.copied(rule, tokens, period) == 1
    rule.wrong = 1
    assert icl.copied(rule, tokens, period) == 0


def test_the_copier_pays_for_the_next_token_of_fresh_batches():
    costs, seen = [], []
    honest = icl.cross_entropy

    def spy(logits, target):
        costs.append(honest(logits, target).item())
        seen.append(target)
        return honest(logits, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icl, "cross_entropy", spy)
        icl.train_copier(steps=2, batch=4, seed=3)
    tokens, _ = icl.repeats(4, seed=4 * 10**6)
    torch.manual_seed(3)
    model = gpt.GPT(size=64, width=64, depth=2, heads=2, context=32)
    expected = cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert costs[0] == pytest.approx(expected.item(), rel=1e-5)
    assert (seen[0] != seen[1]).any()


# ---------------------------------------------------------------- functions and their best guess


def test_examples_have_the_promised_spread():
    x, y = icl.functions(20_000, 3)
    assert x.shape == (20_000, 3, 4) and y.shape == (20_000, 3)
    assert x.var().item() == pytest.approx(1, rel=0.03)
    assert y.var().item() == pytest.approx(1 + icl.NOISE**2, rel=0.03)
    scaled_x, scaled_y = icl.functions(20_000, 3, inputs=2, weights=3)
    assert scaled_x.var().item() == pytest.approx(4, rel=0.03)
    assert scaled_y.var().item() == pytest.approx(36 + icl.NOISE**2, rel=0.03)


def test_examples_of_a_row_share_their_function():
    x, y = icl.functions(500, 40)
    w = torch.linalg.lstsq(x, y[..., None]).solution
    left = ((x @ w)[..., 0] - y).square().mean().item()
    assert left == pytest.approx(icl.NOISE**2 * (1 - 4 / 40), rel=0.05)
    assert w.std(dim=0).min() > 0.3  # and rows do not


def test_ridge_is_the_posterior_mean_by_brute_force(monkeypatch):
    """Two weights on a grid: prior times likelihood, summed."""
    monkeypatch.setattr(icl, "SIZE", 2)
    x, y = icl.functions(1, 4, seed=5)
    grid = torch.linspace(-6, 6, 601)
    w = torch.cartesian_prod(grid, grid).double()
    log_p = -(w**2).sum(1) * 2 / 2  # each weight has variance 1 / 2
    guesses = icl.ridge(x, y, penalty=icl.NOISE**2 * 2)[0]
    for i in range(4):
        told = x[0, i].double() @ w.T
        assert guesses[i].item() == pytest.approx((log_p.softmax(0) * told).sum().item(), abs=1e-4)
        log_p = log_p - (y[0, i] - told) ** 2 / (2 * icl.NOISE**2)


def test_the_default_penalty_is_the_best_one():
    x, y = icl.functions(20_000, 9)
    errors = {p: (icl.ridge(x, y, penalty=p) - y).square().mean() for p in (0.25, 1.0, 4.0)}
    assert min(errors, key=errors.get) == 1.0
    torch.testing.assert_close(icl.ridge(x, y), icl.ridge(x, y, penalty=1.0))


# ---------------------------------------------------------------- the reader


@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_later_example_never_changes_an_earlier_guess(at):
    model, (x, y), (x2, y2) = untrained(), icl.functions(5, 9), icl.functions(5, 9, seed=1)
    changed = torch.cat([x[:, :at], x2[:, at:]], 1), torch.cat([y[:, :at], y2[:, at:]], 1)
    with torch.no_grad():
        before, after = model(x, y), model(*changed)
    torch.testing.assert_close(after[:, :at], before[:, :at], rtol=0, atol=0)
    assert (after[:, at:] != before[:, at:]).all()  # the past is heard


@pytest.mark.parametrize("at", [0, 4, 8])
def test_no_answer_is_seen_before_it_is_guessed(at):
    model, (x, y) = untrained(), icl.functions(5, 9)
    other = y.clone()
    other[:, at] += 3
    with torch.no_grad():
        before, after = model(x, y), model(x, other)
    torch.testing.assert_close(after[:, : at + 1], before[:, : at + 1], rtol=0, atol=0)
    assert (after[:, at + 1 :] != before[:, at + 1 :]).all()


def test_each_step_is_charged_the_squared_error_of_new_functions(monkeypatch):
    costs = []
    monkeypatch.setattr(
        icl, "fit", lambda model, cost, **_: costs.extend([cost(0), cost(1)]) or model
    )
    model = icl.train(batch=8, seed=2)
    for step, cost in enumerate(costs):
        x, y = icl.functions(8, 9, seed=3 * 10**6 + step)
        assert cost.item() == pytest.approx((model(x, y) - y).square().mean().item(), rel=1e-5)


def test_fit_moves_every_weight_and_calls_watch_after_each_step():
    model, steps = untrained(), []
    start = {name: w.detach().clone() for name, w in model.named_parameters()}
    x, y = icl.functions(64, 9)
    icl.fit(model, lambda step: (model(x, y) - y).square().mean(), steps=5, rate=0.02,
            watch=steps.append)  # fmt: skip
    assert steps == [0, 1, 2, 3, 4] and not model.training
    for name, w in model.named_parameters():
        assert (w != start[name]).any(), name


def test_the_rate_rises_and_falls_to_nearly_nothing(monkeypatch):
    rates = []
    monkeypatch.setattr(gpt, "muon", lambda w, m, rate, decay: rates.append(rate))
    icl.train(steps=60, batch=2, k=2, rate=1.0)
    assert rates[0] < 0.1 and max(rates) > 0.6 and rates[-1] < 0.1


def test_training_repeats_and_leaves_the_callers_random_stream_alone():
    state = torch.random.get_rng_state()
    x, y = icl.functions(3, 4)
    one, again, two = (icl.train(steps=2, batch=2, seed=s)(x, y) for s in (0, 0, 1))
    icl.train_copier(steps=1, batch=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one, again) and not torch.equal(one, two)


def test_predict_is_the_readers_guess_after_the_examples_and_trains_nothing():
    reader, (x, y) = untrained(), icl.functions(6, 5)
    before = [w.clone() for w in reader.parameters()]
    model = icl.learn(reader, x[0, :4].numpy(), y[0, :4].numpy())
    asked = x[:, 4].numpy()
    guesses = icl.predict(model, asked)
    assert guesses.shape == (6,)
    for i in range(6):
        both = torch.cat([x[0, :4], x[i, 4:]])[None]
        with torch.no_grad():
            one = reader(both, torch.cat([y[0, :4], torch.tensor([9.0])])[None])[0, 4]
        assert guesses[i] == pytest.approx(one.item(), abs=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, reader.parameters()))
    assert (icl.predict(icl.learn(reader, x[1, :4], y[1, :4]), asked) != guesses).all()


def test_bad_input_is_refused_in_words():
    with pytest.raises(ValueError, match=r"examples \(k, 4\) and answers \(k,\), got \(3, 5\)"):
        icl.learn(untrained(), np.zeros((3, 5)), np.zeros(3))
    with pytest.raises(ValueError, match=r"got \(3, 4\) and \(2,\)"):
        icl.learn(untrained(), np.zeros((3, 4)), np.zeros(2))
    model = icl.learn(untrained(), np.zeros((3, 4)), np.zeros(3))
    with pytest.raises(ValueError, match=r"questions of 4 numbers, got shape \(2, 784\)"):
        icl.predict(model, np.zeros((2, 784)))


# ---------------------------------------------------------------- tasks


def test_dates_are_translated_right():
    from datetime import datetime

    pairs = icl.task("dates", 300)
    for asked, answer in pairs:
        there = datetime.strptime(asked.removesuffix(" is"), "%d %B %Y")
        assert answer == f" {there:%Y-%m-%d}"
    assert len({answer[6:8] for _, answer in pairs}) == 12
    assert icl.task("dates", 5, seed=1) != icl.task("dates", 5, seed=2)


def test_questions_are_answered_by_what_stands_before():
    for told, answer in icl.task("questions", 100):
        facts, _, name = told.removesuffix("?").rpartition(" What has ")
        assert f"{name} has the{answer}." in facts and facts.count(".") == 3


@pytest.mark.parametrize("part", [0, 1, 2])
def test_texts_are_those_of_their_part_and_answers_stand_in_them(part):
    own = [{row.text for row in rows} for rows in icl.prose.load()]
    for asked, answer in icl.task("summaries", 50, seed=3 + part):
        text = asked.removesuffix(" In short:")
        assert text.startswith(answer.strip()) and len(text) > len(answer)
        assert text in own[part]
    spaced = {" ".join(text.split()) for text in own[part]}
    for asked, answer in icl.task("completion", 50, seed=3 + part):
        assert asked + answer in spaced and len(asked) > 20 < len(answer)


def test_an_unknown_task_is_refused_in_words():
    with pytest.raises(ValueError, match="one of completion, dates, questions, summaries"):
        icl.task("sums", 1)


def test_a_prompt_holds_the_answers_of_the_examples_only():
    assert icl.prompt([("a?", " b"), ("c?", " d")], "e?") == "a? b; c? d; e?"


def test_what_is_counted_as_written_is_what_the_model_writes(kept):
    """Ask for its own likeliest words, then for others."""
    start = "The value of"
    ids = tokenization.encode(kept.pieces, "\n" + start)
    own = []
    for _ in range(4):
        with torch.no_grad():
            own.append(kept(torch.tensor([ids + own]))[0, -1].argmax().item())
    answer = tokenization.decode(kept.pieces, own)
    assert tokenization.encode(kept.pieces, answer) == own
    assert icl.answered(kept, [start], [answer]) == (1, 1)
    some, whole = icl.answered(kept, [start, start], [answer, answer + " xylophone"])
    assert 0.4 < some < 1 and whole == 0.5


def test_teaching_changes_a_copy_only(kept):
    before = kept.token.weight.clone()
    taught = icl.teach(kept, steps=1, lines=60)
    assert torch.equal(before, kept.token.weight)
    assert (taught.token.weight != before).any() and taught.pieces == kept.pieces


def test_the_study_runs_at_a_tiny_size(capsys):
    table = icl.study(seeds=2, steps=0.01, n=40)
    assert "right tokens" in capsys.readouterr().out
    assert table["moment"] == 10 and table["copied"] == 0  # it had no time to copy
    assert table["worst"] >= table["mean"] > -0.2 and table["mean_sd"] > 0
    assert set(table["longer"]) == set(icl.TASKS)
    assert all(0 <= row["whole"] <= row["tokens"] <= 1 for row in table["longer"].values())


# ---------------------------------------------------------------- bars


@pytest.mark.bar
def test_two_layers_copy_what_they_have_read_once():
    model = icl.train_copier()
    assert icl.copied(model, *icl.repeats(500, seed=1)) > 0.95


@pytest.mark.bar
def test_dates_alone_are_learned_by_a_small_network():
    model, new = icl.train_dates(), icl.new_dates(400)
    assert icl.examined(model, new)[1] > 0.92
    assert not set(new) & set(icl.task("dates", 4000, seed=0))


@pytest.mark.bar
def test_a_reader_is_near_the_optimum_and_never_beats_it():
    model = icl.train()
    x, y = icl.functions(20_000, 9, seed=1)
    with torch.no_grad():
        above = icl.excess(model(x, y), y, icl.ridge(x, y))
    assert above.max() < 0.17
    assert above.min() > -0.02  # noise; no method is better on average
