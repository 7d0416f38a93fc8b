"""Folders and pictures -> arrays."""
