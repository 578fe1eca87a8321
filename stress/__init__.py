"""Stress: a fleet of agent processes, faults on purpose, a checked history. Installed as `prontodb_stress`."""
