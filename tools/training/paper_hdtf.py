"""The paper-sized recipe for a GPU: HDTF prepared with ``tools/prepare_data.py``, published Wav2Vec2 features.

From the paper: sizes as far as it tells them, the features, and the weights of equation (9), with the adversary
from the first step on. Ours: what the paper leaves open (optimiser, rates, steps, batches); stages 1 and 2; that the
fine picture, and with it the perceptual and adversarial terms, is the painted mouth box rather than the whole face;
that differences of pixels and features are absolute rather than squared; and the terms on edges, opacity and landmarks.
Nobody has run it to its end yet.
"""

from __future__ import annotations

from engine.s3dnerf.config import paper
from engine.s3dnerf.losses import LossWeights
from tools.training.audio_stage import AudioRecipe
from tools.training.deform_stage import DeformRecipe
from tools.training.family import Family, hold_out_videos
from tools.training.perceptual_stage import PerceptualRecipe
from tools.training.render_recipe import RenderRecipe
from tools.training.sync_stage import SyncRecipe
from tools.training.utterances import Diet

CREDITS = (
    "Trained on the HDTF dataset (Zhang, Li, Ding and Fan 2021; its annotations are CC BY 4.0, the videos their "
    "owners'), on features of wav2vec 2.0 base (Baevski, Zhou, Mohamed and Auli 2020, Apache 2.0)."
)


def paper_hdtf() -> Family:
    config = paper()
    return Family(
        name="paper_hdtf",
        config=config,
        credits=CREDITS,
        judge_credits=CREDITS.partition(", on features")[0] + ".",
        speech="hdtf",
        held_out=hold_out_videos,
        vgg=True,
        audio=AudioRecipe(
            steps=20_000,
            segments=16,
            rate=5e-4,
            freeze_features=True,
            phone_weight=0.0,
            diet=Diet(shares=(0.9, 0.0, 0.0)),
            polish_steps=0,
            variants=1,
            synthetic_minutes=0.0,
        ),
        deform=DeformRecipe(steps=20_000, batch=64),
        perceptual=PerceptualRecipe(steps=20_000, size=config.mouth_box),
        sync=SyncRecipe(steps=50_000, clips=16),
        render=RenderRecipe(
            steps=400_000,
            sources=8,
            rate=2e-4,
            field_rate=1e-4,
            warm_up=1000,
            weights=LossWeights(),
            adversary_from=0.0,
            matching_share=0.0,
        ),
    )
