"""What else the learned rung may try: a network that reads the ends' scores, and refinement on works."""

from __future__ import annotations

from pathlib import Path

import torch

import nessampler as ns
from nessampler.methods.effort import Training
from nessampler.targets import AnharmonicWell

A = AnharmonicWell([0.5, -0.2], stiffness=[0.6, 1.5], quartic=[0.3, 0.0], skew=[2.5, -2.0], coupling=1.0)
B = AnharmonicWell([-0.4, 0.3], stiffness=[1.6, 1.0], quartic=[0.05, 0.1], skew=[-0.4, 0.5], coupling=-0.4)


def _run(checkpoint: Path | None = None, **options) -> tuple[ns.Difference, list[str]]:
    said: list[str] = []
    x_a, x_b = (w.sample(500, generator=torch.Generator().manual_seed(i)) for i, w in enumerate((A, B)))
    small = {"steps": 30, "batch_size": 64, "width": 16, "depth": 1, "sampling_steps": 12, "learning_rate": 1e-2}
    training = Training(**(small | options))
    effort = ns.Effort(feat=training, tuning_samples=40)
    found = ns.free_energy(A, B, x_a, x_b, method="feat", effort=effort, say=said.append, checkpoint=checkpoint)
    return found, [line for line in said if line.startswith("feat (")]


def test_every_candidate_is_piloted_and_billed(tmp_path: Path):
    plain, alone = _run()
    assert len(alone) == 2  # on Gaussian fields, and on those of mixtures
    found, tried = _run(tmp_path / "training.safetensors", informed=True, refine_steps=5)
    assert [line.split("(", 1)[1].split(",")[0] for line in tried] == [
        "Gaussian fields with a learned remainder",
        "Gaussian fields with a learned remainder",
        "Gaussian fields with a learned remainder that reads the ends' scores",
        "Gaussian fields with a learned remainder that reads the ends' scores",
        tried[-1].split("(", 1)[1].split(",")[0],
    ]
    assert "pairs of components with a learned remainder" in tried[-1]
    assert ["refined on works" in line for line in tried] == [False, True, False, True, False]
    assert tried[0].split(":")[1] == alone[0].split(":")[1]  # the first candidate is what it was without the others
    gradients = [r.evaluations["state_a"]["training"]["gradient"] for r in (plain.rung, found.rung)]
    # Training the informed network: 16 batches and the held-out one, both signs of the noise, however many steps;
    # then its pilots and its refinement, gradients at every time.
    assert gradients[1] > gradients[0] + 2 * (16 * 64 + 1024)
    informed = _run(informed=True)[0].rung.evaluations["state_a"]["training"]["gradient"]
    longer = _run(informed=True, steps=60)[0].rung.evaluations["state_a"]["training"]["gradient"]
    assert informed == longer
    exact = A.log_z - B.log_z
    assert abs(found.delta_f.delta_f - exact) <= 4 * found.delta_f.std_error
    assert found.delta_f.std_error < 0.15
    assert {p.name for p in tmp_path.iterdir()} == {
        "training.safetensors",
        "training-1.safetensors",
        "training-mixture.safetensors",
    }
