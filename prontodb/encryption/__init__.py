"""Secrets: where they come from (`sources`), how they are kept (`records`, `sealing`), who brings them (`keyring`)."""
