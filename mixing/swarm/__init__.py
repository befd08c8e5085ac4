"""Samplers: which mixtures a swarm trains."""
