"""Which ops an export needs, and which libraries a server must have for them."""

import os

import tensorflow as tf

# Ops outside TensorFlow's core -> the library that has them, as TF_LoadLibrary takes it.
_LIBRARIES = {
    "SentencepieceOp": "_sentencepiece_tokenizer.so",
    "SentencepieceTokenizeOp": "_sentencepiece_tokenizer.so",
    "SentencepieceDetokenizeOp": "_sentencepiece_tokenizer.so",
}


def operations(path):
    """The names of all ops of a SavedModel, sorted, those inside functions too."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        saved.ParseFromString(file.read())
    found = set()
    for meta_graph in saved.meta_graphs:
        graph = meta_graph.graph_def
        functions = {function.signature.name for function in graph.library.function}
        found |= {node.op for node in graph.node}
        found |= {node.op for function in graph.library.function for node in function.node_def}
        found -= functions
    return sorted(found)


def libraries(names):
    """The op libraries beside TensorFlow's core that ops need.

    Raises:
        ValueError: an op that TF Serving's build does not register.
    """
    needed = set()
    for name in names:
        if name in _LIBRARIES:
            needed.add(_LIBRARIES[name])
        elif not hasattr(tf.raw_ops, name) or name.startswith("Xla"):
            raise ValueError(
                "An export must keep to ops that TF Serving's build registers. "
                f"Received: {name}. Please report the model that makes it."
            )
    return sorted(needed)
