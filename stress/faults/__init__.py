"""Faults that are made on purpose, one file each; `FAULTS` has them all by name."""
