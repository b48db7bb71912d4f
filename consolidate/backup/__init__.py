"""Backups of a stack: made, listed, checked, and brought back. The repository is restic's, on the engine's host."""
