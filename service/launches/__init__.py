"""The full training run of a mixture."""
