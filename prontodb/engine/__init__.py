"""The seam between what ProntoDB means and how it is stored: a small protocol and its default engine."""
