"""How an end state is sampled, whichever engine does it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Dynamics"]

SEGMENTS = 10  # restart points per replica: at most a tenth of one is lost to an interruption


@dataclass(frozen=True)
class Dynamics:
    """How an end state is sampled. Lengths in ps, per replica; the interval is between stored frames.

    Temperature in kelvin, friction in 1/ps; the platform is OpenMM's, or "torch" for replicas in one batch. There every
    replica may have `exchange` companions, in the state with all but bonds and angles weakened step by step down to
    `weakest`, with which it is exchanged: see `WeakenedExchange`.

    Example:
        >>> how = Dynamics(300.0, 0.002, friction=1.0, replicas=4, equilibration=2.0, production=8.0, interval=0.1)
        >>> how.stride, how.burn_in, how.frames, how.steps
        (50, 20, 100, 20000)
    """

    temperature: float
    timestep: float
    friction: float
    replicas: int
    equilibration: float
    production: float
    interval: float
    platform: str = "Reference"
    exchange: int = 0
    weakest: float = 0.5

    @property
    def stride(self) -> int:
        """Steps between stored frames."""
        return max(1, round(self.interval / self.timestep))

    @property
    def frames(self) -> int:
        """Stored frames per replica, equilibration included."""
        return round((self.equilibration + self.production) / self.interval)

    @property
    def burn_in(self) -> int:
        """Frames of the prescribed equilibration, which are stored but never used."""
        return round(self.equilibration / self.interval)

    @property
    def steps(self) -> int:
        """MD steps of all replicas and their companions together, each one gradient evaluation."""
        return self.replicas * (1 + self.exchange) * self.frames * self.stride
