"""Optimizations: swarm + regression + solve for one revision."""
