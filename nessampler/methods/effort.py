"""How much a difference may spend, rung by rung."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nessampler.errors import InputError
from nessampler.methods.arguments import check_choice, check_fractions, check_kind, check_number, check_whole
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.ledger import Prices

__all__ = ["Effort", "Stopping", "Training", "Trunks"]

Stopping = Literal["works", "loss"]
Trunks = Literal[1, 2]


@dataclass(frozen=True)
class Training:
    """The learned rung: how large, how long, how finely sampled. Zero `steps` leave the analytic fields alone.

    Attributes:
        interpolation: interpolant, pairs and pace of the network on Gaussian fields. Where anything but the pace is
            given, fields between mixtures are left out, whose pairs and interpolant are their own.
        trunks: of velocity and score of a network on Gaussian or mixture fields: one that both share, or one each.
        stopping: by what the best weights are kept and a training that goes nowhere is stopped: the BAR error of a few
            held-out samples that are carried both ways, or the held-out loss of the regression.
        patience: twentieths of the training without a new best, after which it stops.
        informed: also try a network that reads the scores of both ends, two gradients per walker and step.
        refine_steps: gradient steps on the spread of recorded works, after the regression; zero leaves them out.

    Raises:
        InputError: counts below one, of steps below zero, a learning rate that is not positive, an unknown stopping,
            trunks other than 1 or 2, or a refinement of fields that are transferred to another schedule.
    """

    steps: int = 1000
    batch_size: int = 512
    learning_rate: float = 5e-3
    width: int = 128
    depth: int = 3
    trunks: Trunks = 1
    sampling_steps: int = 64
    interpolation: Interpolation = field(default_factory=Interpolation)
    patience: int = 6
    stopping: Stopping = "works"
    informed: bool = False
    refine_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "refine_steps"):
            check_whole(name, getattr(self, name), 0, _default(self, name))
        for name in ("batch_size", "width", "depth", "sampling_steps", "patience"):
            check_whole(name, getattr(self, name), 1, _default(self, name))
        check_number("learning_rate", self.learning_rate, _default(self, "learning_rate"))
        check_choice("stopping", self.stopping, Stopping, _default(self, "stopping"))
        check_choice("trunks", self.trunks, Trunks, _default(self, "trunks"))
        check_kind("interpolation", self.interpolation, Interpolation, "pass Interpolation(Trigonometric())")
        if self.refine_steps and self.interpolation.transfer is not None:
            raise InputError(
                f"fields are refined under the schedule they are sampled under: got refine_steps={self.refine_steps} "
                "and a transfer; leave out one of them"
            )


@dataclass(frozen=True)
class Effort:
    """How much to spend. The defaults suit a molecule of some tens of atoms.

    Attributes:
        blocks: fractions of the samples that fit, select and evaluate, in time order.
        fields_steps: Langevin steps along analytic interpolant fields.
        switching_steps: Langevin steps of a switching path.
        tuning_samples: samples of each end that tune step sizes.
        feat: network, training and sampling of the learned rung.
        prices: relative price of an evaluation of either state, or of a network.

    Raises:
        InputError: blocks that are not three positive fractions adding up to one; steps or samples below one.

    Example:
        >>> from nessampler.methods.effort import Training
        >>> effort = Effort(blocks=(0.5, 0.25, 0.25), feat=Training(steps=300, width=32, depth=2))
        >>> sum(effort.blocks), effort.feat.steps, effort.feat.batch_size
        (1.0, 300, 512)
    """

    blocks: tuple[float, float, float] = (0.4, 0.2, 0.4)
    fields_steps: int = 64
    switching_steps: int = 12
    tuning_samples: int = 150
    feat: Training = field(default_factory=Training)
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        check_fractions(self.blocks)
        for name in ("fields_steps", "switching_steps", "tuning_samples"):
            check_whole(name, getattr(self, name), 1, _default(self, name))
        check_kind("feat", self.feat, Training, "pass Training(steps=1000)")
        check_kind("prices", self.prices, Prices, "pass Prices(1.0, 1.0, 1.0)")


def _default(settings: Training | Effort, name: str) -> str:
    return f"leave it out for {getattr(type(settings), name)}"
