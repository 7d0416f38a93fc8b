"""STPM on MindSpore: unsupervised visual anomaly detection (arXiv 2103.04257)."""
