"""The page of `gen1 app`: `page`, `endpoint` and the files of fields draw it with Gradio, which all else knows
nothing of.
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
