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
    try:
        found = tex2mathml(_known(tex), **options)
    except MathError as error:
        logging.getLogger(__name__).warning("no MathML for %r: %s", tex, error, location=node)
        return f"<code>{escape(tex)}</code>"
    return found.replace("<mo>'</mo>", "<mo>\N{PRIME}</mo>")


def _known(tex: str) -> str:
    """What LaTeX reads and docutils' converter does not, in words that it knows."""
    tex = tex.replace(r"\dots", r"\ldots")
    tex = re.sub(r"\\[Bb]ig(?![a-z])", "", tex)
    tex = re.sub(r"\\(log|det|sin|cos)(?![A-Za-z])\s*(?=[A-Za-z\\{])", r"\\\1\\,", tex)  # log x, not logx
    tex = re.sub(r"(\\[td]?frac)(\d)(\d)", r"\1{\2}{\3}", tex)  # \frac12 is a half
    return re.sub(r"\\dot\s*(\\?[A-Za-z]+)_", r"{\\dot{\1}{}}_", tex)  # the index belongs to the dotted symbol
