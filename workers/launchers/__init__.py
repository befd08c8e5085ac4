"""Launchers: full training runs by programs the operator configured."""
