"""Files that are shared with the C++ program."""
