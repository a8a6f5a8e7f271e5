"""Tasks started as srun starts those of launch/slurm.sbatch: the same command, the same environment, nothing else."""

import os
import random
import signal
import socket

from launch_files import srun_command
from training_runs import Run, _context, _train, checkpoint_steps, log

END = 8  # of the first stage; the rest of the recipe would only compile more
MORE = ("--stage=1", "--config.checkpoint.every=100")


def job_with_free_port():
    """A number of a job, from which JAX makes the port of process 0."""
    while True:
        job = random.randrange(4096)
        with socket.socket() as probe:
            try:
                probe.bind(("localhost", 61440 + job))
            except OSError:
                continue
        return job + 4096 * 250


def srun_environment(job, tasks, task):
    """What Slurm's srun tells a task of a step on one node (https://slurm.schedmd.com/srun.html)."""
    step = dict(STEP_ID=0, STEP_NODELIST="localhost", STEP_NUM_NODES=1, STEP_NUM_TASKS=tasks, STEP_TASKS_PER_NODE=tasks)
    whole = dict(JOB_ID=job, JOB_NODELIST="localhost", NNODES=1, NODEID=0, NTASKS=tasks, NPROCS=tasks)
    values = {**whole, **step, "PROCID": task, "LOCALID": task}
    return {f"SLURM_{name}": str(value) for name, value in values.items()}


def task_of_step(environment, *arguments):
    os.environ.update(environment)
    _train(*arguments)


class Step:
    """A job step: the tasks of one srun."""

    def __init__(self, command, tasks, folder):
        import jax

        job, cache = job_with_free_port(), jax.config.jax_compilation_cache_dir
        self.runs = []
        for task in range(tasks):
            output = folder / f"{job}_{task}.txt"
            output.touch()
            arguments = (command[1:], str(output), 1, None, cache)
            environment = srun_environment(job, tasks, task)
            process = _context.Process(target=task_of_step, args=(environment, *arguments), daemon=True)
            process.start()
            self.runs.append(Run(process, output))

    def codes(self):
        return [run.wait() for run in self.runs]

    def texts(self):
        return [run.text for run in self.runs]


def told_to_end(command, tasks, told, workdir, folder):
    """Sends SIGTERM to those tasks; the step at which all have saved."""
    step = Step(command, tasks, folder)
    assert step.runs[0].until(lambda: (workdir / "tensorboard").exists())
    for task in told:
        os.kill(step.runs[task].pid, signal.SIGTERM)
    assert step.codes() == [75] * tasks, step.texts()
    (saved,) = checkpoint_steps(workdir)
    line = f"gen1: told to end; saved at step {saved}, the same command goes on"
    assert [run.said for run in step.runs] == [[line]] * tasks
    return saved


def test_two_tasks_train_save_when_one_is_told_to_end_and_go_on(recipe, tmp_path):
    workdir = tmp_path / "run"
    command = srun_command(recipe, workdir, tmp_path, *MORE)
    assert 0 < told_to_end(command, 2, [1], workdir, tmp_path) < END

    step = Step(command, 2, tmp_path)  # as Slurm does after scontrol requeue
    assert step.codes() == [0, 0], step.texts()
    assert checkpoint_steps(workdir)[-1] == END
    assert [entry["step"] for entry in log(workdir)] == list(range(1, END + 1))
    summaries = [f"{workdir}: step {END} of {2 * END}" in text for text in step.texts()]
    assert summaries == [True, False]  # one speaks for all


def test_four_tasks_save_at_one_step_when_all_are_told_to_end(recipe, tmp_path):
    workdir = tmp_path / "run"
    saved = told_to_end(srun_command(recipe, workdir, tmp_path, *MORE), 4, range(4), workdir, tmp_path)
    assert [entry["step"] for entry in log(workdir)] == list(range(1, saved + 1))
