"""Mixtures: proposed with their evidence, natural, or made by hand."""
