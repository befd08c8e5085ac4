"""Access tokens: one a user or program, with scopes; stored as hashes only."""
