"""What stage 3 learns, from what, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from engine.s3dnerf.losses import LossWeights


@dataclass(frozen=True, kw_only=True)
class RenderRecipe:
    """Terms of equation (9) whose weight is nothing are not computed."""

    steps: int = 2600
    sources: int = 5  # portraits of a batch; each is encoded once
    targets: int = 2  # frames of each
    sync_every: int = 4  # with a lip-sync loss, each such step has frames in a row instead:
    sync_sources: int = 2
    sync_targets: int = 5  # in a row, as many as the lip-sync discriminator looks at
    moved_stills: float = 0.15  # share of portraits that are stills rebuilt from themselves
    driven_stills: float = 0.36  # share of portraits that are stills with a speaker's lips and inside of the mouth
    mirrored: float = 0.5  # share of portraits and of speakers that are seen in a mirror
    heard: float = 0.5  # share of the clips' rows whose codes are those that stage 1 hears, not the true ones
    rate: float = 6e-4
    field_rate: float = 1.5e-4
    warm_up: int = 100  # steps
    lip_weight: float = 8.0
    inside_weight: float = 16.0  # of the inside of a driven still's mouth, the only picture that it has
    smooth_weight: float = 20.0  # on squared differences of neighbouring lattice points
    weights: LossWeights = LossWeights(perceptual=0.0, adversarial=0.0, sync=0.0)
    adversary_from: float = 0.6  # share of the steps after which the adversary begins to learn
    adversary_rate: float = 2e-3
    matching_share: float = 10.0  # of the adversary's own weight: like features where it looks, not its verdict alone
    penalty_weight: float = 1.0  # on the adversary's slope at real pictures
    correlation_weight: float = 0.5  # on what F_cm alone tells of the movement
    shape_weight: float = 0.0  # on lips that the perceptual network finds elsewhere than they should be
    seed: int = 0

    def finishing(self, steps: int, **changes: Any) -> RenderRecipe:
        """The same once more, behind a field that stays as it is; the adversary is there from the first step on."""
        recipe = dict(steps=steps, rate=self.rate / 2, warm_up=20, adversary_from=0.0)
        recipe |= dict(field_rate=0.0, correlation_weight=0.0)
        return replace(self, **(recipe | changes))

    @property
    def adversary_step(self) -> int:
        return int(self.adversary_from * self.steps)

    @property
    def reads(self) -> bool:
        """Whether the perceptual network is asked."""
        return self.weights.perceptual > 0 or self.shape_weight > 0

    def in_a_row(self, step: int) -> bool:
        """Whether a step's frames follow one another."""
        return self.weights.sync > 0 and step % self.sync_every == self.sync_every - 1
