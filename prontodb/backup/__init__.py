"""Backups: which of them stay (`retention`)."""
