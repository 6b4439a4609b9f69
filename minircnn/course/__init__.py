"""What only the notebooks need. Nothing in the rest of the package imports it."""
