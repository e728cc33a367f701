"""Haiku checkpoints: reading them safely, their names, and their conversion."""
