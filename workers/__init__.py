"""Whatever takes longer than a request: claims on job rows, and the processes that do the work."""
