"""One SavedModel that takes strings and returns strings: tokenizer, model and generation loop."""

import contextlib
import os
import shutil
import tempfile

import tensorflow as tf

from tfmodels.generation.generate import (
    check_tokenizer,
    detokenize,
    encode_prompts,
    generate_ids,
    make_generation_config,
)
from tfmodels.generation.rules import token_rules


def export(model, tokenizer, path, config=None, **options):
    """Writes a SavedModel for TF Serving: `path/1`, or the next free number.

    Its signature `serving_default` takes `{"text": string (batch,)}` and returns
    `{"text": string (batch,)}`, the same as `generate` with the same options, for any batch size.
    A prompt longer than `max_sequence_length` is cut: an encoder reads its beginning, a decoder
    continues its end. The tokenizer's ops must be in the server: SentencePiece needs those of
    tensorflow-text.

    Args:
        model: keeps the protocol of `GenerativeModel`, such as a `GPT2` or a `Transformer`.
        tokenizer: in graph ops, such as a `SentencePieceTokenizer`.
        path: str, the folder of all versions; made if missing.
        config: a `GenerationConfig`; None: the default one.
        **options: fields of `GenerationConfig` that override it.

    Returns:
        str, the path of the version written. It appears whole or not at all.

    Raises:
        ValueError: an unknown option; a tokenizer that does not fit the model.
        OSError: the path cannot be written.

    Example:
        >>> tfmodels.export(model, tokenizer, "exported", method="beam", num_beams=4)
        'exported/1'
    """
    config = make_generation_config(config, options)
    check_tokenizer(model, tokenizer)
    path = os.fspath(path)
    try:
        os.makedirs(path, exist_ok=True)
        # Aside, in the same file system, then renamed: a server that polls never sees half a version.
        # TF Serving takes only whole numbers for versions.
        aside = tempfile.mkdtemp(prefix=".writing-", dir=path)
    except OSError as error:
        raise type(error)(error.errno, f"Cannot export to path={path!r}: {error.strerror}") from error
    try:
        module = _TextModule(model, tokenizer, config)
        tf.saved_model.save(module, aside, signatures={"serving_default": module.serve})
        os.chmod(aside, 0o755)
        return _rename_to_next_version(aside, path)
    except tf.errors.OpError as error:  # what TensorFlow's file writers raise: full disk and the like
        raise OSError(f"Cannot export to path={path!r}: {error.message}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(aside)


class _TextModule(tf.Module):
    """Holds what the signature needs: variables, tokenizer and the traced function."""

    def __init__(self, model, tokenizer, config):
        super().__init__()
        self.model_variables = [variable.value for variable in model.variables]
        self.tokenizer = tokenizer
        rules = token_rules(model, tokenizer, config.stop)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")], autograph=False)
        def serve(text):
            inputs = encode_prompts(model, tokenizer, text, model.config.max_sequence_length)
            ids, lengths = generate_ids(model, inputs, config, rules)
            return {"text": detokenize(tokenizer, ids, lengths)}

        self.serve = serve


def _rename_to_next_version(aside, path):
    versions = [int(name) for name in os.listdir(path) if name.isdigit()]
    target = os.path.join(path, str(max(versions, default=0) + 1))
    os.rename(aside, target)
    return target
