"""Launches: full training runs started from a mixture."""
