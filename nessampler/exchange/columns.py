"""Which of several named columns holds the works."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal

from nessampler.errors import InputError

__all__ = ["Direction", "bare_name", "choose", "named_unit"]

Direction = Literal["forward", "reverse"]
_OWN = {
    "forward": {"forward", "w_f", "wf", "work_forward", "forward_work", "work_f"},
    "reverse": {"reverse", "backward", "w_r", "wr", "work_reverse", "reverse_work", "work_r"},
}
_UNIT = re.compile(r"[\s_]*(?:[\[(]\s*(kT|kJ/mol|kcal/mol)\s*[\])]|[\s_](kT))\s*$")


def named_unit(name: str) -> str | None:
    """The unit that a column's name ends with, if it does.

    >>> named_unit("work (kJ/mol)"), named_unit("W_kT"), named_unit("work")
    ('kJ/mol', 'kT', None)
    """
    match = _UNIT.search(name)
    return None if match is None else match[1] or match[2]


def bare_name(name: str) -> str:
    """A column's name without its unit, in small letters.

    >>> bare_name("Work (kJ/mol)")
    'work'
    """
    return _UNIT.sub("", name).strip().lower()


def choose(
    names: Sequence[str | None],
    wanted: str | None,
    source: str,
    direction: Direction,
    candidates: Sequence[int] | None = None,
) -> int:
    """The place of the column that is asked for, by name or by number from 1, or that can be meant alone.

    Args:
        names: of all columns, None where one has none.
        candidates: places of those that may be meant without being named; all by default.

    Raises:
        InputError: an unknown column, or none named where several may be meant.

    >>> choose(["time", "work"], "2", "w.csv", "forward"), choose(["time", "Work (kT)"], None, "w.csv", "forward")
    (1, 1)
    """
    option = "--column" if direction == "forward" else "--reverse-column"
    bare = [None if name is None else bare_name(name) for name in names]
    if wanted is not None:
        return _find(names, bare, wanted, source, option)
    places = list(range(len(names)) if candidates is None else candidates)
    if len(places) == 1:
        return places[0]
    for meant in (_OWN[direction], {"work", "works", "w"}):
        found = [place for place in places if bare[place] in meant]
        if len(found) == 1:
            return found[0]
    known = [names[place] or str(place + 1) for place in places]
    if not known:
        raise InputError(f"works are numbers: {source} has no column of numbers")
    raise InputError(f"{source} has {len(known)} columns that may hold works ({_list(known)}): name one with {option}")


def _find(names: Sequence[str | None], bare: Sequence[str | None], wanted: str, source: str, option: str) -> int:
    same = [place for place, name in enumerate(names) if name == wanted]
    same = same or [place for place, name in enumerate(bare) if name == wanted.strip().lower()]
    if len(same) == 1:
        return same[0]
    if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    known = [name for name in names if name is not None]
    near = get_close_matches(wanted.lower(), [name.lower() for name in known], n=1, cutoff=0.5)
    close = next((name for name in known if near and name.lower() == near[0]), None)
    if len(same) > 1:
        raise InputError(f"{source} has {len(same)} columns {wanted!r}: name one by its number with {option}")
    hint = f"did you mean {close!r}?" if close else f"columns: {_list(known)}" if known else "columns go by number"
    raise InputError(f"{source} has no column {wanted!r} ({option}) among its {len(names)}; {hint}")


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown}, … {len(names)} in all"
