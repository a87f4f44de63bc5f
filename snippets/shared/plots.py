"""One look for every figure: no background, few lines, colours that follow the page's scheme.

The colours below are the light scheme's. When a figure is recorded, `snippets.site.figures`
writes them as `currentColor` and `var(--plot-1)` ... so that one file serves light and dark.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

INK = "#1c2430"
MUTED = "#6b7480"
PAPER = "#ffffff"
# Blue is the discriminative family's colour, orange the generative one's, on every page.
SERIES = ("#2257a8", "#b4540a", "#1b7a4b", "#8a3a8f", "#8a6d00", "#b3263e")
DISCRIMINATIVE, GENERATIVE = SERIES[0], SERIES[1]
MARKERS = ("o", "s", "^", "D", "v", "P")

STYLE = {
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "axes.prop_cycle": plt.cycler(color=SERIES, marker=MARKERS),
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
}


def subplots(
    rows: int = 1, columns: int = 1, *, width: float = 5.4, height: float = 3.2, **options
) -> tuple:
    """`plt.subplots` in the site's style; width and height in inches, 5.4 fills a column."""
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def ink_map(colour: str = INK) -> LinearSegmentedColormap:
    """From transparent (0) to the colour (1): ink on whatever paper the reader has chosen."""
    red, green, blue = to_rgb(colour)
    return LinearSegmentedColormap.from_list(
        "ink", [(red, green, blue, 0.0), (red, green, blue, 1.0)]
    )


def mosaic(images: np.ndarray, *, columns: int, gap: int = 1) -> np.ndarray:
    """Lay (n, 64) or (n, side, side) images out in one array, NaN between them."""
    images = np.asarray(images, dtype=float)
    if images.ndim == 2:
        side = round(images.shape[1] ** 0.5)
        images = images.reshape(-1, side, side)
    count, side, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap), np.nan)
    for k, image in enumerate(images):
        top, left = (k // columns) * (side + gap), (k % columns) * (side + gap)
        sheet[top : top + side, left : left + side] = image
    return sheet


def draw_digits(
    images: np.ndarray, *, columns: int = 10, axes: Axes | None = None, title: str | None = None
) -> Figure:
    """Draw images in [0, 1] as ink on paper, row by row; values outside are clipped.

    A hairline frames each image, so that an empty one is still seen.
    """
    images = np.asarray(images, dtype=float)
    sheet = mosaic(images, columns=columns)
    if axes is None:
        rows = -(-len(images) // columns)
        _, axes = subplots(width=5.4, height=5.4 * rows / columns + (0.3 if title else 0.0))
    axes.imshow(
        np.ma.masked_invalid(np.clip(sheet, 0, 1)),
        cmap=ink_map(),
        vmin=0,
        vmax=1,
        interpolation="none",
    )
    side = (sheet.shape[1] + 1) // columns - 1
    for k in range(len(images)):
        corner = ((k % columns) * (side + 1) - 0.5, (k // columns) * (side + 1) - 0.5)
        axes.add_patch(plt.Rectangle(corner, side, side, fill=False, lw=0.3, ec=MUTED))
    axes.axis("off")
    if title:
        axes.set_title(title)
    return axes.figure
