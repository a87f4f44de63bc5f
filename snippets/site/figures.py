"""Write a Matplotlib figure as an SVG that follows the page: its colours, its font, its width.

The same figure gives the same bytes: no date, salted identifiers, coordinates to a hundredth.
"""

import io
import re

from snippets.shared import plots

COLOURS = {
    plots.INK: "currentColor",
    plots.MUTED: f"var(--plot-muted,{plots.MUTED})",
    plots.PAPER: f"var(--md-default-bg-color,{plots.PAPER})",
    **{colour: f"var(--plot-{k},{colour})" for k, colour in enumerate(plots.SERIES, 1)},
}
HREF = re.compile(r'(?:xlink:)?href="data:image/[^"]*"')


def to_svg(figure, *, name: str) -> str:
    """SVG text of a figure; `name` salts its identifiers, so that two on one page never collide.

    Raises ValueError for a colour that is not in `snippets.shared.plots`: it would be unreadable
    in one of the two schemes.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": name, "image.composite_image": False}
    ):
        figure.savefig(buffer, format="svg", dpi=144, metadata={"Date": None, "Creator": None})
    return _follow_page(buffer.getvalue())


# Words between tags, or a coordinate with more decimals than a screen shows.
WORDS_OR_LONG = re.compile(r">(?P<words>[^<>]+)<|-?\d+\.\d{3,}")


def _short(match: re.Match) -> str:
    """Coordinates to a hundredth of a pixel; what a reader reads stays as it was printed."""
    if match["words"]:
        return match[0]
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _follow_page(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    # Matplotlib's style sheet says `*`, which would restyle the whole page.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, count=1, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    images: list[str] = []
    svg = HREF.sub(
        lambda m: images.append(m[0].replace("xlink:", "")) or f"@{len(images) - 1}@", svg
    )
    svg = svg.replace("xlink:href", "href")
    svg = WORDS_OR_LONG.sub(_short, svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", _colour, svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 inherit", svg)
    svg = re.sub(r"font: (?:(?P<w>\d+|bold|italic) )?(?P<s>[\d.]+px) inherit", _font, svg)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", svg)
    svg = re.sub(r"<svg[^>]*>", _root, svg, count=1, flags=re.S)
    svg = _unwrap(svg)
    svg = re.sub(r"@(\d+)@", lambda m: images[int(m[1])], svg)
    return svg + "\n"


def _unwrap(svg: str) -> str:
    """Drop the groups that say nothing: half of the file, and most of the builder's work."""
    svg = re.sub(r"\s+", " ", svg).replace("> <", "><").replace(' "', '"')
    groups = re.compile(r"<g>|<g [^>]*>|</g>")
    kept: list[bool] = []

    def keep(match: re.Match) -> str:
        if match[0] == "</g>":
            return match[0] if kept.pop() else ""
        kept.append(match[0] != "<g>")
        return match[0] if kept[-1] else ""

    return re.sub(r"(</(?:g|text|path|defs|clipPath)>|/>)(?=<)", r"\1\n", groups.sub(keep, svg))


def _font(match: re.Match) -> str:
    weight = {"bold": "font-weight: bold; ", "italic": "font-style: italic; "}.get(match["w"], "")
    if match["w"] and match["w"].isdigit() and match["w"] != "400":
        weight = f"font-weight: {match['w']}; "
    return f"{weight}font-size: {match['s']}"


def _colour(match: re.Match) -> str:
    colour = match[0].lower()
    if colour == "#000000":
        return "currentColor"
    if colour not in COLOURS:
        raise ValueError(
            f"the figure uses colour {colour}, which does not follow the reader's scheme: "
            "use INK, MUTED, PAPER or SERIES of snippets.shared.plots, or rasterise that part"
        )
    return COLOURS[colour]


def _root(match: re.Match) -> str:
    box = re.search(r'viewBox="([^"]*)"', match[0])[1]
    width, height = (float(v) * 96 / 72 for v in box.split()[2:])
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="{box}" '
        f'width="{width:.0f}" height="{height:.0f}" aria-hidden="true" '
        'style="fill: currentColor; stroke-linejoin: round; stroke-linecap: butt">'
    )
