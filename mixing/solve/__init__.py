"""The best mixture under caps and other constraints: `convex` solves exactly, `search` searches any regression."""
