"""Editing: what `gen1 edit` does."""
