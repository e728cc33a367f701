"""The tasks that `perceiver-io train` knows: for each, how its data become examples, a loss and an evaluation."""

from perceiver_io.training.tasks.task import Material, Task, TinyRun

__all__ = ["Material", "Task", "TinyRun"]
