"""Templates of `tfmodels.serving.operator`: $name and the like are filled in."""
