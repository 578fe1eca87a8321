"""The built-in jobs, and whoever runs them on schedule: one runner for each root, over all processes."""
