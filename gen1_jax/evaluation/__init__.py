"""Measuring: speed, memory, and how good edits are."""
