"""Migration: the old program's databases, read without touching them, become addresses; every row has one fate."""
