"""Calls a SavedModel in a process that has TensorFlow and its text ops, and nothing of ours.

Run by path, not as a module: python call_saved_model.py FOLDER < a JSON list of strings.
"""

import json
import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the SentencePiece ops

texts = json.load(sys.stdin)
model = tf.saved_model.load(sys.argv[1])
answers = model.signatures["serving_default"](text=tf.constant(texts))["text"]
assert "tfmodels" not in sys.modules
json.dump([answer.decode() for answer in answers.numpy()], sys.stdout)
