"""What is wrong with a value, in the words of this house: the rule, and what was received."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["broken"]

LONGEST = 80
_WORDS = (
    ("Value error, ", ""),
    ("Input should ", "must "),
    ("must be a valid ", "must be a "),
    (", unable to parse string as a number", ""),
    (", unable to parse string as an integer", ""),
    ("a boolean, unable to interpret input", "true or false"),
    ("a integer", "an integer"),
    ("a tuple", "a list"),
)


def broken(where: str, messages: Sequence[str], value: Any) -> str:
    """One line from what pydantic says about a value, all of it where several alternatives were tried.

    >>> broken("samples", ["Input should be a valid dictionary or instance of Samples"], 3)
    '`samples` must be a table: got 3'
    >>> broken("base.mean", ["Input should be a valid number", "Input should be a valid list"], "x")
    "`base.mean` must be a number or a list: got 'x'"
    """
    rules = list(dict.fromkeys(_rule(message) for message in messages))
    text = " or ".join([rules[0], *(rule.removeprefix("must be ") for rule in rules[1:])])
    if not where:
        return text
    named = f"`{where}` {text}" if text.startswith("must ") else f"`{where}`: {text}"
    return named if "got " in text else f"{named}: got {_received(value)}"


def _rule(message: str) -> str:
    if message.startswith("Input should be a valid dictionary"):
        return "must be a table"
    for theirs, ours in _WORDS:
        message = message.replace(theirs, ours)
    return message.replace(", got a number with a fractional part", "")


def _received(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
