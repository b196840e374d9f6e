"""What stands on top of every page about a ΔF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nessampler import _words as words
from nessampler.runs.page import Answer

__all__ = ["difference_answer", "interval_facts"]


def difference_answer(result: Mapping[str, Any], line: str, facts: Sequence[str]) -> Answer:
    """ΔF in kT, in kcal/mol where the temperature is known, and the verdict.

    Args:
        result: the contents of `result.json`.
        line: what was compared.
        facts: sentences that belong to the answer.

    Example:
        >>> answer = difference_answer({"delta_f": {"value": 1.0, "std_error": 0.1}}, "A → B", [])
        >>> answer.value, answer.level
        ('1.00 ± 0.10 kT', 'not judged')
    """
    delta_f, molar = result.get("delta_f"), result.get("delta_f_kcal_per_mol")
    temperature = result.get("temperature")
    return Answer(
        subject="free energy difference",
        line=line,
        quantity="ΔF = F<sub>B</sub> − F<sub>A</sub>",
        unknown="ΔF",
        value=f"{words.plus_minus(delta_f)} kT" if words.get(delta_f, "value") is not None else None,
        converted=f"{words.plus_minus(molar)} kcal/mol" if words.get(molar, "value") is not None else None,
        at=f"{temperature:g}\N{NO-BREAK SPACE}K" if temperature is not None else None,
        level=words.get(result, "verdict", "level") or "not judged",
        text=words.get(result, "verdict", "text"),
        facts=facts,
    )


def interval_facts(result: Mapping[str, Any]) -> Iterator[str]:
    """The interval as a sentence, where there is one.

    >>> list(interval_facts({"delta_f": {"value": 1.0, "std_error": 0.1, "ci95": [0.8, 1.2]}}))
    ['95 % interval: 0.80 to 1.20 kT.']
    """
    delta_f, molar = result.get("delta_f"), result.get("delta_f_kcal_per_mol")
    if words.get(delta_f, "ci95"):
        also = f", or {words.interval(molar)} kcal/mol" if words.get(molar, "ci95") else ""
        yield f"95 % interval: {words.interval(delta_f)} kT{also}."
