"""Keep the state of a pretraining in the project's run store: committed whole, verified before use."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from transenc.errors import ConfigError, DamagedError
from transenc.store import Checkpoints, Store, canonical, fingerprint, verify

STAGE = "pretrain"
PLAN = ("steps", "decay_share")  # settings that may be corrected while the rate is constant
SHAPE = ("layers", "width", "ffn", "heads", "positions", "norm")  # settings that weights fit or do not


@dataclass(frozen=True)
class Identity:
    """Say what a checkpoint belongs to: equal identities continue each other."""

    settings: Mapping[str, Any]
    vocabulary: str
    corpus: str

    def fingerprint(self) -> str:
        """Hash everything but the plan of the end, which may be corrected on the way."""
        settings = {name: value for name, value in self.settings.items() if name not in PLAN}
        return fingerprint({"settings": settings, "vocabulary": self.vocabulary, "corpus": self.corpus})


def checkpoints_of(run: Path, identity: Identity) -> Checkpoints:
    """Return the checkpoints of a run directory."""
    return Store(run).checkpoints(STAGE, identity.fingerprint())


def save_checkpoint(
    checkpoints: Checkpoints,
    step: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Commit weights, moments and `state` as one directory; the one before is dropped only after that."""

    def write(folder: Path) -> None:
        # named_parameters lists tied weights once, as safetensors needs them.
        parameters = dict(model.named_parameters())
        moments = {
            f"{name}/{kind}": value
            for name, weight in parameters.items()
            for kind, value in optimizer.state.get(weight, {}).items()
        }
        for file, tensors in (("weights", parameters), ("optimizer", moments)):
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(plain, folder / f"{file}.safetensors")
        (folder / "state.json").write_bytes(canonical({"step": step, **state}))

    checkpoints.save(step, write)


def newest_checkpoint(checkpoints: Checkpoints, identity: Identity) -> Path | None:
    """Return the newest whole checkpoint; refuse one of other settings, naming each difference."""
    if found := checkpoints.latest():
        return found
    for folder in sorted(checkpoints.folder.glob("step-*"), reverse=True):
        try:
            verify(folder)
        except DamagedError:
            continue  # `latest` has already warned
        differences = "; ".join(differing(read_state(folder)["identity"], identity))
        raise ConfigError(
            f"{folder} was made with other settings ({differences}). "
            "Give the same ones, or another --run directory."
        )
    return None


def differing(old: Mapping[str, Any], new: Identity) -> list[str]:
    """Name what differs between a checkpoint's identity and the one asked for."""
    found = changed(old["settings"], new.settings, [name for name in new.settings if name not in PLAN])
    found += [f"another {what}" for what in ("vocabulary", "corpus") if old[what] != getattr(new, what)]
    return found


def changed(old: Mapping[str, Any], new: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Say which of the named settings differ, and how."""
    return [f"{n} is {old.get(n)!r} there, {new[n]!r} here" for n in names if old.get(n) != new[n]]


def check_shape(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to start from weights of another shape, naming each difference."""
    differences = changed(read_state(folder)["identity"]["settings"], wanted, SHAPE)
    if differences:
        raise ConfigError(
            f"--start: {folder} holds a model of another shape ({'; '.join(differences)}). Give the same settings."
        )


def read_state(folder: Path) -> dict[str, Any]:
    """Return the JSON part of a checkpoint."""
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def load_weights(folder: Path, model: torch.nn.Module) -> None:
    """Put a checkpoint's weights into a model of the same shape."""
    weights = load_file(folder / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def load_moments(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's optimizer moments back, each beside its parameter."""
    for key, value in load_file(folder / "optimizer.safetensors").items():
        name, _, kind = key.rpartition("/")
        parameter = model.get_parameter(name)
        optimizer.state[parameter][kind] = value.to(parameter.device)
