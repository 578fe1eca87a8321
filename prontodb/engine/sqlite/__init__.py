"""The default engine: one SQLite file per address."""
