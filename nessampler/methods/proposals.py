"""Unweighted samples of B: a transport as proposals of an exact Markov chain, with local moves in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.errors import InputError
from nessampler.kernels import HMC, Compose, Flow, Kernel, Map
from nessampler.kernels.ode_map import OdeMap
from nessampler.methods.transport import Transport
from nessampler.paths import LinearPath
from nessampler.simulate import Ensemble, simulate
from nessampler.targets import Target, carry

__all__ = ["Chain", "Local", "hamiltonian", "independence_chain"]

Local = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""A move that leaves B invariant, in the coordinates of the transport: x to the new x and acceptances."""


@dataclass(frozen=True)
class Chain:
    """Unweighted, correlated samples of B.

    Attributes:
        x: `(chains, draws, *event)`, time-ordered; the first draw is one step after the start.
        acceptance: share of the transport's proposals that were accepted.
        local_acceptance: the same for local moves; None where there were none.
        evaluations: walkers carried by the transport, in either direction.
    """

    x: Float[Tensor, " chains draws *event"]
    acceptance: float
    local_acceptance: float | None
    evaluations: int


@torch.no_grad()
def independence_chain(
    transport: Transport,
    samples_a: Float[Tensor, " n *event"],
    start: Float[Tensor, " chains *event"],
    *,
    local: Local | None = None,
    generator: torch.Generator,
) -> Chain:
    r"""Chains of B that propose a fresh sample of A, carried to B by the transport.

    A path $X = (x_0, \dots, x_K)$ carried forward from A has density P(X); paths of the time reversal from B have
    density Q(X), and $\log w = \log Q/P$ up to a constant is the log-weight of the path. A chain over *paths* with
    independent proposals from P and acceptance

    $$\min(1, w' / w)$$

    leaves Q invariant, and the last point of Q's paths is distributed as B. A chain therefore keeps $(x_K, \log w)$.
    After a local move of $x_K$ the old path no longer ends where the walker is: a new one is drawn given its end, by
    the transport backwards from the new $x_K$, and its log-weight is minus that of the backward run. Both moves leave
    Q invariant, so the chain is exact at any quality of the transport, which only decides how often it moves far.
    Without noise in the transport this is plain independence Metropolis. All this is of log-weights that are exact:
    a flow that is integrated numerically knows its log-determinant up to the steps' error only, and may not find its
    way back, which no acceptance mends. Such transports are refused.

    Args:
        transport: of a `free_energy` result (`result.rung.pilot.transport`), fitted on other samples than these; no
            integrated flow, but for one of an affine field.
        samples_a: fresh equilibrium samples of A in the transport's outer coordinates, *independent* of one another and
            used once each: correlated ones must be spaced by their correlation time first.
        start: where the chains begin; samples of B need no burn-in.
        local: moves between proposals, in the transport's inner coordinates; see `hamiltonian`.
        generator: source of randomness.

    Raises:
        InputError: a transport whose works are not exact; fewer samples of A than chains; a start outside of the
            support of B.

    References:
        Andrieu, Doucet & Holenstein, Particle Markov chain Monte Carlo methods, 2010,
        doi:10.1111/j.1467-9868.2009.00736.x, section 2.4.2 (independent Metropolis on the extended space); Nilmeier et
        al., Nonequilibrium candidate Monte Carlo, 2011, doi:10.1073/pnas.1106094108; Tierney, Markov chains for
        exploring posterior distributions, 1994, doi:10.1214/aos/1176325750, section 2.3.

    Example:
        >>> from nessampler.kernels import Identity
        >>> from nessampler.paths import EndpointPath
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> transport, g = Transport("plain", "", Identity(), EndpointPath(a, b), (0.0, 1.0)), torch.Generator()
        >>> chain = independence_chain(transport, a.sample(4000, generator=g), b.sample(8, generator=g), generator=g)
        >>> chain.x.shape, abs(float(chain.x.mean()) - 1) < 0.2
        (torch.Size([8, 500, 1]), True)
    """
    _refuse_integrated(transport)
    chains, draws = len(start), len(samples_a) // max(1, len(start))
    if chains < 1 or draws < 1:
        raise InputError(
            f"every chain needs a proposal, and every proposal a fresh sample of A: got {len(samples_a)} samples for "
            f"{chains} chains; pass more samples, or run fewer chains"
        )
    proposed = _forward(transport, samples_a[: chains * draws], generator)
    x_new = proposed.x.view(draws, chains, *proposed.x.shape[1:])
    log_new = proposed.log_weight.view(draws, chains)
    x = start if transport.encode_b is None else carry(transport.encode_b, start)
    log_w = _path_given_end(transport, x, generator)
    kept, accepted, local_accepted = [], 0.0, 0.0
    for step in range(draws):
        uniform = torch.rand(chains, generator=generator, dtype=torch.float64, device=x.device)
        accept = metropolis(log_new[step], log_w, uniform)
        x = torch.where(accept.view(-1, *[1] * (x.ndim - 1)), x_new[step], x)
        log_w = torch.where(accept, log_new[step], log_w)
        accepted += float(accept.double().mean()) / draws
        if local is not None:
            x, share = local(x, generator)
            local_accepted += float(share.double().mean()) / draws
            log_w = _path_given_end(transport, x, generator)
        kept.append(x)
    inner = torch.stack(kept, 1)
    outer = inner if transport.encode_b is None else _decoded(transport.encode_b, inner)
    runs = chains * draws * (1 if local is None else 2) + chains
    return Chain(outer, accepted, None if local is None else local_accepted, runs)


def metropolis(
    log_new: Float[Tensor, " chains"], log_old: Float[Tensor, " chains"], uniform: Float[Tensor, " chains"]
) -> Tensor:
    """Whether to accept, with probability min(1, w'/w).

    A path that no forward path can mirror has w = +inf, and stays until a local move; one of weight zero is left for
    any other.
    """
    return uniform.log() < torch.where(log_old == log_new, 0.0, log_new - log_old)


def hamiltonian(target: Target, *, step_size: float, leapfrog_steps: int = 5, repeats: int = 1) -> Local:
    """Local moves of `independence_chain` by HMC; `target` is B in the transport's coordinates, `transport.path.end`.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> move = hamiltonian(Gaussian(torch.zeros(2), torch.ones(2)), step_size=0.5)
        >>> x, acceptance = move(torch.zeros(4, 2), torch.Generator().manual_seed(0))
        >>> x.shape, acceptance.shape
        (torch.Size([4, 2]), torch.Size([4]))
    """
    kernel = HMC(LinearPath(target, target), step_size, leapfrog_steps, repeats=repeats)

    def move(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        walkers, _ = kernel.step(1.0, 1.0, kernel.start(1.0, x), generator=generator)
        assert walkers.acceptance is not None  # Metropolis
        return walkers.x, walkers.acceptance

    return move


def _refuse_integrated(transport: Transport) -> None:
    if transport.systematic > 0 or _integrated(transport.kernel):
        raise InputError(
            f"proposals of an exact chain have exact log-weights: got the transport {transport.name!r} along a flow "
            f"that is integrated numerically (measured error {transport.systematic:.1e} kT); use a map in closed form, "
            'or Langevin steps, such as those of method="map" and "feat"'
        )


def _integrated(kernel: Kernel) -> bool:
    """Whether log ratios are exact only up to the steps of an integration."""
    if isinstance(kernel, Compose):
        return _integrated(kernel.first) or _integrated(kernel.second)
    if isinstance(kernel, Map):
        return _along_a_flow(kernel.transform)
    return isinstance(kernel, Flow) and not kernel.exact


def _along_a_flow(transform: Transform) -> bool:
    if isinstance(transform, ComposeTransform):
        return any(map(_along_a_flow, transform.parts))
    return isinstance(transform, OdeMap) or isinstance(transform.inv, OdeMap)


def _forward(transport: Transport, samples: Tensor, generator: torch.Generator) -> Ensemble:
    x = samples if transport.encode_a is None else carry(transport.encode_a, samples)
    return simulate(transport.kernel, transport.path, transport.times, x, generator=generator, chunk_size=4096)


def _path_given_end(transport: Transport, x: Tensor, generator: torch.Generator) -> Tensor:
    """Log-weight of a path drawn from Q given that it ends at x."""
    backward = simulate(transport.kernel, transport.path, transport.times[::-1], x, generator=generator)
    return -backward.log_weight


def _decoded(encode: Transform, inner: Tensor) -> Tensor:
    flat = carry(encode.inv, inner.flatten(0, 1))
    return flat.view(*inner.shape[:2], *flat.shape[1:])
