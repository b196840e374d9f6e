"""What the user can mend: one exception type, whose message states the rule, what was received and the remedy."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Something the caller gave cannot be used.

    The message states the rule, what was received and the remedy, on one line whatever was received. The command line
    prints it without a traceback and exits with status 2; from Python it is an ordinary `ValueError`.

    >>> raise InputError("a name has no line breaks: got a\\nb")
    Traceback (most recent call last):
    nessampler.errors.InputError: a name has no line breaks: got a b
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))
