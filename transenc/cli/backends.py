"""`transenc backends`: what can be named, and with which options."""

from __future__ import annotations

from typing import Any

from transenc.cli import options


def backends(json_: options.Json = False) -> None:
    """List samplers, augmenters, families, embedded PLMs, objectives, recipes, tasks and engine devices here."""
    from transenc import config, registry, tasks
    from transenc.cli.console import out_json, wide_table
    from transenc.errors import TransencError

    rows: list[dict[str, Any]] = []
    optioned = {"sampler": registry.SAMPLERS, "augmenter": registry.AUGMENTERS}
    for kind, name in [(kind, name) for kind, group in optioned.items() for name in registry.names(group)]:
        listed: dict[str, str] = {}
        try:
            fields = registry.fields(optioned[kind], name).values()
            listed = {
                f.name: f"{f.default} ({f.metadata.get('help', getattr(f.type, '__name__', f.type))})"
                for f in fields
            }
        except TransencError as error:  # a broken plugin is shown, not fatal
            listed = {"broken": str(error)}
        rows.append({"kind": kind, "name": name, "about": "", "options": listed})
    groups = {**optioned, "family": registry.FAMILIES, "embedded PLM": registry.PLMS}
    described = {
        "family": dict.fromkeys(registry.names(registry.FAMILIES), ""),
        "embedded PLM": dict.fromkeys(registry.names(registry.PLMS), ""),
        "objective": config.OBJECTIVES,
        "recipe": {name: config.recipe_title(name) for name in config.recipes()},
        "task": {name: tasks.get(name).title for name in tasks.names()},
        "engine device": _devices(),
    }
    for kind, names in described.items():
        rows += [{"kind": kind, "name": name, "about": text, "options": {}} for name, text in names.items()]
    for row in rows:
        group = groups.get(row["kind"])
        row["package"] = " ".join(registry.owner(group, row["name"])) if group else ""
    if json_:
        for row in rows:
            out_json(row)
        return

    wide_table(
        ["kind", "name", "options", "package"],
        [
            [
                r["kind"],
                r["name"],
                r["about"] or "\n".join(f"{k}={v}" for k, v in r["options"].items()),
                r["package"],
            ]
            for r in rows
        ],
    )


def _devices() -> dict[str, str]:
    """Return the devices that engines can be asked for here, with onnxruntime's name of what runs them."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    named = {"CPU": "cpu", "CUDA": "cuda", "Tensorrt": "tensorrt"}
    found = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    version = onnxruntime.__version__
    return {
        named[name]: f"{name}ExecutionProvider of onnxruntime {version}" for name in named if name in found
    }
