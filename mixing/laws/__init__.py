"""Regression models: one task's metric predicted from the mixture, and how far to trust it.

One protocol: `fit(weights (runs, domains), metrics (runs, tasks), noise=None) -> fitted`, then
`fitted.predict(weights) -> mean, std` (both `(n, tasks)`) and `fitted.gradient(weights)` where it exists.
"""
