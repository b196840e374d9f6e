"""What the user can mend: one exception type, whose message states the rule, what was received and the remedy."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Something the caller gave cannot be used.

    The message states the rule, what was received and the remedy. The command line prints it
    without a traceback and exits with status 2; from Python it is an ordinary `ValueError`.
    """
