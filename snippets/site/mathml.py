"""Markdown extension: `$…$` and `$$…$$` become MathML, with the TeX source in `alttext`."""

import html
import logging
import re
from functools import lru_cache

import math_core
from markdown import Extension
from markdown.inlinepatterns import InlineProcessor

BLOCK = r"\$\$(?P<tex>.+?)\$\$"
# A price such as $5 is not a formula: no space inside the dollars, no digit after them.
INLINE = r"(?<![\\$])\$(?![\s$])(?P<tex>[^$]+?)(?<![\s\\])\$(?![\d$])"
log = logging.getLogger("mkdocs.mathml")


@lru_cache
def _converter() -> math_core.LatexToMathML:
    return math_core.LatexToMathML(fancy_error=False)


@lru_cache(maxsize=4096)
def to_mathml(tex: str, *, block: bool = False) -> str:
    """MathML for a TeX formula. Raises ValueError, one line, on an unknown or broken command."""
    tex = " ".join(tex.split())
    try:
        mathml = _converter().convert_with_local_state(tex, displaystyle=block)
    except math_core.LatexError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return mathml.replace("<math", f'<math alttext="{html.escape(tex, quote=True)}"', 1)


class _Formula(InlineProcessor):
    def __init__(self, pattern: str, md, *, block: bool):
        super().__init__(pattern, md)
        self.compiled_re = re.compile(pattern, re.DOTALL)
        self.block = block

    def handleMatch(self, m, data):
        try:
            mathml = to_mathml(m["tex"], block=self.block)
        except ValueError as error:
            log.warning("formula $%s$: %s", m["tex"], error)
            mathml = f"<code>{html.escape(m[0])}</code>"
        return self.md.htmlStash.store(mathml), m.start(0), m.end(0)


class MathExtension(Extension):
    """Formulas come after code spans (190) and before backslash escapes (180)."""

    def extendMarkdown(self, md):
        md.ESCAPED_CHARS.append("$")
        md.inlinePatterns.register(_Formula(BLOCK, md, block=True), "math-block", 186)
        md.inlinePatterns.register(_Formula(INLINE, md, block=False), "math-inline", 185)


def makeExtension(**kwargs):
    return MathExtension(**kwargs)
