"""The plumbing of the notebooks. The lessons themselves are in the cells."""
