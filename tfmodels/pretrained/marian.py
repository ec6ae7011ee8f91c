"""MarianMT's config.json; its tensors have BART's names."""

from tfmodels.models.bart import Bart
from tfmodels.pretrained.architecture import Architecture, Head
from tfmodels.pretrained.bart import NORM_EPSILON, language_head, read_shared, tensors, write_shared


def read_config(fields):
    fields.only("normalize_embedding", False)
    fields.only("static_position_embeddings", True)
    vocabulary_size = fields.integer("vocab_size")
    tied = fields.flag("tie_word_embeddings", True)
    # transformers unties the encoder's words with the others.
    shared = fields.flag("share_encoder_decoder_embeddings", True)
    return read_shared(
        fields,
        target_vocabulary_size=fields.integer("decoder_vocab_size", vocabulary_size),
        start_id=58100,
        end_id=0,
        pad_id=58100,
        positions="sinusoidal",
        embedding_norm=False,
        share_embeddings=shared and tied,
        tie_embeddings=tied,
    )


def write_config(config):
    return write_shared(config) | {
        "decoder_vocab_size": config.target_vocabulary_size,
        "tie_word_embeddings": config.tie_embeddings,
        "share_encoder_decoder_embeddings": config.share_embeddings,
    }


ARCHITECTURES = {
    "marian": Architecture(
        model_type="marian",
        backbone=Bart,
        prefix="model.",
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        heads={
            "MarianMTModel": Head("sequence_to_sequence", tensors=language_head),
            "MarianModel": Head(None, backbone={"tie_embeddings": True}),
        },
        carried=(r"shared\.weight",),
        holds=lambda config: (
            config.positions == "sinusoidal"
            and not config.embedding_norm
            and config.norm_epsilon == NORM_EPSILON
            and (config.tie_embeddings or not config.share_embeddings)
        ),
    )
}
