"""Train the masked language model: one visible loop."""

import hashlib
import json
import logging
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from transenc.errors import ConfigError, DataError
from transenc.interrupt import stop_on_signals
from transenc.store import Store, fingerprint, hash_file, verify

from .checkpoints import (
    PLAN,
    STAGE,
    Identity,
    check_shape,
    checkpoints_of,
    load_moments,
    load_weights,
    newest_checkpoint,
    read_state,
    save_checkpoint,
)
from .corpus import RowOrder, TokenStream, read_sentences, repeat_sentences, seeded, segments, split_sentences
from .masking import mask_rows
from .model import build_model, masked_loss, start_from_counts, unigram_log_probabilities
from .settings import Settings, check_settings
from .vocabulary import SPECIALS, train_vocabulary

log = logging.getLogger(__name__)


def rate_at(step: int, settings: Settings) -> float:
    """Return the learning rate of a step: rise, constant, fall to 0.

    The constant part does not know the end, so the planned number of steps may be corrected while it lasts.
    """
    rise = min(1.0, (step + 1) / max(1, settings.warmup))
    fall_begins = decay_start(settings)
    fall = min(1.0, (settings.steps - step) / max(1, settings.steps - fall_begins))
    return settings.learning_rate * min(rise, fall)


def decay_start(settings: Settings) -> int:
    """Return the step from which the rate falls."""
    return round(settings.steps * (1 - settings.decay_share))


def pretrain(
    files: list[Path],
    run: Path,
    settings: Settings,
    *,
    vocabulary_size: int = 8192,
    device: str = "cpu",
    compiled: bool = False,
    until: int | None = None,
    checkpoint_seconds: float = 300.0,
    evaluate_every: int = 500,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> PreTrainedModel:
    """Read the corpus, make the vocabulary once, and train in the run directory that this process locks.

    compiled: through torch.compile, which takes a C++ compiler: half as fast again, other last bits. until: stop
    with a checkpoint at this step, before the planned end. Ctrl-C and SIGTERM end it after the next
    checkpoint by raising Interrupted.
    """
    check_settings(settings)
    store = Store(run)
    with store.lock(), stop_on_signals() as flag:
        start = Path(settings.start) if settings.start else None
        if start:
            weights = weights_of(start)
            check_shape(weights.parent, asdict(settings))
            settings = replace(settings, start=hash_file(weights))
        sentences, held_out = split_sentences(read_sentences(files))
        tokenizer = vocabulary_of(store, sentences, vocabulary_size, start)
        streams = [TokenStream.encode(part, tokenizer) for part in (sentences, held_out)]
        del sentences, held_out  # the ids are all that is needed now
        model = fit(
            *streams,
            tokenizer,
            settings,
            run,
            start=start,
            device=device,
            compiled=compiled,
            until=until,
            checkpoint_seconds=checkpoint_seconds,
            evaluate_every=evaluate_every,
            stopping=lambda: flag.requested,
            on_log=on_log,
        )
        flag.check()
        return model


def weights_of(run: Path) -> Path:
    """Return the weights of a run's newest checkpoint, verified."""
    folders = sorted((run / "checkpoints" / STAGE).glob("step-*"))
    if not folders:
        raise ConfigError(f"{run} holds no checkpoint. Run `python -m examples.pretrain_mini train` first.")
    verify(folders[-1])
    return folders[-1] / "weights.safetensors"


def vocabulary_of(store: Store, sentences: list[str], size: int, start: Path | None = None) -> Tokenizer:
    """Return the vocabulary of a run, trained on its first start, or taken from `start`, and kept as a stage."""
    identity = fingerprint({"size": size, "sentences": digest("\n".join(sentences).encode())})
    if not store.finished("vocabulary", identity):
        with store.stage("vocabulary", identity) as folder:
            if start:
                verify(start / "vocabulary")
                shutil.copyfile(start / "vocabulary" / "tokenizer.json", folder / "tokenizer.json")
            else:
                train_vocabulary(sentences, size).save(str(folder / "tokenizer.json"))
    return Tokenizer.from_file(str(store.path("vocabulary") / "tokenizer.json"))


def fit(
    training: TokenStream,
    held_out: TokenStream,
    tokenizer: Tokenizer,
    settings: Settings,
    run: Path,
    *,
    start: Path | None = None,
    device: str = "cpu",
    compiled: bool = False,
    until: int | None = None,
    checkpoint_seconds: float = 300.0,
    evaluate_every: int = 500,
    stopping: Callable[[], bool] = lambda: False,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> PreTrainedModel:
    """Train, or go on from the newest whole checkpoint in `run`; the result depends on the settings alone.

    `stopping` is asked after every step; once it says so, fit saves a checkpoint and returns.
    """
    check_settings(settings)
    size = tokenizer.get_vocab_size()
    order = RowOrder(training, length=settings.row_length, rows_per_step=settings.rows, seed=settings.seed)
    judge_batches = held_out_batches(held_out, settings, tokenizer)
    torch.manual_seed(settings.seed)
    model = new_model(settings, size)
    identity = Identity(asdict(settings), digest(tokenizer.to_str().encode()), digest(training.ids.tobytes()))
    checkpoints = checkpoints_of(run, identity)
    folder = newest_checkpoint(checkpoints, identity)
    if folder is None and start:
        load_weights(weights_of(start).parent, model)
    elif folder is None and settings.window:
        start_from_counts(
            model, training, window=settings.window, seed=settings.seed, std=settings.embedding_std
        )
    model.to(device)
    optimizer = new_optimizer(model, settings)
    first_step, seconds_before = 0, 0.0
    if folder is not None:
        state = read_state(folder)
        check_new_plan(Settings(**state["identity"]["settings"]), settings, state["step"])
        load_weights(folder, model)
        load_moments(folder, model, optimizer)
        first_step, seconds_before = state["step"], state["seconds"]
        log.info("going on from %s", folder)
    run.mkdir(parents=True, exist_ok=True)
    model.train()  # with dropout 0 this changes nothing
    loss_of = torch.compile(masked_loss) if compiled else masked_loss

    def batch_of(step: int) -> Batch:
        rows = order.at(step)
        if settings.repeat:
            rng = seeded(settings.seed, "repeat", step)
            rows = repeat_sentences(rows, settings.repeat, training.sep_id, rng)
        batch = prepare(rows, seeded(settings.seed, "mask", step), settings.mask_rate, tokenizer, "cpu")
        # A GPU fetches a batch from pinned memory without waiting for the steps before it.
        return tuple(tensor.pin_memory() for tensor in batch) if device.startswith("cuda") else batch

    begun = last_saved = time.perf_counter()
    losses: list[torch.Tensor] = []
    with (run / "log.jsonl").open("a", encoding="utf-8") as journal:
        for step, ready in enumerate(ahead(batch_of, range(first_step, settings.steps)), first_step):
            rate = rate_at(step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            if settings.dropout:
                # Reseeded each step, so that resuming meets the same dropout masks.
                torch.manual_seed(int(seeded(settings.seed, "dropout", step).integers(2**62)))
            batch = tuple(tensor.to(device, non_blocking=True) for tensor in ready)
            with torch.autocast(
                torch.device(device).type, torch.bfloat16, enabled=settings.precision == "bf16"
            ):
                loss = loss_of(model, *batch)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())

            done = step + 1
            if done % evaluate_every == 0 or done == settings.steps:
                mean_loss = torch.stack(losses).mean().item()
                losses.clear()
                if not math.isfinite(mean_loss):
                    raise ConfigError(f"The loss is {mean_loss} at step {done}. Lower --learning-rate.")
                line = {
                    "step": done,
                    "tokens": done * settings.rows * settings.row_length,
                    "loss": mean_loss,
                    "held_out": held_out_loss(model, judge_batches, device, settings.precision),
                    "gradient_norm": norm.item(),
                    "lr": rate,
                    "seconds": round(seconds_before + time.perf_counter() - begun, 1),
                }
                journal.write(json.dumps(line) + "\n")
                journal.flush()
                if on_log:
                    on_log(line)
            stop = stopping() or done == until
            if stop or done == settings.steps or time.perf_counter() - last_saved >= checkpoint_seconds:
                state = {
                    "identity": asdict(identity),
                    "seconds": seconds_before + time.perf_counter() - begun,
                }
                save_checkpoint(checkpoints, done, model, optimizer, state)
                last_saved = time.perf_counter()
            if stop:
                break
    return model.eval()


def ahead(work: Callable[[int], Any], items: Iterable[int], depth: int = 3) -> Iterator[Any]:
    """Yield work(item) of every item in order, done in a thread up to `depth` items before they are asked for."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Any]] = deque()
        for item in items:
            waiting.append(thread.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def new_model(settings: Settings, vocabulary_size: int) -> PreTrainedModel:
    """Create the untrained model that the settings describe."""
    names = ("norm", "layers", "width", "ffn", "heads", "positions", "dropout")
    return build_model(vocabulary_size=vocabulary_size, **{name: getattr(settings, name) for name in names})


def new_optimizer(model: PreTrainedModel, settings: Settings) -> torch.optim.AdamW:
    """Create AdamW that decays matrices but neither biases nor norms."""
    parameters = list(model.parameters())
    groups = [
        {
            "params": [weight for weight in parameters if weight.ndim > 1],
            "weight_decay": settings.weight_decay,
        },
        {"params": [weight for weight in parameters if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def prepare(
    rows: np.ndarray, rng: np.random.Generator, mask_rate: float, tokenizer: Tokenizer, device: str
) -> Batch:
    """Mask rows and move them to the device, in the order that `masked_loss` takes."""
    masked = mask_rows(
        rows,
        rng,
        rate=mask_rate,
        mask_id=tokenizer.token_to_id("[MASK]"),
        specials=len(SPECIALS),
        vocabulary_size=tokenizer.get_vocab_size(),
    )
    types = segments(rows, tokenizer.token_to_id("[SEP]"))
    arrays = (masked.inputs, types.astype(np.int64), masked.positions, masked.targets)
    inputs, token_types, positions, targets = (torch.from_numpy(array).to(device) for array in arrays)
    return inputs, token_types, positions, targets


def held_out_batches(
    held_out: TokenStream, settings: Settings, tokenizer: Tokenizer, rows: int | None = 512
) -> list[Batch]:
    """Mask the first held-out rows (None: all) once, always at 15%, so that runs stay comparable."""
    chosen = held_out.rows(settings.row_length)[:rows]
    if not len(chosen):
        raise DataError(
            "The held-out 2% of the corpus does not fill one row. Give more text, or a smaller --row-length."
        )
    cuts = range(0, len(chosen), 64)
    return [prepare(chosen[cut : cut + 64], seeded("held-out", cut), 0.15, tokenizer, "cpu") for cut in cuts]


@torch.no_grad()
def held_out_loss(
    model: PreTrainedModel, batches: list[Batch], device: str, precision: str = "fp32"
) -> float:
    """Return the mean cross-entropy over all masked held-out tokens."""
    training = model.training
    model.eval()
    total = count = 0.0
    for batch in batches:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            loss = masked_loss(model, *(tensor.to(device) for tensor in batch))
        total, count = total + loss.item() * len(batch[2]), count + len(batch[2])
    model.train(training)
    return total / count


def unigram_loss(training: TokenStream, batches: list[Batch], vocabulary_size: int) -> float:
    """Return the loss on the same masked tokens of a model that knows only how frequent each token is."""
    log_probabilities = unigram_log_probabilities(training.counts(vocabulary_size))
    targets = torch.cat([batch[3] for batch in batches]).numpy()
    return float(-log_probabilities[targets].mean())


def digest(content: bytes) -> str:
    """Return the sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def check_new_plan(old: Settings, new: Settings, step: int) -> None:
    """Refuse another end of the run once either plan has begun to lower the learning rate."""
    changed = [f"{name} {getattr(old, name)}" for name in PLAN if getattr(old, name) != getattr(new, name)]
    if changed and step > min(decay_start(old), decay_start(new)):
        raise ConfigError(
            f"The checkpoint of step {step} was planned with {' and '.join(changed)}, and the learning rate already "
            "falls in that plan or in the one asked for. Give the same plan, or another --run directory."
        )
