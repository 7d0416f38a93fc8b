"""A trained model on disk: its file, its sidecar, its maps, its threshold."""
