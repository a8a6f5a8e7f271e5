"""Other editors' algorithms with the weights of the model that is measured, as methods of the benchmark: `listing`.

inversion   the input led up to noise ──► DDIM inversion, Pix2Video, EVE, BIVDiff, edit-friendly noise (`listing`)
lockstep    the input beside its edit ──► TokenFlow (`tokenflow`), FateZero (`fatezero`)
tuning      weights tuned on the clip ──► Tune-A-Video
atlas       two pictures under all frames (`motion_layers`, `layered_atlas`) ──► Text2LIVE
"""
