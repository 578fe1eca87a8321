"""Pure values: validated when built, free of I/O, shared by every floor above."""
