"""Measuring models: the benchmark of edits whose right answer is known, its report, speed and memory.

`gen1_jax.measures` defines the measures.
"""
