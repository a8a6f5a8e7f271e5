"""Training: what a network learns, the sharded step, the loop over stages, checkpoints.

    Mixture ──► Objective.inputs ──► device ──┐
                                              ├─► one jitted, donated step ─► state, metrics ─► checkpoint, log, preview
    state (parameters, EMA, optimizer, step) ─┘

A `TrainConfig` is the whole recipe; `loop.train` runs it.
"""
