"""Swarms and their runs."""
