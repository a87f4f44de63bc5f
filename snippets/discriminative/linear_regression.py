"""Linear regression: a weighted sum of measurements that answers with a number and its spread."""

# --8<-- [start:imports]
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.stats import t as student
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from snippets.shared import plots

Array = np.ndarray
NAMES = ("age", "sex", "BMI", "blood pressure", "cholesterol", "LDL",
         "HDL", "cholesterol / HDL", "log triglycerides", "glucose")
# --8<-- [end:imports]


# --8<-- [start:data]
class Split(NamedTuple):
    x_train: Array  # (patients, 10), in the units of the clinic
    y_train: Array  # (patients,) progression after a year, 25 to 346
    x_test: Array
    y_test: Array


def load_split(*, seed: int = 0, test: int = 100) -> Split:
    """442 diabetes patients, ten measurements each (Efron et al., 2004).

    scaled=False: scikit-learn's scaled copy has been centred with the
    patients that are to be tested.
    """
    x, y = load_diabetes(return_X_y=True, scaled=False)
    rows = np.arange(len(x))
    fit, held = train_test_split(rows, test_size=test, random_state=seed)
    return Split(x[fit], y[fit], x[held], y[held])


# --8<-- [end:data]


# --8<-- [start:model]
class Model(NamedTuple):
    mean: Array  # (features,) of the training rows
    scale: Array  # (features,) their standard deviation
    weights: Array  # (features,) points per standard deviation
    bias: float  # the mean of y
    triangle: Array  # (features, features): R of the QR factorisation
    rows: int  # that it was trained on
    freedom: float  # rows that are left to measure the noise by
    noise: float  # sigma, in the units of y


def predict(model: Model, x: Array) -> Array:
    """The mean of p(y|x) for rows (n, features): an array (n,)."""
    return standardise(model, x) @ model.weights + model.bias


# --8<-- [end:model]
# --8<-- [start:checks]
def standardise(model: Model, x: Array) -> Array:
    x = np.asarray(x, dtype=float)
    width = len(model.mean)
    if x.ndim != 2:
        raise ValueError(f"expected shape (n, {width}), got {x.shape}")
    if x.shape[1] != width:
        raise ValueError(f"expected rows of {width} numbers, "
                         f"got {x.shape[1]}")
    if not np.isfinite(x).all():
        raise ValueError("expected numbers, got NaN: fill in what is missing")
    return (x - model.mean) / model.scale


def check_rows(x: Array, y: Array, ridge: float) -> tuple[Array, Array]:
    """x (n, features) and y (n,) as floats, or what is wrong with them."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 2 or y.shape != (len(x),):
        raise ValueError(f"expected x (n, features) and y (n,), "
                         f"got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("expected numbers, got NaN: fill in what is missing")
    if not ridge >= 0:
        raise ValueError(f"expected ridge >= 0, got {ridge}")
    return x, y


# --8<-- [end:checks]


# --8<-- [start:normal]
def solve_normal(z: Array, y: Array, *, ridge: float = 0.0) -> Array:
    """The normal equations: the residuals are at right angles to z."""
    return np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), z.T @ y)


# --8<-- [end:normal]


# --8<-- [start:qr]
def solve_qr(z: Array, y: Array, *, ridge: float = 0.0) -> tuple:
    """The same weights without squaring z, and the triangle R."""
    features = z.shape[1]
    # The penalty is as good as so many more patients, all with y = 0.
    z = np.vstack([z, np.sqrt(ridge) * np.eye(features)])
    y = np.append(y, np.zeros(features))
    q, r = np.linalg.qr(z)  # z = q @ r, the columns of q are orthonormal
    return solve_triangular(r, q.T @ y), r


# --8<-- [end:qr]
# --8<-- [start:leverage]
def leverage(model: Model, x: Array) -> Array:
    """How far each row lies from the training rows: an array (n,)."""
    z = standardise(model, x)
    reach = solve_triangular(model.triangle, z.T, trans=1)
    return 1 / model.rows + (reach**2).sum(axis=0)


# --8<-- [end:leverage]


# --8<-- [start:train]
def train(x: Array, y: Array, *, ridge: float = 0.0) -> Model:
    """Least squares; ridge > 0 adds ridge * sum(weights**2) to it.

    x: (n, features); y: (n,). Raises ValueError for bad input and for
    columns that follow from each other, unless ridge > 0.
    """
    x, y = check_rows(x, y, ridge)
    scale = np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 1)
    z = (x - x.mean(axis=0)) / scale
    if not ridge and (rank := np.linalg.matrix_rank(z)) < z.shape[1]:
        raise ValueError(f"{z.shape[1]} columns, but only {rank} of them "
                         "independent: drop some, or give ridge > 0")
    weights, triangle = solve_qr(z, y - y.mean(), ridge=ridge)
    model = Model(x.mean(axis=0), scale, weights, float(y.mean()),
                  triangle, len(x), np.nan, np.nan)
    freedom = len(x) - leverage(model, x).sum()
    if freedom < 0.5:
        raise ValueError(f"{len(x)} rows leave nothing to measure noise by")
    squares = ((y - predict(model, x)) ** 2).sum()
    return model._replace(freedom=freedom, noise=np.sqrt(squares / freedom))


# --8<-- [end:train]


# --8<-- [start:interval]
def spread(model: Model, x: Array) -> Array:
    """Of a new y around its prediction: the noise, and our own doubt."""
    return model.noise * np.sqrt(1 + leverage(model, x))


def interval(model: Model, x: Array, *, level: float = 0.9) -> Array:
    """Lower and upper end for a new y: (n, 2). Exact for normal noise,
    equal everywhere, around a straight line; ridge makes it approximate."""
    half = student.ppf((1 + level) / 2, model.freedom) * spread(model, x)
    return predict(model, x)[:, None] + half[:, None] * [-1, 1]


def chance_above(model: Model, x: Array, limit: float) -> Array:
    """p(y > limit | x): an array (n,)."""
    gap = (limit - predict(model, x)) / spread(model, x)
    return student.sf(gap, model.freedom)


# --8<-- [end:interval]


# --8<-- [start:draw_bells]
def draw_bells(line: LinearRegression, x, y, *, at, axes) -> None:
    """Rows (n, 1) as points, the line, and p(y|x) sideways at a few x."""
    ends = np.array([[x.min()], [x.max()]])
    axes.scatter(x, y, s=9, color=plots.MUTED, lw=0, rasterized=True)
    axes.plot(ends, line.predict(ends), marker="")
    noise, points = (y - line.predict(x)).std(), np.linspace(-60, 420, 120)
    for value in at:
        gap = (points - line.predict([[value]])) / noise
        bell = value + 4 * np.exp(-(gap**2) / 2)
        axes.fill_betweenx(points, value, bell, alpha=0.35, lw=0,
                           color=plots.DISCRIMINATIVE)
        axes.axvline(value, color=plots.MUTED, lw=0.6, marker="")
    axes.set(ylim=(-40, 400))


# --8<-- [end:draw_bells]
# --8<-- [start:draw_intervals]
def draw_intervals(model, x: Array, y: Array, *, axes) -> Array:
    """Each row's interval, in the order of the predictions; True: missed."""
    order = np.argsort(predict(model, x))
    low, high = interval(model, x[order]).T
    y, place = y[order], np.arange(len(y))
    missed = (y < low) | (y > high)
    axes.vlines(place, low, high, color=plots.DISCRIMINATIVE, alpha=0.35)
    axes.plot(place, (low + high) / 2, marker="")
    for group, marker, tint in ((~missed, "o", plots.MUTED),
                                (missed, "X", plots.SERIES[5])):
        axes.scatter(place[group], y[group], marker=marker, color=tint,
                     s=14 if marker == "o" else 45, lw=0, zorder=3)
    axes.set(xlabel="test patients, by prediction", ylabel="progression")
    return missed


# --8<-- [end:draw_intervals]
# --8<-- [start:powers]
def powers(x: Array, degree: int) -> Array:
    """x, x², ... of one column (n,): an array (n, degree)."""
    return np.column_stack([x**k for k in range(1, degree + 1)])


def rmse(predicted: Array, y: Array) -> float:
    """Root mean squared error, in the units of y."""
    return float(np.sqrt(((predicted - y) ** 2).mean()))


# --8<-- [end:powers]
# --8<-- [start:redraw]
def redraw(x: Array, y: Array, *, rows: int, times: int, ridge: float,
             seed: int = 0) -> Array:
    """Weights of models trained on rows drawn anew: (times, features)."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(x), size=rows) for _ in range(times))
    return np.array([train(x[i], y[i], ridge=ridge).weights for i in draws])


# --8<-- [end:redraw]


# --8<-- [start:choose]
def choose_ridge(x: Array, y: Array, strengths, *, folds: int = 5) -> float:
    """The ridge with the smallest error on rows that were left out."""
    rows = np.random.default_rng(0).permutation(len(x))
    parts = np.array_split(rows, folds)
    rests = [np.setdiff1d(rows, part) for part in parts]

    def error(ridge):
        models = [train(x[rest], y[rest], ridge=ridge) for rest in rests]
        return np.mean([rmse(predict(model, x[part]), y[part]) ** 2
                        for model, part in zip(models, parts)])

    return float(min(strengths, key=error))


# --8<-- [end:choose]


def three(x: Array, y: Array, new: Array) -> Array:
    """Least squares on the three columns that predict left-out rows best."""
    machine = LinearRegression()
    best = SequentialFeatureSelector(machine, n_features_to_select=3, cv=5).fit(x, y)
    return machine.fit(best.transform(x), y).predict(best.transform(new))


def tuned_ridge(x: Array, y: Array, new: Array) -> Array:
    return predict(train(x, y, ridge=choose_ridge(x, y, 10.0 ** np.arange(-1, 2.6, 0.5))), new)


def tuned(x: Array, y: Array, new: Array, *, machine, **grid) -> Array:
    """A machine of scikit-learn with its settings from the grid by five-fold validation."""
    pipe = Pipeline([("scale", StandardScaler()), ("machine", machine())])
    grid = {f"machine__{setting}": values for setting, values in grid.items()}
    search = GridSearchCV(pipe, grid, scoring="neg_mean_squared_error", cv=5)
    return search.fit(x, y - y.mean()).predict(new) + y.mean()


def contenders() -> dict:
    """Name → a function of x, y and new rows that answers for these."""
    rbf = partial(KernelRidge, kernel="rbf")
    trees = partial(GradientBoostingRegressor, subsample=0.7, random_state=0)
    neighbours = partial(tuned, machine=KNeighborsRegressor, n_neighbors=[5, 10, 15, 20, 30, 50])
    return {
        "mean": lambda x, y, new: np.full(len(new), y.mean()),
        "BMI alone": lambda x, y, new: predict(train(x[:, [2]], y), new[:, [2]]),
        "three measurements": three,
        "least squares": lambda x, y, new: predict(train(x, y), new),
        "ridge": tuned_ridge,
        "nearest neighbours": neighbours,
        "boosted trees": partial(
            tuned, machine=trees, n_estimators=[25, 50, 100], max_depth=[1, 2, 3]
        ),
        "kernel ridge": partial(
            tuned, machine=rbf, alpha=[0.03, 0.1, 0.3, 1], gamma=[0.003, 0.01]
        ),
    }


def coverage(split: Split, *, level: float = 0.9) -> Array:
    """Share of test values inside their interval: of all, and by thirds of the prediction."""
    model = train(*split[:2])
    low, high = interval(model, split.x_test, level=level).T
    inside = (low <= split.y_test) & (split.y_test <= high)
    thirds = np.array_split(np.argsort(predict(model, split.x_test)), 3)
    return np.array([inside.mean(), *(inside[third].mean() for third in thirds)])


def bent(*, seed: int, test: int = 100) -> Split:
    """A made-up world of the same size in which y bends (Friedman, 1991)."""
    x, y = make_friedman1(442, noise=1.0, random_state=seed)
    return Split(x[test:], y[test:], x[:test], y[:test])


def compare(splits: list[Split]) -> dict:
    """Name → the error on each split (splits,) and the mean R², everybody on the same rows."""
    spread = np.array([s.y_test.std() for s in splits])
    errors = {
        name: np.array([rmse(answer(*s[:3]), s.y_test) for s in splits])
        for name, answer in contenders().items()
    }
    return {name: (e, float((1 - (e / spread) ** 2).mean())) for name, e in errors.items()}


def study(*, seeds: int = 20, bends: int = 5, intervals: int = 200) -> dict:
    """Every contender on the same splits, beside least squares; then the coverage."""
    table, result = compare([load_split(seed=seed) for seed in range(seeds)]), {}
    curved = compare([bent(seed=seed) for seed in range(bends)])
    print(f"{seeds} splits            RMSE         minus least squares   R²    R², bent world")
    for name, (error, r2) in table.items():
        gap, sd = error - table["least squares"][0], error.std(ddof=1)
        print(f"{name:<20}{error.mean():.1f} ± {sd:<8.1f}{gap.mean():>5.1f} ± ", end="")
        print(f"{gap.std(ddof=1):<10.1f}{r2:>8.3f}{curved[name][1]:>10.3f}")
        row = {"rmse": error.mean(), "sd": sd, "r2": r2, "gap": gap.mean()}
        row |= {"gap_sd": gap.std(ddof=1), "better": (gap < 0).mean(), "bent": curved[name][1]}
        result[name.replace(" ", "_")] = {key: float(value) for key, value in row.items()}
    inside = np.array([coverage(load_split(seed=seed)) for seed in range(intervals)])
    print(f"\n{intervals} splits: share of new patients inside the 90 % interval")
    for k, name in enumerate(("all", "lowest", "middle", "highest")):
        mean, sd = float(inside[:, k].mean()), float(inside[:, k].std(ddof=1))
        print(f"{name + (' third' if k else ''):<20}{mean:.3f} ± {sd:.3f}")
        result[f"inside_{name}"], result[f"inside_{name}_sd"] = mean, sd
    return result
