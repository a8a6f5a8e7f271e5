"""Data: sets of clips made and read without TensorFlow, and the Grain pipeline that turns them into batches.

render.py (synthetic worlds) ──┐                       ┌─► precompute.py ─┐
prepare*.py, shots.py (videos) ┴──► dataset.py (TFDS) ─┴──────────────────┴─► sources.py ─► loading.py ─► mixture.py
codec.py: how clips and depth are kept     config.py: what is mixed     batch.py: `Batch`     walk.py: `gen1 data`
"""
