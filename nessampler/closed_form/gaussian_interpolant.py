"""Velocity and score of the interpolant between two Gaussians, in closed form."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nessampler.closed_form._covariance import with_correlations_times
from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.interpolants import Coefficients, Linear, LinearInterpolant, Schedule, ScheduledInterpolant, SquareRoot

__all__ = ["GaussianFields", "Noise", "fit_gaussian_fields"]

Noise = Literal["start", "end", "mean"]


class GaussianFields(nn.Module):
    r"""Fields of $I_t$ between independent $N(m_a, \Sigma_a)$ and $N(m_b, \Sigma_b)$, elementwise in one basis.

    $$V_t = \alpha_t^2\Sigma_a + \beta_t^2\Sigma_b + \gamma_t^2\Sigma_z, \qquad C_t = \alpha\dot\alpha\,\Sigma_a
      + \beta\dot\beta\,\Sigma_b + \gamma\dot\gamma\,\Sigma_z = \mathrm{Cov}(\dot I_t, I_t)$$
    $$b = \dot m_t + C_t V_t^{-1} (x - m_t), \qquad s = -V_t^{-1} (x - m_t), \qquad m_t = \alpha_t\,m_a + \beta_t\,m_b$$

    The schedule is $\alpha = 1 - t$, $\beta = t$, $\gamma^2 = c\,t(1-t)$ unless another is given. A basis $P$
    diagonalises $\Sigma_a = P\,\mathrm{diag}(A)\,P^T$, $\Sigma_b = P\,\mathrm{diag}(B)\,P^T$ and the noise at once, so
    no $V_t$ is ever factorised.

    | symbol | argument | |
    |---|---|---|
    | $m_a, m_b$ | `mean_a`, `mean_b` | `(d,)` |
    | $\Sigma_a, \Sigma_b$ | `covariance_a`, `covariance_b` | `(d, d)`, positive definite over the moving coordinates |
    | $\Sigma_z$ | `noise` | covariance of the noise: that of the start, of the end, or their mean |
    | $c$ | `strength` | $\gamma^2 = c\,t(1-t)$, where no schedule is given |
    | $\alpha, \beta, \gamma$ | `schedule` | another one, such as `Trigonometric()` or, one-sided, `Linear(NoNoise())` |
    | | `moving` | `(d,)`: the other coordinates have no velocity, score or variance; a kernel carries them along |

    The module has buffers only; an interpolant with the same noise is `.interpolant`.

    Raises:
        InputError: shapes that differ, an unknown noise, or covariances that are not positive definite.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 2.

    Example:
        >>> fields = GaussianFields(torch.zeros(1), torch.ones(1), torch.eye(1), torch.eye(1), strength=2.0)
        >>> fields(torch.tensor([0.5]), torch.tensor([[1.5]]))
        Evaluated(velocity=tensor([[1.]]), score=tensor([[-1.]]), energy=None)
        >>> fields.variance(0.25)
        tensor([1.])
    """

    mean_a: Tensor
    mean_b: Tensor
    basis: Tensor
    inverse_basis: Tensor
    spectra: Tensor
    moving: Tensor

    def __init__(
        self,
        mean_a: Float[Tensor, " d"],
        mean_b: Float[Tensor, " d"],
        covariance_a: Float[Tensor, "d d"],
        covariance_b: Float[Tensor, "d d"],
        *,
        noise: Noise = "mean",
        strength: float = 1.0,
        schedule: Schedule | None = None,
        moving: Bool[Tensor, " d"] | None = None,
    ) -> None:
        super().__init__()
        _check_shapes(mean_a, mean_b, covariance_a, covariance_b, moving)
        moving = torch.ones(len(mean_a), dtype=torch.bool) if moving is None else moving
        moving = moving.to(mean_a.device)
        basis, inverse, alpha, beta = _simultaneous(*(s[moving][:, moving] for s in (covariance_a, covariance_b)))
        spectra = {"start": alpha, "end": beta, "mean": 0.5 * (alpha + beta)}
        if noise not in spectra:
            raise InputError(f"noise must be one of {', '.join(spectra)}: got {noise!r}")
        rows = torch.eye(len(mean_a), dtype=basis.dtype, device=basis.device)[:, moving]
        self.schedule = Linear(SquareRoot(strength)) if schedule is None else schedule
        self.register_buffer("mean_a", torch.where(moving, mean_a, 0.0))
        self.register_buffer("mean_b", torch.where(moving, mean_b, 0.0))
        self.register_buffer("basis", rows @ basis)
        self.register_buffer("inverse_basis", inverse @ rows.T)
        self.register_buffer("spectra", torch.stack([alpha, beta, spectra[noise]]))
        self.register_buffer("moving", moving)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields."""
        at = self._at(t.to(x))
        mean_a, mean_b = self.mean_a.to(x), self.mean_b.to(x)
        u = self._mode(x - (at.time.alpha * mean_a + at.time.beta * mean_b))
        drift = at.time.beta_rate * mean_b + at.time.alpha_rate * mean_a
        velocity = drift + (at.rate / at.variance * u) @ self.basis.T.to(x)
        return Evaluated(velocity, -(u / at.variance) @ self.inverse_basis.to(x))

    def variance(self, t: float | Float[Tensor, " n"]) -> Float[Tensor, "*n d"]:
        r"""Diagonal of $V_t$, `(d,)` for a number and `(n, d)` for times; zero where nothing moves.

        The scale of a good diffusion: `Langevin(fields, lambda t: 2 * base.variance(t))`.
        """
        time = torch.as_tensor(t, dtype=self.basis.dtype, device=self.basis.device)
        return self._at(time).variance @ self.basis.square().T

    def roughness(self, t: float | Float[Tensor, " n"]) -> Float[Tensor, "*n"]:
        r"""Largest squared rate at which the velocity stretches a mode, $\max_i (C_t/V_t)_i^2$.

        $|\nabla b|^2$ in the metric of the common basis, the same everywhere; `equal_length_times` takes it.
        """
        at = self._at(torch.as_tensor(t, dtype=self.basis.dtype, device=self.basis.device))
        return (at.rate / at.variance).square().amax(-1)

    @property
    def interpolant(self) -> LinearInterpolant | ScheduledInterpolant:
        """The interpolant whose noise this is."""
        factor = self.basis * self.spectra[2].sqrt()
        noise = torch.cat([factor, factor.new_zeros(len(factor), len(factor) - factor.shape[1])], 1)
        schedule = self.schedule
        if isinstance(schedule, Linear) and isinstance(schedule.gamma, SquareRoot):
            return LinearInterpolant(noise, schedule.gamma.strength)
        return ScheduledInterpolant(schedule, noise)

    def targets(
        self,
        t: Float[Tensor, " n"],
        x: Float[Tensor, "n d"],
        x_a: Float[Tensor, "n d"],
        x_b: Float[Tensor, "n d"],
        score_a: Float[Tensor, "n d"],
        score_b: Float[Tensor, "n d"],
    ) -> Evaluated:
        r"""Regression targets for velocity and score at $x = I_t$ whose noise vanishes for Gaussian ends.

        With $r_a = s_a(x_a) + \Sigma_a^{-1}(x_a - m_a)$, the part of an end's score that is not Gaussian, and likewise
        $r_b$; written in the common basis, $k = C_t/V_t$:

        $$T_b = b + A\,[\dot\alpha - k\alpha]\,r_a + B\,[\dot\beta - k\beta]\,r_b, \qquad
          T_s = s + \frac{\alpha A\,r_a + \beta B\,r_b}{V_t}$$

        $E[T_b|I_t]$ and $E[T_s|I_t]$ are the exact fields of the interpolant between the *true*, independent ends,
        whatever the fitted Gaussians: both differ from $\dot I_t$ and from the usual scores by
        $s_a(x_a)/\alpha + \Sigma_z^{-1}L z/\gamma$ and $s_b(x_b)/\beta + \Sigma_z^{-1}L z/\gamma$ times numbers, which
        have conditional mean zero (integrate by parts along shifts of the ends that leave $I_t$ where it is; without
        noise, along the shift of both that does). Bounded at both ends: nothing is divided by $\gamma$, $\alpha$ or
        $\beta$. Pairs that are coupled, as by optimal transport, have other conditional means.

        References:
            De Bortoli et al., Target score matching, 2024, arXiv:2402.08667 (the score, for diffusions).
        """
        at = self._at(t.to(x))
        time, (a, b, _) = at.time, self.spectra.to(x)
        basis, inverse = self.basis.to(x), self.inverse_basis.to(x)
        r_a = score_a @ basis + self._mode(x_a - self.mean_a.to(x)) / a
        r_b = score_b @ basis + self._mode(x_b - self.mean_b.to(x)) / b
        k, here = at.rate / at.variance, self(t, x)
        velocity = b * (time.beta_rate - k * time.beta) * r_b + a * (time.alpha_rate - k * time.alpha) * r_a
        score = (time.alpha * a * r_a + time.beta * b * r_b) / at.variance
        return Evaluated(here.velocity + velocity @ basis.T, here.score + score @ inverse)

    def _mode(self, deviation: Tensor) -> Tensor:
        return deviation @ self.inverse_basis.T.to(deviation)

    def _at(self, t: Tensor) -> _Spectrum:
        """Eigenvalues of V_t and C_t, one more axis than t."""
        time, (a, b, zeta) = self.schedule(t.unsqueeze(-1)), self.spectra.to(t)
        variance = time.alpha**2 * a + time.beta**2 * b + time.gamma_square * zeta
        rate = time.beta * time.beta_rate * b + time.alpha * time.alpha_rate * a + time.gamma_product * zeta
        return _Spectrum(time, variance, rate)


def fit_gaussian_fields(
    x_a: Float[Tensor, "n d"],
    x_b: Float[Tensor, "m d"],
    *,
    noise: Noise = "mean",
    strength: float = 1.0,
    schedule: Schedule | None = None,
    shrink: float = 0.25,
    moving: Bool[Tensor, " d"] | None = None,
) -> GaussianFields:
    r"""`GaussianFields` from samples of both states.

    Means and variances are those of the samples; correlations are multiplied by `shrink`, which the full covariances
    of a few hundred samples need (1 trusts them).

    Raises:
        InputError: fewer than two samples, a moving coordinate that does not vary, or `shrink` outside [0, 1].

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a, b = torch.randn(2000, 2, generator=g), 3 + 2 * torch.randn(2000, 2, generator=g)
        >>> fit_gaussian_fields(a, b).variance(1.0).round()
        tensor([4., 4.])
    """
    if not 0 <= shrink <= 1:
        raise InputError(f"shrink multiplies correlations, so it lies in [0, 1]: got {shrink}")
    keep = torch.ones(x_a.shape[-1], dtype=torch.bool) if moving is None else moving
    keep = keep.to(x_a.device)
    for name, x in (("A", x_a), ("B", x_b)):
        if len(x) < 2:
            raise InputError(f"a covariance needs two samples of each state at least: got {len(x)} of {name}")
        flat = (keep & ~(x.std(0) > 0)).nonzero()
        if len(flat):
            raise InputError(
                f"coordinate {int(flat[0])} does not vary in the samples of {name}: leave it out of `moving`"
            )
    covariances = (with_correlations_times(shrink, torch.cov(x.T).reshape(len(keep), -1)) for x in (x_a, x_b))
    options = {"noise": noise, "strength": strength, "schedule": schedule, "moving": moving}
    return GaussianFields(x_a.mean(0), x_b.mean(0), *covariances, **options)


class _Spectrum(NamedTuple):
    time: Coefficients
    variance: Tensor
    rate: Tensor


def _simultaneous(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """P, its inverse, and the diagonals of A and B in that basis; whitening their mean treats both alike."""
    factor, failed = torch.linalg.cholesky_ex(0.5 * (a + b))
    if int(failed):
        raise InputError("covariances must be positive definite over the moving coordinates; use a smaller `shrink`")
    half = torch.linalg.solve_triangular(factor, a, upper=False)
    alpha, rotation = torch.linalg.eigh(torch.linalg.solve_triangular(factor, half.T, upper=False))
    beta = 2 - alpha
    smallest = float(torch.minimum(alpha, beta).min())
    if not smallest > 8 * len(a) * torch.finfo(a.dtype).eps:
        raise InputError(
            "covariances of both ends must be positive definite over the moving coordinates: the smallest eigenvalue "
            f"relative to their mean is {smallest:.2g}; use a smaller `shrink`"
        )
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(a)).to(a), upper=False)
    return factor @ rotation, rotation.T @ inverse, alpha, beta


def _check_shapes(mean_a: Tensor, mean_b: Tensor, cov_a: Tensor, cov_b: Tensor, moving: Tensor | None) -> None:
    d = len(mean_a)
    shapes = [tuple(s.shape) for s in (mean_a, mean_b, cov_a, cov_b)]
    if shapes != [(d,), (d,), (d, d), (d, d)]:
        raise InputError(f"means must be (d,) and covariances (d, d) with one d: got shapes {shapes}")
    if moving is not None and (moving.dtype != torch.bool or moving.shape != (d,) or not bool(moving.any())):
        raise InputError(f"moving must be a boolean mask ({d},) with a true entry: got {moving}")
