"""Checkers: each judges the history and the aftermath by one family of promises; pure, one file each."""
