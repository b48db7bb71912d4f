"""Backups of a stack: made, listed, checked, and brought back. The repository is restic's, a folder of the engine's host or a server's."""
