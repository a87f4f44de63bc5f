"""Our two Markdown extensions: recorded numbers and formulas."""

import logging

import markdown
import pytest

from snippets.site.mathml import MathExtension, to_mathml
from snippets.site.numbers import NumbersExtension, fill, look_up


def test_numbers_are_looked_up_and_formatted(site):
    assert fill("a {{discriminative/line.slope:.1f}} b", site.root) == "a 2.0 b"
    assert look_up("discriminative/line", "run.metrics.slope", site.root) == pytest.approx(2.04)


def test_code_is_left_alone(site):
    text = "`{{discriminative/line.slope}}`"
    assert fill(text, site.root) == text
    md = markdown.Markdown(
        extensions=["pymdownx.superfences", NumbersExtension(root=str(site.root))]
    )
    html = md.convert(
        "```text\n{{discriminative/line.slope}}\n```\n\n{{discriminative/line.slope:.2f}}"
    )
    assert "{{discriminative/line.slope}}" in html and "<p>2.04</p>" in html


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{discriminative/line.slop}}", "has recorded no 'slop'; there is: slope"),
        ("{{discriminative/lime.slope}}", "run `python -m snippets record discriminative/lime`"),
        ("{{discriminative/line.slope:q}}", "format code"),
        ("{{discriminative/line.run.metrics}}", "is a dict, not a number"),
    ],
)
def test_a_missing_number_is_a_warning_that_says_the_mend(site, caplog, text, why):
    md = markdown.Markdown(extensions=[NumbersExtension(root=str(site.root))])
    with caplog.at_level(logging.WARNING, "mkdocs.numbers"):
        md.convert(text)
    assert why in caplog.text


def test_a_minus_is_a_minus(site):
    site.replace("docs/outputs/discriminative/line/run.json", '"slope": 2.04', '"slope": -2.04')
    assert fill("{{discriminative/line.slope:.1f}}", site.root) == "−2.0"


def convert(text: str) -> str:
    return markdown.Markdown(extensions=["tables", MathExtension()]).convert(text)


def test_formulas_become_mathml_with_their_source():
    html = convert(r"Let $p(y\mid x)$ be." "\n\n$$\na = \\frac{b}{c}\n$$\n")
    assert 'alttext="p(y\\mid x)"' in html
    assert '<math alttext="a = \\frac{b}{c}" display="block">' in html and "<mfrac>" in html


@pytest.mark.parametrize("text", ["It costs $5 and $6.", r"It costs \$5 or \$6.", "`$x$`", "$ x $"])
def test_what_is_no_formula(text):
    assert "<math" not in convert(text)


def test_an_unknown_command_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "mkdocs.mathml"):
        convert(r"$\foo x$")
    assert "Unknown command" in caplog.text and "\x1b" not in caplog.text


def test_to_mathml_raises_one_line():
    with pytest.raises(ValueError, match=r'^[^\n]*Unknown command "\\foo"[^\n]*$'):
        to_mathml(r"\foo")
