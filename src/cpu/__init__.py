"""The network on numpy arrays, by oneDNN: faster on CPU than MindSpore's operators, and usable without them."""
