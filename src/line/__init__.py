"""Pictures as they come, on stdin or into a watched folder, and a line for each: what ``stpm_inspect`` does in C++."""
