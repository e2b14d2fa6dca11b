"""transformers' own Wav2Vec2, the twin of ours."""

from transformers import Wav2Vec2Config, Wav2Vec2Model

from engine.s3dnerf.config import AudioConfig


def published_model(config: AudioConfig) -> Wav2Vec2Model:
    """Untrained, of the shape that ``config`` asks for, in evaluation mode."""
    settings = Wav2Vec2Config(
        conv_dim=config.conv_dim,
        conv_kernel=config.conv_kernel,
        conv_stride=config.conv_stride,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward,
        num_conv_pos_embeddings=config.position_kernel,
        num_conv_pos_embedding_groups=config.position_groups,
        feat_extract_norm="layer" if config.layer_norm_features else "group",
        do_stable_layer_norm=config.layer_norm_features,
        conv_bias=config.conv_bias,
        mask_time_prob=0.0,
    )
    return Wav2Vec2Model(settings).eval()
