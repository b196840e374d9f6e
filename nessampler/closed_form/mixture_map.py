"""Component by component from one Gaussian mixture to another: the interpolant's walk in a single step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nessampler.closed_form.affine import optimal_transport
from nessampler.closed_form.component_pairs import ComponentPairs
from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.kernels import Branches

__all__ = ["MixtureMap", "OnCoordinates"]


class MixtureMap(nn.Module):
    r"""The affine maps of all pairs of components, each as likely as its pair: branches of `kernels.BranchingMap`.

    $$f_p(x) = \nu_j + M_p\,(x - \mu_i), \qquad p_0(p|x) \propto \pi_p\,\mathcal N(x; \mu_i, \Sigma_i), \qquad
      p_1(p|x') \propto \pi_p\,\mathcal N(x'; \nu_j, \Sigma_j)$$

    with $M_p \Sigma_i M_p^T = \Sigma_j$, the optimal transport between the two Gaussians. For ends that *are* the
    mixtures every path has the same work, $\Delta F$, whether components overlap or not; otherwise the work is

    $$W = \Delta F + \log\frac{\rho_A(x)}{\hat\rho_A(x)} - \log\frac{\rho_B(x')}{\hat\rho_B(x')}.$$

    Circular coordinates are turned, and scaled about the component's centre by the Möbius map of the circle,

    $$u' = 2\arctan(m \tan\tfrac u2), \qquad \frac{du'}{du} = \frac{m}{\cos^2\frac u2 + m^2\sin^2\frac u2}, \qquad
      m = \sigma_j/\sigma_i.$$

    Example:
        >>> from nessampler.closed_form.component_pairs import pair_components
        >>> from nessampler.targets.mixture import GaussianMixture
        >>> a = GaussianMixture(torch.tensor([[-9.0], [9.0]]).double(), torch.ones(2))
        >>> b = GaussianMixture(torch.tensor([[0.0]]).double(), torch.tensor([2.0]))
        >>> branches = MixtureMap(pair_components(a, b))
        >>> branches.move(torch.tensor([0]), torch.tensor([[-8.0]]).double(), forward=True)[0].item()
        2.0
    """

    matrix: Tensor
    inverse: Tensor
    log_det: Tensor

    def __init__(self, pairs: ComponentPairs) -> None:
        super().__init__()
        self.fields = MixtureFields(pairs)
        if pairs.diagonal:
            matrix = (pairs.covariance_b / pairs.covariance_a).sqrt()
            inverse, log_det = 1 / matrix, torch.where(pairs.circular, 0.0, matrix.log()).sum(-1)
        else:
            ends = zip(pairs.covariance_a, pairs.covariance_b, strict=True)
            matrix = torch.stack([optimal_transport(a, b) for a, b in ends])
            inverse, log_det = torch.linalg.inv(matrix), torch.linalg.slogdet(matrix)[1]
        for name, value in (("matrix", matrix), ("inverse", inverse), ("log_det", log_det)):
            self.register_buffer(name, value)

    def log_probability(self, t: float, x: Float[Tensor, "n d"]) -> Float[Tensor, "n pairs"]:
        """Of the pairs, given a walker at either end."""
        return self.fields.log_posterior(torch.full((len(x),), t, dtype=x.dtype, device=x.device), x)

    def move(
        self, branch: Int[Tensor, " n"], x: Float[Tensor, "n d"], *, forward: bool
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """From a component to its partner, or back."""
        here, there = (self.fields.mean_a, self.fields.mean_a + self.fields.travel)[:: 1 if forward else -1]
        matrices, moved = self.matrix if forward else self.inverse, torch.empty_like(x)
        log_det = self.log_det[branch] if forward else -self.log_det[branch]
        for pair in branch.unique():
            mine = branch == pair
            turned, more = self._about_centre(x[mine] - here[pair].to(x), matrices[pair].to(x))
            moved[mine] = there[pair].to(x) + turned
            log_det[mine] += more
        return moved, log_det

    def _about_centre(self, u: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor | float]:
        """Deviations scaled, and the logarithm of the derivative along circular ones."""
        if matrix.ndim == 2:
            return u @ matrix.T, 0.0
        sine, cosine, around = (0.5 * u).sin(), (0.5 * u).cos(), self.fields.circular
        sign = torch.where(cosine < 0, -1.0, 1.0)  # the turn in which |u| is least
        angle = 2 * torch.atan2(sign * matrix * sine, sign * cosine)
        rate = torch.log(matrix / (cosine.square() + (matrix * sine).square()))
        return torch.where(around, angle, u * matrix), torch.where(around, rate, 0.0).sum(-1).double()


@dataclass(frozen=True)
class OnCoordinates:
    """Branches that see and move some coordinates of a walker; the others stay.

    Attributes:
        branches: of walkers with as many coordinates as are chosen.
        chosen: which, `(d,)`.
    """

    branches: Branches
    chosen: Bool[Tensor, " d"]

    def log_probability(self, t: float, x: Float[Tensor, "n d"]) -> Float[Tensor, "n branches"]:
        """As the chosen coordinates say."""
        return self.branches.log_probability(t, x[:, self.chosen])

    def move(
        self, branch: Int[Tensor, " n"], x: Float[Tensor, "n d"], *, forward: bool
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """The chosen coordinates moved."""
        part, log_det = self.branches.move(branch, x[:, self.chosen], forward=forward)
        moved = x.clone()
        moved[:, self.chosen] = part
        return moved, log_det
