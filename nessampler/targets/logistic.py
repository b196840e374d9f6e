"""Bayesian logistic regression: a posterior whose log Z is the log evidence of the model."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from nessampler.errors import InputError
from nessampler.targets.gaussian import Gaussian

__all__ = ["LogisticRegression", "standardised"]


class LogisticRegression:
    r"""The posterior of the coefficients, with a normalised Gaussian prior:

    $$U(\beta) = -\sum_i \log \sigma(y_i\, x_i \cdot \beta)
        + \sum_j \Big[\frac{\beta_j^2}{2 s_j^2} + \log\big(s_j \sqrt{2\pi}\big)\Big]$$

    Nothing is left out, so $\log Z$ is the log evidence. It is not known exactly; `hessian` serves a Laplace start.

    | symbol | argument | |
    |---|---|---|
    | $x$ | `features` | `(N, p)`, intercept included |
    | $y$ | `labels` | `(N,)`: −1 and +1, or 0 and 1 |
    | $s > 0$ | `prior_scale` | a number, or `(p,)` |

    Shapes: walkers `(n, p)`; sums over the data are in float64, results in the dtype of the walkers.

    Raises:
        InputError: shapes that differ, features that are not finite, other labels, a scale that is not positive.

    References:
        Chopin & Ridgway, Leave Pima Indians alone: binary regression as a benchmark for Bayesian computation,
        2017, arXiv:1506.08640.

    Example:
        >>> target = LogisticRegression(torch.ones(2, 1), torch.tensor([0.0, 1.0]), prior_scale=1.0)
        >>> round(float(target.energy(torch.zeros(1, 1))), 5) == round(2.5 * math.log(2) + 0.5 * math.log(math.pi), 5)
        True
    """

    def __init__(
        self,
        features: Float[Tensor, "N p"],
        labels: Tensor,
        prior_scale: float | Float[Tensor, " p"] = 1.0,
    ) -> None:
        if labels.ndim != 1 or len(labels) != len(features) or len(labels) == 0:
            raise InputError(
                f"features (N, p) and labels (N,) must have one row per observation: got {tuple(features.shape)} and "
                f"{tuple(labels.shape)}; transpose or trim one of them"
            )
        if not bool(torch.isfinite(features).all()):
            row, column = (~torch.isfinite(features)).nonzero()[0].tolist()
            raise InputError(
                f"features must be finite: features[{row}, {column}] = {float(features[row, column])}; "
                "drop or impute missing values first"
            )
        scale = torch.as_tensor(prior_scale, dtype=torch.float64).expand(features.shape[1]).clone()
        if not bool((scale > 0).all()):
            raise InputError(f"the scale of the prior must be positive: got {scale.tolist()}; pass standard deviations")
        # With y folded in, one matrix serves likelihood and gradient.
        self.signed = features.double() * _signs(labels)[:, None]
        self.prior = Gaussian(torch.zeros_like(scale), scale)
        self.event_shape = scale.shape

    def energy(self, x: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        """U in kT."""
        beta, signed, scale = self._in_double(x)
        return self._energy(beta, beta @ signed.T, scale).to(x)

    def energy_and_score(self, x: Float[Tensor, "n p"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n p"]]:
        """U and -∇U: two products with the features."""
        beta, signed, scale = self._in_double(x)
        margin = beta @ signed.T
        score = torch.sigmoid(-margin) @ signed - beta / scale.square()
        return self._energy(beta, margin, scale).to(x), score.to(x)

    def laplacian(self, x: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        r"""$\sum_i \sigma_i (1 - \sigma_i)\, |x_i|^2 + \sum_j s_j^{-2}$, float64."""
        beta, signed, scale = self._in_double(x)
        margin = beta @ signed.T
        curvature = torch.sigmoid(margin) * torch.sigmoid(-margin)
        return curvature @ signed.square().sum(1) + scale.square().reciprocal().sum()

    def hessian(self, x: Float[Tensor, " p"]) -> Float[Tensor, "p p"]:
        r"""$\nabla\nabla U$ of one point: $\sum_i \sigma_i (1 - \sigma_i)\, x_i x_i^T + \mathrm{diag}(s^{-2})$."""
        beta, signed, scale = self._in_double(x)
        margin = signed @ beta
        curvature = torch.sigmoid(margin) * torch.sigmoid(-margin)
        return (signed.T * curvature @ signed + torch.diag(scale.square().reciprocal())).to(x)

    def _energy(self, beta: Tensor, margin: Tensor, scale: Tensor) -> Tensor:
        return softplus(-margin).sum(-1) + 0.5 * (beta / scale).square().sum(-1) + self.prior.log_z

    def _in_double(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.double(), self.signed.to(x.device), self.prior.scale.to(x.device)


def standardised(path: Path | str) -> tuple[Float[Tensor, "N p"], Float[Tensor, " N"]]:
    """Features and labels of a data set: one line per observation, no header, the class in the last column.

    Columns get mean 0 and standard deviation 1 (of the sample, divided by N); constant columns are dropped, and an
    intercept comes first. Of the two classes the one that sorts first is −1, the other +1.

    Returns:
        features `(N, p)` and labels `(N,)`, float64.

    Raises:
        InputError: lines of different lengths, an entry that is not a number, or a number of classes other than two.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "two.csv"
        >>> _ = file.write_text("1.0,7,bad" + chr(10) + "3.0,7,good")
        >>> features, labels = standardised(file)
        >>> features.tolist(), labels.tolist()
        ([[1.0, -1.0], [1.0, 1.0]], [-1.0, 1.0])
    """
    with Path(path).open(newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    classes = sorted({row[-1] for row in rows})
    if len(classes) != 2:
        raise InputError(f"the last column must name two classes: {path} has {len(classes)}: {classes[:5]}")
    features = _numbers(rows, path)
    spread = features.std(0, correction=0)
    # Relative, since the rounding of a constant column's mean leaves a spread of some 1e-16.
    varies = spread > 1e-12 * features.abs().amax(0)
    columns = (features[:, varies] - features[:, varies].mean(0)) / spread[varies]
    labels = torch.tensor([1.0 if row[-1] == classes[1] else -1.0 for row in rows], dtype=torch.float64)
    return torch.cat([torch.ones(len(rows), 1, dtype=torch.float64), columns], 1), labels


def _numbers(rows: list[list[str]], path: Path | str) -> Tensor:
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise InputError(
                f"every line must have one length: line {i + 1} of {path} has {len(row)} entries after {len(rows[0])}"
            )
        for entry in row[:-1]:
            if not _is_finite_number(entry):
                raise InputError(
                    f"features must be finite numbers: line {i + 1} of {path} has {entry!r}; "
                    "drop or impute missing values, and encode categories as numbers"
                )
    return torch.tensor([[float(entry) for entry in row[:-1]] for row in rows], dtype=torch.float64)


def _is_finite_number(entry: str) -> bool:
    try:
        return math.isfinite(float(entry))
    except ValueError:
        return False


def _signs(labels: Tensor) -> Tensor:
    values = set(labels.unique().tolist())
    if not (values <= {-1, 1} or values <= {0, 1}):
        raise InputError(
            f"labels must be -1 and +1, or 0 and 1: got {sorted(values)[:5]}; "
            "a regression on more classes is another model"
        )
    return torch.where(labels > 0, 1.0, -1.0).double()
