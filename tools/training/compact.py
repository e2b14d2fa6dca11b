"""The compact family of recipes: real time on two CPU cores, trained on data that anyone may use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.s3dnerf.config import compact
from engine.s3dnerf.losses import LossWeights
from tools.training.clips import read_held_out
from tools.training.family import Family
from tools.training.render_recipe import RenderRecipe

CREDITS = (
    "Trained on the GRID audiovisual sentence corpus (Cooke, Barker, Cunningham and Shao 2006, CC BY 4.0), "
    "speaker 1; on official portraits of members of the US Congress (public domain); on synthetic voices of "
    "espeak-ng; on the Free Spoken Digit Dataset (CC BY-SA 4.0); and on noise recordings, music and room impulse "
    "responses (public domain and CC BY)."
)
JUDGE_CREDITS = (
    "Trained on the GRID audiovisual sentence corpus (Cooke, Barker, Cunningham and Shao 2006, CC BY 4.0), "
    "speaker 1, and on noise recordings and music (public domain and CC BY)."
)
# The paper's weights are for squared errors of pixels and VGG's features; these are for absolute ones and features
# of our own, set so that at the painted mouth each term pulls about as hard as the pixels do, the adversary a third.
EQUATION_9 = LossWeights(perceptual=0.5, adversarial=0.05, sync=0.05)
STILLS_HELD_OUT = Path(__file__).parent.parent / "portraits_heldout.txt"


# On a GPU a step costs about the same whatever its batch, up to some fifty frames.
SOURCES, TARGETS, SYNC_SOURCES = 16, 3, 9


def compact_gpu_family() -> Family:
    """The compact model for a GPU's larger batches and longer runs; stages 1 and 2 are as for a CPU."""
    family = compact_family()
    render = replace(family.render, sources=SOURCES, targets=TARGETS, sync_sources=SYNC_SOURCES)
    return replace(
        family,
        name="compact_gpu",
        render=render,
        field=replace(family.field, steps=2000, batch=64),
        finish=render.finishing(5000, rate=render.rate, warm_up=100, adversary_from=0.25),
    )


def compact_family() -> Family:
    return Family(
        name="compact",
        config=compact(),
        credits=CREDITS,
        judge_credits=JUDGE_CREDITS,
        speech="grid_s1",
        held_out=lambda folder: read_held_out(),
        others="grid_others",
        stills_held_out=frozenset(STILLS_HELD_OUT.read_text().split()),
        render=RenderRecipe(weights=EQUATION_9, shape_weight=1.0),
    )
