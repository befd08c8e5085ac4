"""The ways to train N models of one shape together; all give the same numbers."""
