"""Solvers: the best mixture under caps and other linear constraints."""
