"""Texts to examples, a file a kind of task."""
