"""Arrays -> numbers: metrics, thresholds, regions."""
