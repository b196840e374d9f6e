"""Component by component from one Gaussian mixture to another: the interpolant's walk in a single step."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nessampler.closed_form.affine import optimal_transport
from nessampler.closed_form.component_pairs import ComponentPairs
from nessampler.closed_form.mixture_interpolant import MixtureFields

__all__ = ["MixtureMap"]


class MixtureMap(nn.Module):
    r"""The affine maps of all pairs of components, each as likely as its pair: branches of `kernels.BranchingMap`.

    $$f_p(x) = \nu_j + M_p\,(x - \mu_i), \qquad p_0(p|x) \propto \pi_p\,\mathcal N(x; \mu_i, \Sigma_i), \qquad
      p_1(p|x') \propto \pi_p\,\mathcal N(x'; \nu_j, \Sigma_j)$$

    with $M_p \Sigma_i M_p^T = \Sigma_j$, the optimal transport between the two Gaussians. For ends that *are* the
    mixtures every path has the same work, $\Delta F$, whether components overlap or not; otherwise the work is

    $$W = \Delta F + \log\frac{\rho_A(x)}{\hat\rho_A(x)} - \log\frac{\rho_B(x')}{\hat\rho_B(x')}.$$

    Circular coordinates are turned, not scaled.

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
            matrix = torch.where(pairs.circular, 1.0, (pairs.covariance_b / pairs.covariance_a).sqrt())
            inverse, log_det = 1 / matrix, matrix.log().sum(-1)
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
        for pair in branch.unique():
            mine, matrix = branch == pair, matrices[pair].to(x)
            deviation = self._deviation(x[mine] - here[pair].to(x))
            turned = deviation * matrix if matrix.ndim == 1 else deviation @ matrix.T
            moved[mine] = there[pair].to(x) + turned
        log_det = self.log_det[branch]
        return moved, log_det if forward else -log_det

    def _deviation(self, y: Tensor) -> Tensor:
        return torch.where(self.fields.circular, torch.remainder(y + torch.pi, 2 * torch.pi) - torch.pi, y)
