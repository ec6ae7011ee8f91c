"""The one place that touches tensorflow_text, and its private names."""

import hashlib

import tensorflow as tf


def sentencepiece(model, out_type=tf.int32):
    """A tensorflow_text.SentencepieceTokenizer whose model outlives TensorFlow's kernel caches.

    Upstream the model belongs to the kernel that made it, so that `keras.utils.set_random_seed`,
    which clears the kernel caches, leaves every tokenizer and every tf.data pipeline that uses it
    broken ("Resource ... does not exist"). A shared name makes it the resource manager's.

    Args:
        model: bytes, a serialised SentencePiece model.
        out_type: tf.int32 for ids, tf.string for pieces, of which unknown ones stay as they are.

    Raises:
        ImportError: there is no tensorflow_text.
    """
    try:
        import tensorflow_text
        from tensorflow_text.python.ops.sentencepiece_tokenizer import gen_sentencepiece_tokenizer
    except ImportError as error:
        raise ImportError(
            "SentencePieceTokenizer needs tensorflow-text >= 2.21.1, which has no wheel for every "
            "platform. Run pip install 'tensorflow-text>=2.21.1' where there is one."
        ) from error

    class SharedModel(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            # By content: two tokenizers with one name have one model.
            name = f"tfmodels_sentencepiece_{hashlib.sha256(model).hexdigest()}"
            return gen_sentencepiece_tokenizer.sentencepiece_op(model=model, shared_name=name)

    tokenizer = tensorflow_text.SentencepieceTokenizer(model, out_type=out_type)
    tokenizer._model_resource = SharedModel()
    _ = tokenizer._model_resource.resource_handle  # made now, and not in some function's graph
    return tokenizer
