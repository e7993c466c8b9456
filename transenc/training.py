"""One visible training loop that can stop at any step and continue exactly."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from transenc.averaging import Average, Weights
from transenc.errors import DataError
from transenc.gradients import RowGradients
from transenc.interrupt import StopFlag
from transenc.models.device import Compute
from transenc.pairs import Index
from transenc.progress import Progress
from transenc.seeds import derive, random_state_kept
from transenc.store import canonical

if TYPE_CHECKING:
    from transenc.config import FitSettings
    from transenc.store import Checkpoints

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 600.0
LOSS_WINDOW = 50  # steps that one point of the recorded loss curve averages


@dataclass
class Fitted:
    """What training did: development scores and mean losses by step, and the step whose weights were kept."""

    history: list[tuple[int, float]] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best: float | None = None
    limit: int = 0  # the step after which a trial stopped


def read_history(path: Path) -> Fitted:
    """Read what `save_history` wrote."""
    raw = json.loads((path / "training.json").read_text(encoding="utf-8"))
    history = [(int(step), float(value)) for step, value in raw["history"]]
    losses = [(int(step), float(value)) for step, value in raw["losses"]]
    return Fitted(history, losses, int(raw["best_step"]), raw["best"])


def save_history(path: Path, fitted: Fitted) -> None:
    """Write what training did beside the model."""
    content = {
        "best_step": fitted.best_step,
        "best": fitted.best,
        "history": fitted.history,
        "losses": fitted.losses,
    }
    (path / "training.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@dataclass
class Fit:
    """Everything `fit` needs besides the module and its loss.

    seed, stage: decide order and dropout. evaluate: the development score (higher is better), or None to keep
    the last weights. changed: called after every change of the weights. checkpoint_every: steps between checkpoints,
    which do not change the result; None goes by time. words: the rows of word embeddings that the examples have; None
    where that is not known. limit: the share of the steps after which a trial stops, with a checkpoint.
    """

    settings: FitSettings
    compute: Compute
    seed: int
    stage: str
    checkpoints: Checkpoints | None = None
    evaluate: Callable[[], float] | None = None
    changed: Callable[[], None] = lambda: None
    stop: StopFlag = field(default_factory=StopFlag)
    report: Callable[[Progress], None] = lambda progress: None
    checkpoint_every: int | None = None
    words: Mapping[nn.Parameter, Tensor] | None = None
    limit: float | None = None


def finite(loss: Tensor, stage: str, step: int) -> float:
    """Return the value of a loss; raise DataError naming the step where that is NaN or infinity."""
    value = float(loss.item())
    if not math.isfinite(value):
        raise DataError(f"{stage}: the loss is {value} at step {step}. Try a lower learning rate.")
    return value


def order(seed: int, stage: str, epoch: int, n: int) -> Index:
    """Return the random order of n examples in one epoch: a pure function of its arguments."""
    return np.random.Generator(np.random.PCG64(derive(seed, stage, "order", epoch))).permutation(n)


def learning_rate(step: int, steps: int, settings: FitSettings) -> float:
    """Return the rate of a step: linear warm-up, then linear decay to 0, or constant."""
    # The first step of a warm-up has rate 0, so it must not be the only step.
    warmup = min(math.ceil(settings.warmup * steps), steps - 1)
    if step < warmup:
        return settings.learning_rate * step / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (steps - step) / max(1, steps - warmup)


@random_state_kept()
def fit(module: nn.Module, n: int, loss_of: Callable[[Index], Tensor], run: Fit) -> Fitted:
    """Train `module` on n examples in place and leave the best (or last) weights in it.

    loss_of: examples' indices -> scalar loss with gradients. Raise DataError naming the step when it is not finite,
    and Interrupted, after a checkpoint, when a signal asked to stop.
    """
    settings = run.settings
    if n == 0:
        raise DataError(f"{run.stage}: there is nothing to train on.")
    # A batch of one has no negatives and cannot be dropped either, so only whole batches count when asked for.
    per_epoch = n // settings.batch_size if settings.drop_last else math.ceil(n / settings.batch_size)
    if per_epoch == 0:
        raise DataError(f"{run.stage}: {n} examples do not fill one batch of {settings.batch_size}.")
    steps = per_epoch * settings.epochs
    last = steps if run.limit is None else max(1, math.ceil(run.limit * steps))
    embeddings = RowGradients(module, run.words)
    optimizer = adamw(embeddings.trained, settings)
    result, best = Fitted(limit=last), None
    average = Average(settings.average, steps)
    done = 0
    window: list[float] = []  # losses since the last point of the curve
    latest = run.checkpoints.latest() if run.checkpoints else None
    if latest is not None:
        done, best, window = restore(latest, module, embeddings, optimizer, result, average)
        run.changed()
        logger.info("%s continues at step %d of %d.", run.stage, done, steps)
    elif settings.keep_start and run.evaluate is not None:
        result.best = run.evaluate()
        result.history.append((0, result.best))
        best = _copied(module)
    last_checkpoint = time.monotonic()
    module.train()
    for step in range(done, last):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == done:
            examples = order(run.seed, run.stage, epoch, n)
        index = examples[position * settings.batch_size : (position + 1) * settings.batch_size]
        # Reseeded at every step, so that evaluating, logging or resuming cannot shift dropout.
        torch.manual_seed(derive(run.seed, run.stage, "step", step))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, settings)
        with run.compute.training_pass(), embeddings.sparse():
            loss = loss_of(index)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        embeddings.gather()
        torch.nn.utils.clip_grad_norm_(embeddings.trained.values(), settings.max_grad_norm)
        optimizer.step()
        embeddings.write(optimizer)
        average.update(module, step + 1)
        run.changed()

        finished = step + 1
        value = finite(loss, run.stage, finished)
        window.append(value)
        if len(window) == LOSS_WINDOW or finished == steps:
            result.losses.append((finished, float(np.mean(window))))
            window = []
        # As in the reference, the count of steps between evaluations restarts at each epoch.
        due = (position + 1) % settings.evaluate_every == 0 or position + 1 == per_epoch
        ended = run.limit is not None and finished == last
        if run.evaluate is not None and (due or ended):
            with average.applied(module):
                run.changed()
                try:
                    metric = run.evaluate()
                except DataError as error:
                    told = f"{run.stage}: no development score at step {finished}: {error}"
                    # This step may have spoilt the weights after its loss was taken: NaN, or far beyond any model's.
                    spoilt = not all(bool((p.abs() < 1e6).all()) for p in module.parameters())
                    raise DataError(f"{told} Try a lower learning rate." if spoilt else told) from error
                if result.best is None or metric > result.best:
                    result.best, result.best_step = metric, finished
                    best = _copied(module)
            run.changed()
            module.train()
            result.history.append((finished, metric))
        run.report(Progress(run.stage, finished, steps, value, result.best))
        if run.checkpoints is not None and finished < steps:
            by_steps = run.checkpoint_every is not None and finished % run.checkpoint_every == 0
            by_time = run.checkpoint_every is None and time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS
            if by_steps or by_time or ended or run.stop.requested:
                state = _optimizer_tensors(embeddings.trained, optimizer)
                run.checkpoints.save(finished, saver(module, state, result, best, window, finished, average))
                last_checkpoint = time.monotonic()
        if finished < steps:
            run.stop.check()
    if best is not None:
        module.load_state_dict(best)
    elif run.evaluate is None:
        average.load(module)
        result.best_step = last
    run.changed()
    module.eval()
    with torch.no_grad():  # the last step's weights have had no loss yet
        finite(loss_of(np.arange(min(n, settings.batch_size, 8))), run.stage, last)
    return result


def adamw(trained: Mapping[str, nn.Parameter], settings: FitSettings) -> torch.optim.AdamW:
    """Return AdamW over parameters by their names that does not decay biases and normalisation weights."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in trained.items():
        if parameter.requires_grad:
            (free if parameter.ndim < 2 or name.endswith("bias") else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def saver(
    module: nn.Module,
    optimizer: Weights,
    result: Fitted,
    best: Weights | None,
    window: list[float],
    step: int,
    average: Average,
) -> Callable[[Path], None]:
    """Return the function that writes a checkpoint's files into a directory."""

    def write(path: Path) -> None:
        save_file(_plain(module.state_dict()), path / "weights.safetensors")
        if best is not None:
            save_file(_plain(best), path / "best.safetensors")
        if average.weights:
            save_file(_plain(average.weights), path / "average.safetensors")
        save_file(_plain(optimizer), path / "optimizer.safetensors")
        state = {
            "step": step,
            "history": result.history,
            "losses": result.losses,
            "window": window,
            "best": result.best,
            "best_step": result.best_step,
        }
        (path / "state.json").write_bytes(canonical(state))

    return write


def restore(
    path: Path,
    module: nn.Module,
    embeddings: RowGradients,
    optimizer: torch.optim.AdamW,
    result: Fitted,
    average: Average,
) -> tuple[int, Weights | None, list[float]]:
    """Load a checkpoint into what it was saved from; return the step, best weights and open loss window."""
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    module.load_state_dict(load_file(path / "weights.safetensors"))
    embeddings.read()
    _load_optimizer(embeddings.trained, optimizer, load_file(path / "optimizer.safetensors"))
    best = load_file(path / "best.safetensors") if (path / "best.safetensors").exists() else None
    if (path / "average.safetensors").exists():
        device = next(module.parameters()).device
        average.weights = {n: t.to(device) for n, t in load_file(path / "average.safetensors").items()}
    result.history = [(int(s), float(m)) for s, m in state["history"]]
    result.losses = [(int(s), float(v)) for s, v in state["losses"]]
    result.best, result.best_step = state["best"], int(state["best_step"])
    return int(state["step"]), best, [float(v) for v in state["window"]]


def _copied(module: nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _plain(tensors: Weights) -> Weights:
    # safetensors refuses memory shared between two names; clones of tied weights load back equal.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _optimizer_tensors(trained: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> Weights:
    tensors: Weights = {}
    for name, parameter in trained.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = value
    return tensors


def _load_optimizer(
    trained: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW, tensors: Weights
) -> None:
    for name, parameter in trained.items():
        state: dict[str, Any] = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if f"{name}/{key}" in tensors:
                value = tensors[f"{name}/{key}"]
                state[key] = value.to(parameter.device)
        if state:
            optimizer.state[parameter] = state
