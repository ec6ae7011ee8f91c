"""Checkpoints of transformers in and out: config.json and safetensors, no torch, no pickle."""

from tfmodels.pretrained.load import from_pretrained
from tfmodels.pretrained.save import save_pretrained

__all__ = ["from_pretrained", "save_pretrained"]
