"""A training: teacher, optimiser, ranks, and the run on disk."""
