"""Object detection: boxes, matching and average precision, maps and back, the loss, the bars."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from snippets.discriminative import object_detection as od
from snippets.discriminative.object_detection import Objects
from snippets.shared import digits

SPLIT = digits.load_split()
SOME = od.strew(*SPLIT[2:], n=30, seed=1)


def boxes(*rows):
    return np.array(rows, dtype=float).reshape(-1, 4)


def finds(rows, scores, labels=None):
    labels = np.zeros(len(scores), int) if labels is None else np.array(labels)
    return Objects(boxes(*rows), labels, np.array(scores, dtype=float))


def worked():
    """The page's example: three objects, five finds."""
    real = od.certain(boxes([2, 4, 12, 14], [22, 5, 32, 15], [8, 25, 18, 35]), [7, 7, 7])
    rows = [3, 4, 13, 14], [2, 6, 12, 16], [22, 7, 32, 17], [27, 27, 37, 37], [13, 27, 23, 37]
    return finds(rows, [0.9, 0.8, 0.7, 0.6, 0.5], [7] * 5), real


def untrained(seed=0, width=8):
    """A detector whose batch norms are no identity."""
    torch.manual_seed(seed)
    model = od.Detector(width)
    model(torch.rand(8, 1, 40, 40))  # in training mode: running means move
    with torch.no_grad():
        model.answer.bias[:10] = 0
    return model.eval()


@pytest.fixture(scope="module")
def short():
    scenes = od.strew(*SPLIT[:2], n=60, noise=0, seed=2)
    return od.train(scenes, steps=12, batch=16, width=16, seed=4)


# ---------------------------------------------------------------- boxes


def test_iou_by_hand():
    one = boxes([0, 0, 4, 4])
    others = boxes([2, 0, 6, 4], [0, 0, 4, 4], [1, 1, 3, 3], [4, 0, 8, 4], [9, 9, 12, 12])
    np.testing.assert_allclose(od.iou(one, others), [[1 / 3, 1, 1 / 4, 0, 0]])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_iou_counts_pixels(seed):
    """Whole pixels can be counted: a canvas of booleans for each box."""
    rng = np.random.default_rng(seed)
    start, size = rng.integers(0, 10, (6, 2)), rng.integers(1, 8, (6, 2))
    some = np.hstack([start, start + size])
    masks = np.zeros((6, 20, 20), bool)
    for mask, (left, top, right, bottom) in zip(masks, some):
        mask[top:bottom, left:right] = True
    both = (masks[:, None] & masks).sum(axis=(2, 3))
    either = (masks[:, None] | masks).sum(axis=(2, 3))
    np.testing.assert_allclose(od.iou(some, some), both / either)
    np.testing.assert_allclose(od.covered(some, some), both / masks.sum(axis=(1, 2))[:, None])


# ---------------------------------------------------------------- matching


def test_the_worked_example():
    said, real = worked()
    assert od.match(said, real).tolist() == [0, -1, 1, -1, -1]
    assert od.mean_ap([said], [real]) == pytest.approx(5 / 9)
    # At an IoU of a quarter the last find is a hit at rank 5 with precision 3 / 5.
    assert od.mean_ap([said], [real], least=0.25) == pytest.approx(1 / 3 + 2 / 9 + 1 / 5)


def test_the_surest_chooses_first_and_labels_must_agree():
    real = od.certain(boxes([0, 0, 10, 10]), [3])
    said = finds([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10]], [0.4, 0.9, 0.99], [3, 3, 4])
    assert od.match(said, real).tolist() == [-1, 0, -1]


def test_a_find_takes_the_best_box_that_is_free():
    real = od.certain(boxes([0, 0, 10, 10], [2, 0, 12, 10]), [0, 0])
    said = finds([[1.5, 0, 11.5, 10], [1.6, 0, 11.6, 10]], [0.9, 0.8])
    assert od.match(said, real).tolist() == [1, 0]


def test_duplicates_are_false_alarms():
    truth = SOME.truth
    double = [Objects(np.vstack([t.boxes] * 2), np.tile(t.labels, 2),
                      np.concatenate([t.scores, 0.5 * t.scores])) for t in truth]  # fmt: skip
    hits = od.pooled(double, truth)[1]
    assert hits.sum() == len(hits) / 2
    mixed = [o._replace(scores=np.ones(len(o.scores))) for o in double]
    assert od.mean_ap(mixed, truth) < 0.95


def test_nothing_found_and_nothing_there():
    none = finds([], [])
    real = od.certain(boxes([0, 0, 10, 10]), [0])
    assert od.match(none, real).shape == (0,)
    assert od.match(real, none).tolist() == [-1]
    assert od.mean_ap([none], [real]) == 0


# ---------------------------------------------------------------- average precision


def test_perfect_boxes_score_one_and_worse_scores_less():
    assert od.mean_ap(SOME.truth, SOME.truth) == 1
    rng = np.random.default_rng(0)
    wild = [Objects(np.vstack([t.boxes, t.boxes + 20]), np.tile(t.labels, 2),
                    np.concatenate([t.scores, 0 * t.scores])) for t in SOME.truth]  # fmt: skip
    shuffled = [o._replace(scores=rng.random(len(o.scores))) for o in wild]
    assert od.mean_ap(wild, SOME.truth) == 1  # false alarms come last
    assert od.mean_ap(shuffled, SOME.truth) < 0.9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), missed=st.integers(0, 3))
def test_average_precision_is_the_area_under_the_envelope(seed, missed):
    rng = np.random.default_rng(seed)
    hits = rng.random(12) < 0.5
    hits[0] = True
    scores, total = rng.permutation(12) / 12, hits.sum() + missed
    precision, recall, _ = od.precision_recall(scores, hits, total)
    levels = np.arange(1, total + 1) / total  # one step for each object
    best = [max(precision[recall >= level - 1e-9], default=0) for level in levels]
    ours = od.average_precision(scores, hits, total)
    assert ours == pytest.approx(np.mean(best))
    # Without the envelope it is scikit-learn's, which knows no object that was never found.
    plain = average_precision_score(hits, scores) * hits.sum() / total
    raw = (np.diff(recall, prepend=0) * precision).sum()
    assert raw == pytest.approx(plain)
    assert ours >= raw - 1e-12


def test_classes_count_alike():
    """A common class that is perfect does not hide a rare one that is never found."""
    real = od.certain(boxes(*[[10 * k, 0, 10 * k + 8, 8] for k in range(4)]), [0, 0, 0, 1])
    said = od.pick(real, np.arange(3))
    assert od.mean_ap([said], [real]) == 0.5


def test_bills_by_hand():
    scores, hits = np.array([0.9, 0.6, 0.4]), np.array([True, False, True])
    owner = {"missed": 10, "alarm": 1}
    assert od.bill(scores, hits, 3, threshold=0.95, **owner) == 30
    assert od.bill(scores, hits, 3, threshold=0.5, **owner) == 21
    assert od.bill(scores, hits, 3, threshold=0.4, **owner) == 11
    assert od.cheapest(scores, hits, 3, **owner) <= 0.4
    assert 0.6 < od.cheapest(scores, hits, 3, missed=1, alarm=10) <= 0.9


# ---------------------------------------------------------------- canvases


def test_canvases_carry_what_the_truth_says():
    clean = od.strew(*SPLIT[2:], n=20, noise=0, seed=5)
    assert clean.x.shape == (20, 40, 40)
    for canvas, truth in zip(*clean):
        assert 1 <= len(truth.boxes) <= 5
        inside = np.zeros(canvas.shape, bool)
        for left, top, right, bottom in truth.boxes.astype(int):
            inside[top:bottom, left:right] = True
            part = canvas[top:bottom, left:right] > 0.25
            tight = [part[0], part[-1], part[:, 0], part[:, -1]]
            assert all(side.any() for side in tight)
        assert canvas[~inside].max() == 0
        height = truth.boxes[:, 3] - truth.boxes[:, 1]
        assert height.min() >= 6 and height.max() <= 14
        share = od.covered(truth.boxes, truth.boxes) - np.eye(len(truth.boxes))
        assert share.max() <= 0.1


def test_a_place_is_free_for_both():
    """A small box inside a large one covers little of it and is covered whole."""
    rng = np.random.default_rng(0)
    assert od.free_place((4, 4), boxes([0, 0, 10, 10]), 0.3, 10, rng) is None
    assert od.free_place((10, 10), boxes([3, 3, 7, 7]), 0.3, 10, rng) is None
    assert od.free_place((4, 4), boxes(), 0.3, 10, rng) is not None


def test_the_seed_decides_and_noise_does_not_move_anything():
    again, other = (od.strew(*SPLIT[2:], n=30, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(SOME.x, again.x)
    assert (SOME.x != other.x).any()
    clean = od.strew(*SPLIT[2:], n=30, noise=0, seed=1)
    for a, b in zip(clean.truth, SOME.truth):
        np.testing.assert_array_equal(a.boxes, b.boxes)
    assert (SOME.x - clean.x)[clean.x == 0].mean() == pytest.approx(0.12 * 0.399, abs=0.005)


def test_digits_of_the_wrong_kind_are_named():
    with pytest.raises(ValueError, match="expected images of 64 pixels, got 784"):
        od.strew(np.zeros((3, 784)), np.zeros(3), n=1)
    with pytest.raises(ValueError, match="expected 3 labels, got 2"):
        od.strew(np.zeros((3, 64)), np.zeros(2), n=1)
    with pytest.raises(ValueError, match="expected sizes from 1 to 40, got"):
        od.strew(np.zeros((3, 64)), np.zeros(3), n=1, sizes=(8, 41))


# ---------------------------------------------------------------- maps


def test_maps_by_hand():
    truth = od.certain(boxes([6, 9, 12, 19]), [3])  # centre (9, 14): column 2, row 3
    heat, geometry = od.to_maps(truth, (40, 40), spread=0.6)
    assert heat.shape == (10, 10, 10) and geometry.shape == (4, 10, 10)
    assert np.argwhere(heat == 1).tolist() == [[3, 3, 2]]
    assert heat[3, 3, 3] == pytest.approx(np.exp(-1 / 0.72))
    assert heat[np.arange(10) != 3].max() == 0
    np.testing.assert_allclose(geometry[:, 3, 2], [0.25, 0.5, 1.5, 2.5])
    assert np.count_nonzero(geometry.any(axis=0)) == 1


def test_boxes_survive_maps_and_back():
    for truth in SOME.truth:
        back = od.from_maps(*od.to_maps(truth, (40, 40)))
        order = np.lexsort(truth.boxes.T)
        again = np.lexsort(back.boxes.T.round(3))
        np.testing.assert_allclose(back.boxes[again], truth.boxes[order], atol=1e-4)
        np.testing.assert_array_equal(back.labels[again], truth.labels[order])
        np.testing.assert_allclose(back.scores, 1)


def test_neighbours_of_one_class_both_survive():
    truth = od.certain(boxes([0, 0, 10, 10], [4, 0, 14, 10]), [2, 2])  # cells 1 and 2
    assert len(od.from_maps(*od.to_maps(truth, (40, 40))).boxes) == 2


def test_only_peaks_of_the_same_class_count_surest_first():
    heat, geometry = np.zeros((2, 5, 5), np.float32), np.ones((4, 5, 5), np.float32)
    heat[0, 2, 2], heat[0, 3, 3], heat[1, 2, 3], heat[0, 0, 0] = 0.6, 0.5, 0.9, 0.2
    found = od.from_maps(heat, geometry, threshold=0.4)
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(found.scores, [0.9, 0.6])
    np.testing.assert_allclose(found.boxes, [[14, 10, 18, 14], [10, 10, 14, 14]])


def test_shifting_by_a_cell_shifts_the_boxes():
    """Far from the edges, where padding is not seen."""
    model, x = untrained(), np.zeros((2, 120, 120), np.float32)
    x[0, 40:80, 40:80] = SOME.x[0]
    x[1, 40 + 4 : 80 + 4, 40 + 8 : 80 + 8] = SOME.x[0]
    with torch.no_grad():
        maps = torch.cat(model(torch.tensor(x)[:, None]), dim=1)[:, :, 6:24, 6:24]
    torch.testing.assert_close(maps[0, :, :-1, :-2], maps[1, :, 1:, 2:], atol=1e-4, rtol=1e-4)
    assert maps[0].std(dim=(1, 2)).min() > 1e-3, "it sees nothing"


# ---------------------------------------------------------------- the loss


def test_cross_entropy_times_the_squared_error():
    logits = torch.linspace(-3, 3, 7)
    heat = torch.tensor([1.0, 0, 1, 0, 1, 0, 0])
    error = (torch.sigmoid(logits) - heat).abs()
    terms = F.binary_cross_entropy_with_logits(logits, heat, reduction="none")
    torch.testing.assert_close(od.focal_loss(logits, heat), (error**2 * terms).sum())


def test_near_a_centre_a_wrong_yes_is_forgiven():
    price = [od.focal_loss(torch.tensor([1.0]), torch.tensor([h])) for h in (0.0, 0.5, 0.9)]
    assert price[0] * 0.5**4 == pytest.approx(price[1].item())
    assert price[0] * 0.1**4 == pytest.approx(price[2].item(), rel=1e-3)


def test_the_loss_is_per_object_and_asks_for_boxes_at_centres_alone():
    maps = [torch.tensor(m)[None] for m in od.to_maps(SOME.truth[0], (40, 40))]
    logits, geometry = torch.full((1, 10, 10, 10), -2.0), torch.zeros(1, 4, 10, 10)
    once = od.loss(logits, geometry, *maps)
    twice = od.loss(*(torch.cat([m, m]) for m in (logits, geometry, *maps)))
    torch.testing.assert_close(once, twice)
    count = len(SOME.truth[0].boxes)
    far = od.loss(logits, geometry, *maps, weight=1.0) - od.loss(logits, geometry, *maps, weight=0)
    assert far.item() == pytest.approx(maps[1].sum().item() / count, rel=1e-4)
    elsewhere = geometry + 9 * (maps[1].sum(dim=1, keepdim=True) == 0)
    torch.testing.assert_close(od.loss(logits, elsewhere, *maps), once)


def test_the_loss_teaches_the_box_at_a_centre():
    maps = [torch.tensor(m)[None] for m in od.to_maps(SOME.truth[0], (40, 40))]
    geometry = torch.full((1, 4, 10, 10), -1.0, requires_grad=True)  # less than any target
    od.loss(torch.zeros(1, 10, 10, 10), geometry, *maps, weight=0.5).backward()
    centre = (maps[0] == 1).any(dim=1, keepdim=True)
    torch.testing.assert_close(geometry.grad, -0.5 / centre.sum() * centre.expand(1, 4, 10, 10))


def test_an_empty_canvas_costs_only_its_false_alarms():
    maps = [torch.tensor(m)[None] for m in od.to_maps(od.certain(boxes(), []), (40, 40))]
    price = od.loss(torch.full((1, 10, 10, 10), -9.0), torch.ones(1, 4, 10, 10), *maps)
    assert 0 <= price.item() < 1e-4


def test_the_loss_survives_certainty():
    heat = torch.tensor([1.0, 0.0])
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    od.focal_loss(logits, heat).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().min() > 0.5


# ---------------------------------------------------------------- training and use


def test_a_few_steps_lower_the_loss(short):
    assert short.history[-3:].mean() < 0.6 * short.history[:2].mean()


def test_training_follows_the_seed_and_leaves_the_callers_stream():
    scenes = od.strew(*SPLIT[:2], n=20, noise=0)
    before = torch.random.get_rng_state()
    a, b, c = (od.train(scenes, steps=2, batch=4, width=8, seed=seed).history for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_each_canvas_is_judged_alone(short):
    """No statistics of the batch: a canvas gets the same answer in any company."""
    together = od.detect(short, SOME.x[:6], threshold=0.02)
    for k in (0, 5):
        alone = od.detect(short, SOME.x[k : k + 1], threshold=0.02)[0]
        assert len(alone.boxes) == len(together[k].boxes) > 0
        np.testing.assert_allclose(alone.boxes, together[k].boxes, atol=1e-3)


def test_a_higher_threshold_only_leaves_out(short):
    for low, high in zip(*(od.detect(short, SOME.x, threshold=t) for t in (0.02, 0.04))):
        kept = low.scores >= 0.04
        np.testing.assert_allclose(high.boxes, low.boxes[kept])
        assert (np.diff(low.scores) <= 0).all()


def test_bad_canvases_are_named(short):
    with pytest.raises(ValueError, match=r"expected canvases \(n, height, width\), got shape"):
        od.detect(short, np.zeros((3, 784)))
    with pytest.raises(ValueError, match="expected sides that 4 divides, got 40 x 42"):
        od.detect(short, np.zeros((3, 40, 42)))
    with pytest.raises(ValueError, match=r"expected ink in \[0, 1\]"):
        od.detect(short, np.full((3, 40, 40), np.nan))
    with pytest.raises(ValueError, match="expected 2 canvases, got 1"):
        od.mean_ap(SOME.truth[:1], SOME.truth[:2])


# ---------------------------------------------------------------- baselines and the study


def test_blobs_are_boxes_of_connected_ink():
    canvas = np.zeros((40, 40), np.float32)
    canvas[3:13, 5:9] = canvas[20:30, 30:36] = 1
    canvas[35:37, 3:5] = 1  # too low for a digit
    assert od.blobs(canvas, smooth=0).tolist() == [[5, 3, 9, 13], [30, 20, 36, 30]]


def test_windows_hold_what_their_boxes_say():
    canvas = SOME.x[0]
    where, crops = od.windows(canvas)
    assert len(where) == len(crops) == sum(((48 - s) // 2 + 1) ** 2 for s in (8, 10, 12, 14))
    inside = np.flatnonzero((where.min(axis=1) >= 0) & (where.max(axis=1) <= 40))
    for k in inside[:: len(inside) // 9]:
        np.testing.assert_allclose(crops[k], od.crop(canvas, where[k]), atol=1e-6)


def test_suppression_keeps_the_surest_of_those_that_overlap():
    said = finds([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], [0.5, 0.9, 0.1], [1, 2, 3])
    assert od.suppress(said).labels.tolist() == [2, 3]


def test_windows_teach_digits_where_they_fit_and_nothing_where_none_does():
    few = od.Scenes(SOME.x[:5], SOME.truth[:5])
    crops, labels = od.window_lessons(few, empty=7)
    assert (labels == 10).sum() == 5 * 7 and len(crops) == len(labels) > 5 * 7
    there = np.concatenate([t.labels for t in few.truth])
    assert set(labels) - {10} <= set(there)


def test_multiplications_by_hand():
    """Outputs times what each of them reads."""
    first, second = 400 * 4 * 16, 100 * 8 * 4 * 16
    around, answer = 2 * 100 * 8 * 8 * 9, 100 * 14 * 8
    assert od.multiplications(od.Detector(8)) == first + second + around + answer


def test_sliding_windows_find_something():
    scenes = od.strew(*SPLIT[:2], n=20, seed=6)
    read = od.slide_windows(scenes, LogisticRegression(max_iter=50), empty=100)
    assert od.mean_ap(read(SOME.x[:10]), SOME.truth[:10]) > 0.02


def test_the_study_tests_on_test_digits(monkeypatch):
    strewn, trained, strew = [], [], od.strew

    def watched(x, y, **options):
        strewn.append(x)
        return strew(x, y, **options)

    def contenders(split, **_):
        trained.append(split)
        return {"truth, blind": (lambda x: [od.certain(boxes(), [])] * len(x), 0)}

    monkeypatch.setattr(od, "strew", watched)
    monkeypatch.setattr(od, "contenders", contenders)
    result = od.study(seeds=2, canvases=2)
    assert result["truth_blind"]["map50"] == 0
    for seed, x in enumerate(strewn[::2]):
        np.testing.assert_array_equal(x, digits.load_split(seed=seed).x_test)
    assert len(strewn) == 4 and (trained[0].x_train != trained[1].x_train).any()


@pytest.mark.bar
def test_study_runs_at_a_tiny_size(capsys):
    result = od.study(seeds=1, canvases=6, scale=0.2, steps=5)
    assert "windows, kernel" in capsys.readouterr().out
    assert result["blobs_kernel"]["map50"] > 0.2
    assert result["windows_kernel"]["millions"] > result["network"]["millions"]


# ---------------------------------------------------------------- bars


@pytest.fixture(scope="module")
def full():
    part = digits.hold_out(*SPLIT[:2])
    return od.train(od.strew(*part[:2], n=3000, noise=0, seed=1))


@pytest.mark.bar
def test_digits_are_found(full):
    test = od.strew(*SPLIT[2:], n=500, seed=3)
    found = od.detect(full, test.x, threshold=0.05)
    assert od.mean_ap(found, test.truth) >= 0.93
    assert od.mean_ap(found, test.truth, least=0.75) >= 0.78


@pytest.mark.bar
def test_the_tiny_and_the_covered_are_missed(full):
    """The failure that the page shows; if it goes away, the page must change."""
    tiny = od.strew(*SPLIT[2:], n=100, sizes=(4, 5), seed=5)
    crowd = od.strew(*SPLIT[2:], n=100, count=(5, 7), overlap=0.8, seed=4)
    usual = od.strew(*SPLIT[2:], n=100, seed=3)
    score = [
        od.mean_ap(od.detect(full, s.x, threshold=0.05), s.truth) for s in (tiny, crowd, usual)
    ]
    assert score[0] < 0.2 and score[1] < score[2] - 0.15
