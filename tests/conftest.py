"""Shared fixtures. Shapes and types of the engine are checked at run time wherever a test calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

# Before the package is first imported. The numeric tower lets an int stand where a float is asked for, as in typing.
ENGINE = (
    "targets",
    "paths",
    "fields",
    "kernels",
    "simulate",
    "closed_form.affine",
    "closed_form.preconditioner",
    "weights",
)
TYPECHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook([f"nessampler.{module}" for module in ENGINE], TYPECHECKER)

from nessampler.fields import Evaluated  # noqa: E402
from nessampler.targets import AnharmonicWell  # noqa: E402

# Tensors here are small: threads only wait for one another.
torch.set_num_threads(1)


class RandomFields(torch.nn.Module):
    """An untrained network for velocity and score: wrong on purpose. It counts its calls."""

    def __init__(self, dim: int, seed: int, velocity: float, score: float, dtype: torch.dtype) -> None:
        super().__init__()
        generator = np.random.default_rng(seed)
        sizes = [(dim + 1, 8), (8,), (8, 8), (8, 2 * dim)]
        scales = [1.5 / (dim + 1) ** 0.5, 1.0, 1.5 / 8**0.5, 1 / 8**0.5]
        self.weights = torch.nn.ParameterList(
            torch.tensor(scale * generator.standard_normal(size), dtype=dtype)
            for scale, size in zip(scales, sizes, strict=True)
        )
        self.velocity, self.score, self.calls = velocity, score, 0

    def forward(self, t: Tensor, x: Tensor) -> Evaluated:
        self.calls += 1
        first, bias, second, last = self.weights
        hidden = torch.tanh(torch.tanh(torch.cat([t[:, None], x], 1) @ first + bias) @ second)
        velocity, score = (hidden @ last).chunk(2, 1)
        return Evaluated(self.velocity * velocity, self.score * score)


@pytest.fixture(scope="session")
def random_fields() -> Callable[..., RandomFields]:
    """Fields of a random network, of about the sizes `velocity` and `score`."""

    def build(
        dim: int, *, seed: int = 0, velocity: float = 1.0, score: float = 1.0, dtype: torch.dtype = torch.float64
    ) -> RandomFields:
        return RandomFields(dim, seed, velocity, score, dtype)

    return build


@pytest.fixture
def scripted_noise(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[Tensor]], None]:
    """Let the next calls of `torch.randn` return given tensors, in the dtype asked for."""

    def script(noises: Iterable[Tensor]) -> None:
        tape = iter(noises)

        def randn(*shape: object, dtype: torch.dtype | None = None, **_: object) -> Tensor:
            noise = next(tape)
            assert tuple(noise.shape) in (tuple(shape), tuple(shape[0]) if isinstance(shape[0], Iterable) else ())
            return noise.to(dtype or noise.dtype)

        monkeypatch.setattr(torch, "randn", randn)

    return script


@pytest.fixture(scope="session")
def wells() -> tuple[AnharmonicWell, AnharmonicWell]:
    """Two asymmetric, non-Gaussian densities in three dimensions."""
    return (
        AnharmonicWell(
            [0.1, -0.2, 0.3], stiffness=[1.0, 1.5, 0.8], quartic=[0.1, 0.0, 0.05], skew=[0.5, -0.3, 0.4], coupling=0.3
        ),
        AnharmonicWell(
            [-0.4, 0.3, 0.1], stiffness=[1.6, 1.0, 1.2], quartic=[0.05, 0.1, 0.0], skew=[-0.4, 0.5, 0.3], coupling=-0.4
        ),
    )


@pytest.fixture(scope="session")
def wells_1d() -> tuple[AnharmonicWell, AnharmonicWell]:
    """Two asymmetric, non-Gaussian densities on the line, of different log Z."""
    return (
        AnharmonicWell([0.3], stiffness=[1.0], quartic=[0.1], skew=[0.6], coupling=0.0),
        AnharmonicWell([-0.7], stiffness=[1.8], quartic=[0.02], skew=[-0.8], coupling=0.0),
    )
