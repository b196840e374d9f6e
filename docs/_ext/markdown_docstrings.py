"""Docstrings are Google-style with Markdown inside: code in single backticks, `$` formulas, `|` tables."""

from __future__ import annotations

import re
from typing import Any

TABLE_ROW = re.compile(r"^(\s*)\|(.*)\|\s*$")
TABLE_RULE = re.compile(r"^[\s|:-]+$")
BAR = re.compile(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")  # one that is outside of backticks: |ω| in a formula is no border


def setup(app: Any) -> dict[str, bool]:
    """Rewrite docstrings before napoleon sees them."""
    app.connect("autodoc-process-docstring", _rewrite, priority=400)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _rewrite(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "\n".join(lines))
    text = re.sub(r"^( *)\$\$(.+?)\$\$[ \t]*$", _display, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?<![\\$`\w])\$([^$]+?)\$(?!\$)", _inline, text)
    lines[:] = _literal_blocks(_tables(text.split("\n")))


def _skip(_app: Any, _what: str, _name: str, member: Any, _skipped: bool, _options: Any) -> bool | None:
    # Fields of a named tuple come with a docstring that says nothing.
    return True if str(getattr(member, "__doc__", "")).startswith("Alias for field number") else None


def _display(match: re.Match[str]) -> str:
    body = [f"{match[1]}   {line.strip()}" for line in match[2].strip().splitlines()]
    return "\n".join(["", f"{match[1]}.. math::", "", *body, ""])


def _inline(match: re.Match[str]) -> str:
    # The escaped blank ends the role where a letter or a digit follows.
    return f":math:`{' '.join(match[1].split())}`\\ "


def _tables(lines: list[str]) -> list[str]:
    """Every run of rows between bars as a list-table."""
    out: list[str] = []
    inside = False
    for line in lines:
        row = TABLE_ROW.match(line)
        if row and not inside:
            out += ["", f"{row[1]}.. list-table::", f"{row[1]}   :header-rows: 1", ""]
        inside = row is not None
        if row is None:
            out.append(line)
        elif not TABLE_RULE.match(row[2]):
            cells = [cell.strip() for cell in BAR.split(row[2])]
            out += [f"{row[1]}   {'  -' if column else '* -'} {cell}" for column, cell in enumerate(cells)]
    return out


def _literal_blocks(lines: list[str]) -> list[str]:
    """Formulas in an indented paragraph before the first section become a literal block, not a quotation."""
    out: list[str] = []
    for i, line in enumerate(lines):
        if re.match(r"^[A-Z]\w*:\s*$", line):
            return out + lines[i:]
        before = next((earlier for earlier in reversed(out) if earlier.strip()), "")
        opens = line.startswith("    ") and out and not out[-1].strip()
        if opens and before and not before.startswith((" ", "..", "- ")):
            out += ["::", ""]
        out.append(line)
    return out
