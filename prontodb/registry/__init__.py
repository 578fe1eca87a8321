"""Indexes of a root: descriptions that can be lost and are rebuilt, never the truth."""
