"""Domain sets and their immutable revisions."""
