"""Pages, pictures and tables of results."""
