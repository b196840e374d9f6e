"""Formulas as MathML, which browsers draw themselves: no script, no network."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging


def setup(app: Any) -> dict[str, bool]:
    """Offer the renderer that `html_math_renderer = "mathml"` asks for."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node, node.astext()))
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.math_block) -> None:
    tex = node.astext().strip()
    if r"\\" in tex and "aligned" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    translator.body.append(f'<div class="math">{_mathml(node, tex, as_block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Node, tex: str, **options: bool) -> str:
    # What docutils' converter does not know: two commands, and that \frac12 is a half. MathML's fences grow by themselves.
    known = re.sub(r"\\[Bb]ig(?![a-z])", "", tex.replace(r"\dots", r"\ldots"))
    known = re.sub(r"(\\[td]?frac)(\d)(\d)", r"\1{\2}{\3}", known)
    try:
        return tex2mathml(known, **options)
    except MathError as error:
        logging.getLogger(__name__).warning("no MathML for %r: %s", tex, error, location=node)
        return f"<code>{escape(tex)}</code>"
