"""Export for TF Serving. Not named `export`, which is the public function."""

from tfmodels.serving.saved_model import export

__all__ = ["export"]
