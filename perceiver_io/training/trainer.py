"""The loop: batches to gradients to updates, with what a long run needs around it."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from perceiver_io.fast.compiled_blocks import compile_blocks
from perceiver_io.models.config import ModelConfig
from perceiver_io.training.averaging import AveragedWeights
from perceiver_io.training.device_batches import copied, on_device
from perceiver_io.training.distributed import (
    any_process,
    distribute,
    gradient_exchange,
    mean_over_processes,
    world,
)
from perceiver_io.training.fingerprints import described, fingerprint
from perceiver_io.training.finiteness import Finiteness
from perceiver_io.training.gradients import global_norm, gradients_of, known_norm
from perceiver_io.training.interruption import Interruption, obey_the_trainer_alone
from perceiver_io.training.metrics_log import METRICS_FILE, MetricsLog, Mirror
from perceiver_io.training.pace import Pace
from perceiver_io.training.progress import Progress
from perceiver_io.training.run_directory import occupied
from perceiver_io.training.sampling import DrawSampler, derived_seed
from perceiver_io.training.schedules import Schedule
from perceiver_io.training.settings import (
    AUTOCAST,
    Batch,
    Dataset,
    Evaluation,
    FinishedOnDevice,
    Objective,
    Precision,
    TrainerConfig,
)
from perceiver_io.training.sharded_state import ShardWriter
from perceiver_io.training.step_cost import first_examples, step_cost
from perceiver_io.training.training_state import DATA, full_state_dict, load_state, previous, save_state
from perceiver_io.training.worker_errors import as_raised

__all__ = ["STATE_FILE", "Batch", "Dataset", "Evaluation", "Objective", "Precision", "Trainer", "TrainerConfig"]

STATE_FILE = "state.pt"
# Steps on a GPU whose losses nobody has looked at.
_MOST_UNCHECKED_STEPS = 10
# Examples that tell the data from others, where these do not say themselves what does.
_LOOKED_AT = 8


class Trainer:
    """Trains a model, alone or as one of the processes inside `process_group`.

    The directory gets `state.pt` and `state.previous.pt`, from which the same run goes on when it is started again,
    `metrics.jsonl` and `tensorboard/`; several processes must see the same directory. A parameter that does not require
    a gradient is frozen, and a module whose parameters all are stays in evaluation mode.

    Args:
        model: placed on `config.device` here.
        objective: runs the model on a batch and returns scalars: "loss", which must be a mean over the batch, and
            others to log. It calls the model itself, not its parts, and draws random numbers from the generator (on the
            CPU) that it is given. Its method `prepare`, if it has one, maps a batch to another before this is copied to
            the device: values are at hand there. With "fsdp" a parameter must serve in all micro-batches or in none.
        dataset: see `Dataset`.
        config: see there.
        directory: of the run.
        make_optimizer: maps the model, ready for several processes, to its optimiser at the peak learning rate.
        schedule: maps a step to the factor of the peak learning rate.
        evaluate: maps the model, in evaluation mode and without gradients, to figures. Every process calls it.
        mirror: gets the figures, too, in the first process.

    Raises:
        ValueError: for a data set without examples, or a strategy that does not fit the processes.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        dataset: Dataset,
        config: TrainerConfig,
        directory: Path,
        *,
        make_optimizer: Callable[[nn.Module], Optimizer],
        schedule: Schedule,
        evaluate: Evaluation | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.config = config
        self.directory = directory
        self.objective = objective
        self.dataset = dataset
        self.schedule = schedule
        self.evaluate = evaluate
        self.mirror = mirror
        self.model = model.to(config.device)
        self._pace = self._new_pace()
        if config.compiled:
            compile_blocks(self.model)
        self._trained = distribute(_Step(self.model, objective), self.model, config.strategy)
        self._average = None if config.average_decay is None else AveragedWeights(self.model, config.average_decay)
        self.optimizer = make_optimizer(self.model)
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._scaler = GradScaler(config.device.type, enabled=config.precision == "float16")
        # To look at a value, a GPU is waited for; float16's scale is looked at in every step anyway.
        is_waited_for = config.device.type != "cuda" or self._scaler.is_enabled()
        self._finiteness = Finiteness(most_steps=1 if is_waited_for else _MOST_UNCHECKED_STEPS)
        self._saved_step = self._begun_step = 0
        self._shards = ShardWriter() if config.strategy == "fsdp" else None

    def fit(self) -> dict[str, float]:
        """Trains from the saved state, or the start, to the end; returns the figures of the last evaluation.

        Without an evaluation these are the last step's. The state is saved before an evaluation, and after a signal
        (SIGINT, SIGTERM) that comes during a step.

        Raises:
            FloatingPointError: when the loss or the gradient is not finite, naming the step and its examples; on GPUs
                up to ten steps later, but before such weights are saved or evaluated.
            ValueError: if the directory holds the state of another run, or damaged ones, or is another run's right now.
            OSError: if a file cannot be written, with its name.
            KeyboardInterrupt: after such a signal; says how to go on.
        """
        is_first = world().rank == 0
        files = [STATE_FILE, previous(self._state_path).name, METRICS_FILE]
        with (
            occupied(self.directory, files) if is_first else nullcontext(),
            Interruption(alone=world().size == 1) as interruption,
        ):
            try:
                with interruption.at_once():
                    self._run = self._definition()
                    start = self._saved_step = self._begun_step = self._load_state()
                    self._set_training_mode()
                with MetricsLog(self.directory, start, self.mirror) if is_first else nullcontext() as log:
                    return self._train(start, log, interruption)
            except KeyboardInterrupt as interrupt:
                raise KeyboardInterrupt(self._way_on()) from interrupt

    def _train(self, start: int, log: MetricsLog | None, interruption: Interruption) -> dict[str, float]:
        config = self.config
        values = self._evaluated_after(start, log, interruption) if start else {}
        if start == config.num_steps:
            return values
        loader: DataLoader[Batch] = DataLoader(
            self.dataset,  # type: ignore[arg-type]  # its examples are asked for by draws
            batch_sampler=self._sampler(start),
            num_workers=config.num_workers,
            pin_memory=config.device.type == "cuda",
            worker_init_fn=obey_the_trainer_alone,
            collate_fn=self.dataset.collate if isinstance(self.dataset, FinishedOnDevice) else None,
        )
        finish = self.dataset.finish if isinstance(self.dataset, FinishedOnDevice) else copied
        batches = on_device(self._prepared(as_raised(loader)), config.device, finish)
        progress = Progress(start, config.num_steps, enabled=log is not None or world().rank == 0)
        self._pace.start()
        for step in range(start + 1, config.num_steps + 1):
            figures = self._update(step, batches)
            self._pace.step()
            is_last = step == config.num_steps
            is_logged = is_last or step % config.log_every == 0
            if is_logged:
                self._check_finite()
                pace = {name: figures["loss"].new_tensor(value) for name, value in self._pace.figures().items()}
                values = mean_over_processes({**figures, **pace})
                if log is not None:
                    log.write(step, "training", values)
            if is_logged or step == start + 1:
                progress.update(step, float(figures["loss"]), values)
            else:
                progress.update(step)
            is_stopped = any_process(interruption.is_requested)
            is_evaluated = self._is_evaluated(step)
            is_settled = is_last or is_stopped or is_evaluated
            if is_settled or _is_due(step, config.checkpoint_every):
                self._check_finite()
                with self._pace.aside():
                    self._save(step)
                    self._settle(wait=is_settled)
            else:
                self._settle(wait=False)
            if is_stopped:
                raise KeyboardInterrupt
            if is_evaluated:
                values = self._evaluated_after(step, log, interruption)
        progress.close()
        return values

    def full_state_dict(self) -> dict[str, Any]:
        """The model's state dict as a single process would have it; all processes must call this, the first has it.

        Where an average of the weights is kept it is that.
        """
        return full_state_dict(self.model, self._average)

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.in_place()

    def _update(self, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        config = self.config
        rate = self.schedule(step - 1)
        for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * rate
        micro_batches = []
        for micro_batch in range(config.accumulation):
            with gradient_exchange(self._trained, self.model, enabled=micro_batch == config.accumulation - 1):
                with self._pace.waiting():
                    batch = next(batches)
                figures = self._figures(step, micro_batch, batch)
                self._scaler.scale(figures["loss"] / config.accumulation).backward()
            micro_batches.append({name: value.detach().float() for name, value in figures.items()})
        norm = self._unscaled_gradient_norm()
        self._finiteness.note(step, [figures["loss"] for figures in micro_batches], norm)
        if self._finiteness.is_due:
            self._check_finite()
        with known_norm(self.optimizer, norm):
            self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()
        if self._average is not None:
            self._average.update(step - 1)
        means = {name: torch.stack([m[name] for m in micro_batches]).mean() for name in micro_batches[0]}
        return {**means, "gradient_norm": norm, "learning_rate": torch.full_like(norm, self._peak_rates[0] * rate)}

    def _prepared(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        prepare = getattr(self.objective, "prepare", None)
        return batches if prepare is None else map(prepare, batches)

    def _unscaled_gradient_norm(self) -> Tensor:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            if parameter.grad is None:  # the batch had no use for it; in the reference its gradient is then 0
                parameter.grad = torch.zeros_like(parameter)
        self._scaler.unscale_(self.optimizer)
        return global_norm(gradients_of(self.optimizer))

    def _figures(self, step: int, micro_batch: int, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        # Random numbers start anew for each micro-batch, those of dropout too, so that a resumed run repeats them.
        numbers = (config.seed, step, micro_batch, world().rank)
        torch.manual_seed(derived_seed(*numbers, 0))
        generator = torch.Generator().manual_seed(derived_seed(*numbers, 1))
        with torch.autocast(config.device.type, AUTOCAST.get(config.precision), enabled=config.precision in AUTOCAST):
            return self._trained(batch, generator)

    def _check_finite(self) -> None:
        # While the scale of float16's gradients is too high they overflow, and GradScaler leaves the update out.
        may_overflow = self._scaler.is_enabled() and self._scaler.get_scale() > 1
        found = self._finiteness.look(gradients_may_overflow=may_overflow)
        if found is None:
            return
        step, micro_batch, value = found
        what = f"the gradient's norm is {value}" if micro_batch is None else f"the loss is {value}"
        micro_batches = range(self.config.accumulation) if micro_batch is None else (micro_batch,)
        sampler = self._sampler(0)
        examples = [str(draw.index) for number in micro_batches for draw in sampler.draws(step - 1, number)]
        rank, size = world()
        where = f"step {step}" + (f" in process {rank}" if size > 1 else "")
        raise FloatingPointError(
            f"{what} at {where}, with examples {', '.join(examples)}; look at these, or lower the learning rate"
        )

    def _is_evaluated(self, step: int) -> bool:
        is_due = step == self.config.num_steps or _is_due(step, self.config.evaluate_every)
        return self.evaluate is not None and is_due

    def _evaluated_after(self, step: int, log: MetricsLog | None, interruption: Interruption) -> dict[str, float]:
        """The figures of an evaluation that is due after a step, and not logged yet unless the run is over."""
        is_missing = any_process(log is not None and not log.has(step, "evaluation"))
        if not self._is_evaluated(step) or not (is_missing or step == self.config.num_steps):
            return {}
        assert self.evaluate is not None
        self.model.eval()
        with torch.no_grad(), self._averaged(), self._pace.aside(), interruption.at_once():
            values = self.evaluate(self.model)
        self._set_training_mode()
        if log is not None and is_missing:
            log.write(step, "evaluation", values)
        return values

    def _way_on(self) -> str:
        """Says, for whoever ended the run, how to go on."""
        if not self._saved_step:
            return f"interrupted before a state was saved in {self.directory}; the same command starts again"
        return (
            f"interrupted; {self._state_path} holds step {self._saved_step} of {self.config.num_steps}, and the same "
            "command goes on from it"
        )

    def _set_training_mode(self) -> None:
        self._trained.train()
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()

    def _save(self, step: int) -> None:
        self._settle(wait=True)
        save_state(
            self._state_path,
            step,
            self.model,
            self.optimizer,
            self._scaler,
            self._run,
            average=self._average,
            shards=self._shards,
        )
        self._begun_step = step

    def _settle(self, *, wait: bool) -> None:
        """Makes the state that was begun the last one, once every process has written its part."""
        if self._shards is not None and self._shards.is_busy():
            if not wait and any_process(not self._shards.is_done()):
                return
            self._shards.finish()
        self._saved_step = self._begun_step

    def _new_pace(self) -> Pace:
        """Knows the work of an example where it is of use, to say how much of the device is used."""
        config = self.config
        examples = config.batch_size * config.accumulation
        if config.peak_flops is None:
            return Pace(examples)
        batch = {name: tensor.to(config.device) for name, tensor in first_examples(self.dataset, 2).items()}
        cost = step_cost(self.model.train(), self.objective, batch, checkpointing=False)
        return Pace(examples, cost.flops // 2, config.peak_flops)

    def _sampler(self, start: int) -> DrawSampler:
        rank, size = world()
        return DrawSampler(
            len(self.dataset),
            batch_size=self.config.batch_size,
            accumulation=self.config.accumulation,
            num_steps=self.config.num_steps,
            rank=rank,
            world_size=size,
            seed=self.config.seed,
            start_step=start,
        )

    @property
    def _state_path(self) -> Path:
        return self.directory / STATE_FILE

    def _load_state(self) -> int:
        start = load_state(self._state_path, self.model, self.optimizer, self._scaler, self._run, self._average)
        here = torch.tensor(float(start), device=self.config.device)
        if mean_over_processes({"step": here})["step"] != start:
            raise ValueError(f"not all processes see the same {self._state_path}; use a directory that they share")
        return start

    def _definition(self) -> dict[str, Any]:
        """All that must stay the same for a run to go on. How processes and micro-batches share the work may change."""
        config = self.config
        settings = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in self.optimizer.param_groups
        ]
        model_config = getattr(self.model, "config", None)
        fields = model_config.to_dict() if isinstance(model_config, ModelConfig) else {}
        parameters = dict(self.model.named_parameters())
        examples = DrawSampler(len(self.dataset), batch_size=_LOOKED_AT, num_steps=1)
        return {
            "number of steps": config.num_steps,
            "batch size, times accumulation and processes": config.batch_size * config.accumulation * world().size,
            "precision": config.precision,
            "average's decay": config.average_decay,
            "seed": config.seed,
            "number of examples": len(self.dataset),
            DATA: fingerprint(self.dataset, examples.draws(0)),
            "objective": described(self.objective) if dataclasses.is_dataclass(self.objective) else "",
            "optimizer": type(self.optimizer).__name__,
            "optimizer's settings": settings,
            "peak learning rates": self._peak_rates,
            "schedule at its quarters": [self.schedule(part * config.num_steps // 4) for part in range(5)],
            "shape": {name: list(tensor.shape) for name, tensor in self.model.state_dict().items()},
            "requires_grad": {name: parameter.requires_grad for name, parameter in parameters.items()},
            **{f"model's {name}": value for name, value in fields.items()},
        }


class _Step(nn.Module):
    """Maps a batch to the figures of an objective, of which the loss alone has a gradient."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        figures = self.objective(self.model, batch, generator)
        return {name: value if name == "loss" else value.detach() for name, value in figures.items()}


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
