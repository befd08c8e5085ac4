"""The mathematics of mixtures: arrays and small frozen dataclasses in and out.

Nothing here reads a file, a clock, a database or a global seed. Weights travel by domain name at the
edges (`Mixture`, `Domains`) and as arrays in canonical (sorted) domain order inside.
"""
