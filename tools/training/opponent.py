"""The adversary beside stage 3: learns from the same batches, from some step on, with an optimiser of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.s3dnerf.adversary import Adversary, feature_matching_loss, r1_penalty
from engine.s3dnerf.losses import discriminator_adversarial_loss, generator_adversarial_loss
from tools.training.loop import half
from tools.training.render_recipe import RenderRecipe

PENALTY_EVERY = 16  # steps; the penalty counts so many times as much
RISE_STEPS = 100  # over which the generator comes to feel it
LEAST_ROWS = 2  # the adversary compares the pictures of a batch


class Opponent:
    """Judges mouth boxes and learns to tell painted ones from photographs.

    Args:
        size: side of the mouth box, px.
        recipe: of stage 3.
        device: where it learns.
    """

    def __init__(self, size: int, recipe: RenderRecipe, device: torch.device) -> None:
        self.adversary = Adversary(size).to(device)
        self.optimiser = torch.optim.Adam(self.adversary.parameters(), recipe.adversary_rate, betas=(0.0, 0.99))
        self.recipe = recipe

    def plays(self, step: int, rows: int) -> bool:
        return step >= self.recipe.adversary_step and rows >= LEAST_ROWS

    def judge(self, made: Tensor, real: Tensor, step: int) -> dict[str, Tensor]:
        """Terms for the generator, weighted: painted and real mouth boxes of the same rows, [B, 3, M, M]."""
        first = self.recipe.adversary_step
        rise = min(1.0, (step - first) / RISE_STEPS) if first > 0 else 1.0  # from the first step on, at once in full
        self.adversary.requires_grad_(False)
        with half(made.device):
            with torch.no_grad():
                wanted = self.adversary.features(real)
            maps = self.adversary.features(made)
            score = self.adversary.judge(maps)
        weight = self.recipe.weights.adversarial * rise
        return {
            "adversarial": generator_adversarial_loss(score) * weight,
            "matching": feature_matching_loss(maps, wanted) * weight * self.recipe.matching_share,
        }

    def learn(self, made: Tensor, real: Tensor, step: int) -> dict[str, Tensor]:
        """One step of its own; what is told is its loss, and the penalty where it was due."""
        self.adversary.requires_grad_(True)
        with half(made.device):
            scores = self.adversary(real), self.adversary(made.detach())
        told = {"adversary": discriminator_adversarial_loss(*scores)}
        loss = told["adversary"]
        if step % PENALTY_EVERY == 0:
            told["penalty"] = r1_penalty(self.adversary, real)
            loss = loss + told["penalty"] * PENALTY_EVERY * self.recipe.penalty_weight
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return told

    def state(self) -> dict[str, Any]:
        return dict(adversary=self.adversary.state_dict(), adversary_optimiser=self.optimiser.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave; a run that had no adversary before begins with a fresh one."""
        if "adversary" in state:
            self.adversary.load_state_dict(state["adversary"])
            self.optimiser.load_state_dict(state["adversary_optimiser"])
