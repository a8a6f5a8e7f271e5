"""`gen1 prepare --runner beam`: the same work on each video, spread by Apache Beam over any cluster.

 list of (index, path) ──► Create ──► Reshuffle ──► ParDo(prepare in a child process) ──► spool

Videos and output must lie at the same paths on all machines, on a file system that they share. The data set is then
made from the spool by the process that started the pipeline, as the local runner does.
"""

from collections.abc import Iterable, Sequence

from gen1_jax.data.prepare_pool import Lost, Worker
from gen1_jax.data.prepare_spool import SpoolTask, Task, save_error
from gen1_jax.errors import UserError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError:  # an extra; and a class has to be there when a machine of the cluster looks for it by name
    beam = None


class PrepareVideo(beam.DoFn if beam else object):
    """One child process for each thread of a Beam worker, so that a crash harms neither.

    Args:
        task: what is done.
        timeout: seconds without a further frame of a video.
    """

    def __init__(self, task: SpoolTask, timeout: float) -> None:
        self._task, self._timeout = task, timeout

    def setup(self) -> None:
        """Called by Beam once for each thread."""
        self._worker = Worker(self._task, self._timeout)

    def process(self, element: Task) -> Iterable[None]:
        """Prepares a video into the spool; hands on nothing."""
        result = self._worker.call(element)
        if isinstance(result, Lost):
            save_error(self._task.folder, element[0], result)
        return ()

    def teardown(self) -> None:
        """Called by Beam at the end."""
        self._worker.close()


def run_beam(task: SpoolTask, missing: Sequence[Task], *, timeout: float, arguments: Sequence[str] = ()) -> None:
    """Prepares videos into the spool; a bundle that is tried again does its videos again, with the same result.

    Args:
        task: what is done.
        missing: the videos.
        timeout: seconds without a further frame of a video.
        arguments: of the pipeline: its runner, workers, and so on.

    Raises:
        ValueError: Apache Beam is not installed.
        Exception: whatever Beam raises when the pipeline fails, or cannot be built from these arguments.
    """
    if beam is None:
        raise UserError("--runner beam needs Apache Beam; install it with: pip install 'gen1-jax[beam]'.")
    if not missing:
        return
    with beam.Pipeline(options=PipelineOptions(list(arguments))) as pipeline:
        _ = (
            pipeline
            | "List" >> beam.Create(list(missing), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Prepare" >> beam.ParDo(PrepareVideo(task, timeout))
        )
