"""A base by variational inference: the normal that is closest to the target in the direction of its own draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import DenseMass
from nessampler.methods.density.bases import Base
from nessampler.targets import Target
from nessampler.targets.normal import Normal
from nessampler.targets.protocol import energy_and_score

__all__ = ["variational_base"]

SETTLED = 0.5  # of the steps, from which on parameters are averaged
WIDEST = 1e6  # times the start's scale, beyond which a target is taken for one that no normal approximates


def variational_base(
    target: Target,
    *,
    rank: int | None = None,
    steps: int = 600,
    draws: int = 16,
    start_scale: float = 1.0,
    learning_rate: float = 0.05,
    inflation: float = 1.1,
    generator: torch.Generator,
    say: Callable[[str], None] = lambda _: None,
) -> Base:
    r"""The normal $q$ of largest evidence lower bound, by Adam on reparametrised draws.

    $$\mathrm{ELBO}(q) = -\langle U(x) + \log q(x) \rangle_q \le \log Z, \qquad
      x = \mu + L\,\xi, \quad \xi \sim N(0, 1)$$

    or, of low rank, $x = \mu + \sigma\,\xi + F \eta$ with $F$ of shape `(d, rank)`. Gradients go along the draws only
    ("sticking the landing"): $\nabla_\theta x \cdot (\nabla U + \nabla\log q)(x)$, whose noise vanishes where $q$ is
    the target. The learning rate falls to zero along a cosine; parameters are averaged over the second half.

    Where the Laplace base looks at one point, this one looks where the mass is: at the bulk of a skewed target, and at
    a target whose curvature at its mode says little. A normal that maximises the bound is narrower than its target, so
    the base is widened by `inflation`. Of several modes it takes one.

    | symbol | argument | |
    |---|---|---|
    | | `rank` | of the covariance beside its diagonal; 0 for a diagonal one, None for a full one |
    | | `steps`, `draws` | of Adam; each step takes `draws` gradients of the target |
    | | `start_scale` | of the normal about zero to start from |
    | | `learning_rate` | in units of the start's scale |

    Raises:
        InputError: walkers that are not vectors; a rank that is negative or not below d; an energy that is not finite
            at a draw of the normal, which has no edge; a normal that runs away.

    References:
        Kucukelbir et al., Automatic differentiation variational inference, 2017, arXiv:1603.00788, eq. 8;
        Roeder, Wu & Duvenaud, Sticking the landing, 2017, arXiv:1703.09194, eq. 7;
        Ong, Nott & Smith, Gaussian variational approximation with a factor covariance structure, 2018,
        arXiv:1701.03208.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> target = Gaussian(torch.tensor([1.0, -1.0]).double(), torch.tensor([0.5, 2.0]).double())
        >>> base = variational_base(target, inflation=1.0, generator=torch.Generator().manual_seed(0))
        >>> bool((base.target.mean - target.mean).abs().max() < 0.01)
        True
    """
    d = _checked(target, rank, start_scale)
    found = _Parameters.start(d, rank, start_scale, generator)
    optimizer = torch.optim.Adam(found.tensors, lr=learning_rate, betas=(0.9, 0.99))
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    averaged, counted, bound = [torch.zeros_like(p) for p in found.tensors], 0, math.nan
    with torch.enable_grad():
        for step in range(steps):
            x = found.draw(draws, generator)
            energy, score = energy_and_score(target, x.detach())
            _check_finite(energy, x)
            pull = found.score(x.detach()) - score.to(x)  # grad U + grad log q
            optimizer.zero_grad()
            # In units of the start's scale, which the parameters are in too.
            (pull.detach() * x).sum(1).mean().backward()
            optimizer.step()
            fall.step()
            if step + 1 >= SETTLED * steps:
                counted += 1
                bound_now = float((-energy.double() - found.log_density(x.detach())).mean())
                bound = bound_now if math.isnan(bound) else bound + (bound_now - bound) / counted
                for mean, parameter in zip(averaged, found.tensors, strict=True):
                    mean += (parameter.detach() - mean) / counted
    mean, covariance = found.like(averaged).moments()
    widest = float(covariance.diagonal().max().sqrt())
    if not math.isfinite(widest) or max(widest, float(mean.abs().max())) > WIDEST * start_scale:
        raise InputError(
            f"a variational base settles where the density has its mass: after {steps} steps it is {widest:.3g} wide, "
            f"about a mean as far as {float(mean.abs().max()):.3g}; is the density normalisable? If it is, give "
            "base.start_scale its order of magnitude, or use the pilot base"
        )
    say(f"variational base: log Z is above {bound:.4g} by the average of its bound")
    normal = Normal(mean, inflation**2 * covariance)
    return Base(normal, DenseMass(normal.cholesky))


@dataclass(frozen=True)
class _Parameters:
    """Of a normal, in units of `scale`: mean, logarithms of the diagonal, and a triangle or factors if any."""

    scale: float
    tensors: list[Tensor]
    full: bool

    @classmethod
    def start(cls, d: int, rank: int | None, scale: float, generator: torch.Generator) -> _Parameters:
        zero = {"dtype": torch.float64, "device": generator.device}
        tensors = [torch.zeros(d, **zero), torch.zeros(d, **zero)]
        if rank is None:
            tensors.append(torch.zeros(d, d, **zero))
        elif rank > 0:  # not zero, where factors would have no direction to grow in
            tensors.append(0.1 * torch.randn(d, rank, generator=generator, **zero) / math.sqrt(rank))
        return cls(scale, [t.requires_grad_() for t in tensors], rank is None)

    def like(self, tensors: list[Tensor]) -> _Parameters:
        return _Parameters(self.scale, tensors, self.full)

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        mean, log_diagonal, *rest = self.tensors
        options = {"generator": generator, "dtype": torch.float64, "device": generator.device}
        noise = torch.randn(n, len(mean), **options)
        moved = noise * log_diagonal.exp()
        if rest and self.full:
            moved = moved + noise @ rest[0].tril(-1).T
        elif rest:
            moved = moved + torch.randn(n, rest[0].shape[1], **options) @ rest[0].T
        return self.scale * (mean + moved)

    @torch.no_grad()
    def moments(self) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
        mean, log_diagonal, *rest = self.tensors
        if rest and self.full:
            factor = torch.diag(log_diagonal.exp()) + rest[0].tril(-1)
            covariance = factor @ factor.T
        else:
            covariance = torch.diag((2 * log_diagonal).exp())
            covariance = covariance + rest[0] @ rest[0].T if rest else covariance
        return self.scale * mean.detach(), self.scale**2 * covariance

    @torch.no_grad()
    def score(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        r"""$\nabla\log q$."""
        mean, log_diagonal, *rest = self.tensors
        z = x / self.scale - mean
        if rest and self.full:
            factor = torch.diag(log_diagonal.exp()) + rest[0].tril(-1)
            return -torch.cholesky_solve(z.T, factor).T / self.scale
        precision = (-2 * log_diagonal).exp()
        felt = z * precision
        if rest:  # Woodbury
            small = torch.eye(rest[0].shape[1]).to(z) + (rest[0].T * precision) @ rest[0]
            felt = felt - (torch.linalg.solve(small, (felt @ rest[0]).T).T @ rest[0].T) * precision
        return -felt / self.scale

    @torch.no_grad()
    def log_density(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        r"""$\log q$."""
        mean, log_diagonal, *rest = self.tensors
        z, d = x / self.scale - mean, len(mean)
        log_det = log_diagonal.sum() + d * math.log(self.scale)
        if rest and not self.full:
            small = torch.eye(rest[0].shape[1]).to(z) + (rest[0].T * (-2 * log_diagonal).exp()) @ rest[0]
            log_det = log_det + 0.5 * torch.linalg.slogdet(small)[1]
        return 0.5 * self.scale * (self.score(x) * z).sum(1) - log_det - 0.5 * d * math.log(2 * math.pi)


def _checked(target: Target, rank: int | None, start_scale: float) -> int:
    if len(target.event_shape) != 1:
        raise InputError(
            f"a variational base is for vectors: got walkers of shape {tuple(target.event_shape)}; use the pilot base"
        )
    d = target.event_shape[0]
    if rank is not None and not 0 <= rank < d:
        raise InputError(
            f"the rank of a covariance in {d} dimensions is between 0, diagonal, and {d - 1}: got {rank}; leave it out "
            "for a full one"
        )
    if not start_scale > 0:
        raise InputError(f"a variational base starts from a normal of positive scale: got {start_scale}")
    return d


def _check_finite(energy: Tensor, x: Tensor) -> None:
    lost = ~torch.isfinite(energy)
    if bool(lost.any()):
        k = int(lost.nonzero()[0])
        place = ", ".join(f"{v:.4g}" for v in x[k, :4].tolist()) + (", …" if x.shape[1] > 4 else "")
        raise InputError(
            f"a variational base is a normal, which has no edge: at ({place}), one of its draws, the energy is "
            f"{float(energy[k])}; use coordinates without an edge (`biject_to`), or the pilot base"
        )
