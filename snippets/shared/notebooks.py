"""One helper for notebooks: a figure that is part of the page, not a picture on it."""

import html
import sys

import matplotlib.pyplot as plt

from snippets.shared.plots import INK, PAPER
from snippets.site.figures import to_svg

# In Jupyter a figure brings its own paper; on the built page it stands on the reader's.
OWN_PAPER = f' style="background: {PAPER}; color: {INK}"'


def show(alternative: str) -> None:
    """Show the current figure, as text that follows the colours of its surroundings.

    alternative: one sentence for a reader who does not see the figure. Outside Jupyter this is
    `plt.show()`.
    """
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        plt.show()
        return
    from IPython.display import HTML, display

    figure = plt.gcf()
    display(HTML(to_html(figure, alternative)))
    plt.close(figure)


def to_html(figure, alternative: str) -> str:
    """A `figure` element; the text alternative also keeps its identifiers apart from others'."""
    if len(alternative.split()) < 4:
        raise ValueError(f"say what the figure shows in a sentence, not {alternative!r}")
    svg = to_svg(figure, name=alternative)
    return (
        f'<figure{OWN_PAPER}><div role="img" aria-label="{html.escape(alternative)}">\n'
        f"{svg}</div></figure>"
    )
