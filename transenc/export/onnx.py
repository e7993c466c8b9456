"""Export a scorer to ONNX: graphs of several precisions, each kept only if it agrees with the model."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transenc import __version__, store
from transenc.errors import ConfigError, MachineError, ParityError
from transenc.export import convert
from transenc.export.engine import SCHEMA, SHORTEST, SIDECAR, Facts, load_engine
from transenc.export.latency import Latency, measure, table
from transenc.export.parity import MAX_DROP, Parity, Remembered, check_parity
from transenc.export.place import commit_at_close, place, refuse_other
from transenc.export.trace import OPSET, OPSETS, SCORED, contract, trace
from transenc.export.words import LIMITS, word_difference
from transenc.models.device import Compute
from transenc.models.layout import usage
from transenc.models.segments import SegmentModel
from transenc.models.transformer import evaluating
from transenc.pairs import Pairs
from transenc.scorer import Scorer

PRECISIONS = ("fp32", "fp16", "int8")
PLAIN, OPTIMIZED, HALF = "onnx/model.onnx", "onnx/model_O2.onnx", "onnx/model_fp16.onnx"
# The largest difference of a score or a vector's element. fp16 and int8 round, so there it finds what is broken;
# whether they are good enough is for Spearman to say.
TOLERANCE = {"fp32": 1e-4, "fp32-O2": 1e-4, "fp16": 1e-2, "int8": 0.25}
LATENCY = "latency.json"


@dataclass(frozen=True)
class GraphReport:
    """One graph that was kept. what: how it was made. fused: fused nodes by kind. size: bytes with its weights."""

    file: str
    what: str
    fused: dict[str, int]
    size: int
    sha256: str
    parity: Parity
    latency: Latency | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "file": self.file,
            "what": self.what,
            "fused": self.fused,
            "size": self.size,
            "sha256": self.sha256,
            "parity": self.parity.as_dict(),
            **({} if self.latency is None else {"latency": self.latency.as_dict()}),
        }


@dataclass(frozen=True)
class ExportReport:
    """What was written. notes: what the user should know of it, a line each."""

    path: Path
    family: str
    opset: int
    graphs: dict[str, GraphReport]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        graphs = {name: graph.as_dict() for name, graph in self.graphs.items()}
        return {
            "path": str(self.path),
            "family": self.family,
            "opset": self.opset,
            "graphs": graphs,
            "notes": list(self.notes),
        }


def export_onnx(
    scorer: Any,
    out: Path,
    *,
    pairs: Pairs,
    gold: Pairs | None = None,
    precisions: Sequence[str] = ("fp32",),
    optimize: bool = False,
    opset: int | None = None,
    tolerance: float | None = None,
    max_drop: float = MAX_DROP,
    source: str = "",
    card: str = "",
    benchmark: bool = False,
    check: Callable[[], None] = lambda: None,
    hold: ExitStack | None = None,
) -> ExportReport:
    """Write `out`, a directory that sentence-transformers and `load_engine` read, after comparing each graph.

    pairs: what engine and model are compared on, besides made-up texts of every length. gold: scored pairs on
    which an engine may lose at most `max_drop` of Spearman; None leaves that out. precisions: of "fp32",
    "fp16", "int8". optimize: add an fp32 graph with fused attention. opset: None takes 17. tolerance: the
    largest difference of scores and vectors; None takes that of each precision. source: the model's name, for
    the record. card: the model's README; "" writes a short one. benchmark: measure latency and put it beside
    the engine. check: called between steps; may raise to stop. hold: has the engine put in its place when it
    closes without an error, so that several engines are kept or none; None does that at once. The scorer is left
    as it was.

    Raises ConfigError when `out` exists and is no engine, and ParityError when a graph disagrees. After any
    error `out` is what it was before: nothing, or the old engine.
    """
    opset = OPSET if opset is None else opset
    _check_request(scorer, out, precisions, opset, source)
    if optimize and "fp32" not in precisions:
        raise ConfigError("--optimize adds a graph to that of fp32: ask for --precision fp32 as well.")
    weights = 4 * sum(p.numel() for p in scorer.module.parameters())
    with ExitStack() as own, evaluating(scorer.module):
        work = (hold or own).enter_context(place(out, size=weights * (len(precisions) + 3)))
        identity = _save_layout(scorer, work, card)
        made_of = {"name": source, "fingerprint": identity}
        model = Remembered(_reference(scorer))
        bench = _Bench(scorer, work, opset, made_of, model, pairs, gold, tolerance, max_drop, check)
        bench.make(precisions, optimize=optimize)
        bench.finish(benchmark=benchmark)
        graphs = {name: graph.what for name, graph in bench.graphs.items()}
        inputs = {"source": identity, "opset": opset, "graphs": graphs, "transenc": __version__}
        info = {"kind": "engine", **inputs}
        commit_at_close(hold or own, work, out, identity=store.fingerprint(inputs), info=info)
    return ExportReport(out, scorer.family, opset, bench.graphs, tuple(bench.notes))


@dataclass
class _Bench:
    """Make the graphs of one engine directory, one after the other, and let each pass the gate."""

    scorer: Any
    work: Path
    opset: int
    source: dict[str, str]
    model: Remembered
    pairs: Pairs
    gold: Pairs | None
    tolerance: float | None
    max_drop: float
    check: Callable[[], None]
    graphs: dict[str, GraphReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def make(self, precisions: Sequence[str], *, optimize: bool) -> None:
        scratch = self.work / "scratch"
        plain = (self.work if "fp32" in precisions else scratch) / PLAIN
        trace(self.scorer, plain, self.opset)
        self.check()
        if "fp32" in precisions:
            self.keep("fp32", PLAIN, "as traced")
        if optimize or "int8" in precisions:
            fused = (self.work if optimize else scratch) / OPTIMIZED
            counts = convert.fuse(plain, fused, self.scorer.module.config)
            self.check()
            if not any(counts.get(kind) for kind in convert.ATTENTION):
                kind = self.scorer.module.config.model_type
                self.notes.append(
                    f"attention is not fused: there is no fusion for '{kind}' models at opset {self.opset}"
                )
            if optimize:
                self.keep("fp32-O2", OPTIMIZED, "fused", counts)
        if "fp16" in precisions:
            convert.to_fp16(plain, self.work / HALF)
            self.keep("fp16", HALF, "half precision with fp32 inputs and outputs")
        if "int8" in precisions:
            self.make_int8(fused, counts)
        shutil.rmtree(scratch, ignore_errors=True)

    def make_int8(self, fused: Path, counts: dict[str, int]) -> None:
        """Try the ways of quantising in turn until one passes; raise ParityError with what all of them gave."""
        failed: list[tuple[convert.Choice, ParityError]] = []
        for choice in convert.choices():
            self.check()
            file = convert.int8_name(choice)
            layers = int(self.scorer.module.config.num_hidden_layers)
            products, tables = convert.to_int8(fused, self.work / file, choice, layers)
            if not products:
                self.drop(file)
                continue
            try:
                made = f"{choice.what}, per channel, {products} products"
                self.keep("int8", file, made + (", word embeddings per row" if tables else ""), counts)
                self.notes += [
                    f"int8 of {way.what} disagrees: {_short(each.numbers)}" for way, each in failed
                ]
                return
            except ParityError as error:
                failed.append((choice, error))
                self.drop(file)
        tried = "; ".join(f"{choice.what}: {_short(error.numbers)}" for choice, error in failed)
        raise ParityError(
            f"No int8 engine agrees with the model (--max-drop {self.max_drop:g}): {tried}. "
            "No engine was kept; raise --max-drop or --atol knowingly, or export fp32.",
            {"int8": {choice.what: error.numbers for choice, error in failed}},
        )

    def keep(self, name: str, file: str, what: str, fused: dict[str, int] | None = None) -> None:
        """Add a graph to the engine if it agrees with the model; raise ParityError otherwise."""
        gc.collect()  # onnxruntime's tools refer to themselves: several copies of a graph wait for this
        path = self.work / file
        size = sum(p.stat().st_size for p in (path, path.with_name(f"{path.name}_data")) if p.is_file())
        digest = store.hash_file(path)
        self.write({name: {"file": file}})
        engine = load_engine(self.work, precision=name)
        limit = TOLERANCE[name] if self.tolerance is None else self.tolerance
        try:
            parity = check_parity(
                self.model, engine, self.pairs, tolerance=limit, gold=self.gold, max_drop=self.max_drop
            )
        except ParityError as error:
            raise ParityError(f"{name}: {error}", {name: error.numbers}) from None
        self.compare_words(name, path)
        self.graphs[name] = GraphReport(file, what, fused or {}, size, digest, parity)
        self.check()

    def compare_words(self, name: str, path: Path) -> None:
        """Raise ParityError unless every word's embedding in a graph is the model's, but for its rounding."""
        found = word_difference(path, self.scorer.module)
        if found is not None and found[0] > LIMITS[name]:
            difference, row = found
            raise ParityError(
                f"{name}: the embedding of word {row} differs from the model's by {difference:.2g} of its largest "
                f"number (allowed {LIMITS[name]:.2g}). No engine was kept.",
                {name: {"worst": difference, "ranks": None}},
            )

    def drop(self, file: str) -> None:
        """Remove the files of a graph that did not pass."""
        for path in (self.work / "onnx").glob(f"{Path(file).name}*"):
            path.unlink()

    def time_all(self) -> None:
        """Measure every graph and write the figures beside them."""
        for name, graph in self.graphs.items():
            latency = measure(load_engine(self.work, precision=name), self.pairs)
            self.graphs[name] = dataclasses.replace(graph, latency=latency)
            self.check()
        times = {name: g.latency.as_dict() for name, g in self.graphs.items() if g.latency is not None}
        (self.work / LATENCY).write_bytes(store.canonical(times))

    def write(self, graphs: dict[str, dict[str, Any]]) -> Facts:
        """Write engine.json for the graphs given."""
        config: Any = self.scorer.module.config
        kept = {self.work / "tokenizer.json", *(self.work / "onnx").iterdir()}
        facts = Facts(
            family=contract(self.scorer),
            pooling=getattr(self.scorer, "pooling", None),
            max_length=self.scorer.transformer.max_length,
            dim=int(config.hidden_size),
            inputs=tuple(self.scorer.transformer.tokenizer.model_input_names),
            output=SCORED[contract(self.scorer)],
            pad_id=self.scorer.transformer.pad_id,
            opset=self.opset,
            transenc=__version__,
            source=self.source,
            graphs=graphs,
            sha256={p.relative_to(self.work).as_posix(): store.hash_file(p) for p in sorted(kept)},
        )
        content = {"schema": SCHEMA, **dataclasses.asdict(facts)}
        (self.work / SIDECAR).write_bytes(store.canonical(content))
        return facts

    def finish(self, *, benchmark: bool) -> None:
        """Write engine.json with what was compared, measure if asked to, and add both to the card."""
        facts = self.write({name: graph.as_dict() for name, graph in self.graphs.items()})
        if benchmark:  # times are not facts of the engine: latency.json has them
            self.time_all()
        with (self.work / "README.md").open("a", encoding="utf-8") as file:
            file.write(_card(facts, self.graphs, self.notes))


def _short(numbers: dict[str, Any]) -> str:
    found = next(iter(numbers.values()))
    drop = None if found["ranks"] is None else found["ranks"]["drop"]
    return f"largest difference {_number(found['worst'])}, Spearman drop {_number(drop)}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2g}"


def _check_request(scorer: Any, out: Path, precisions: Sequence[str], opset: int, source: str) -> None:
    if not hasattr(scorer, "module"):
        contract(scorer)  # which a family of a plugin without modules has not
        raise ConfigError("This is an engine already; export the model that it was made of.")
    refuse_other(out)  # before any work
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown or not precisions:
        raise ConfigError(
            f"No precision '{', '.join(unknown)}' for an engine. There is: {', '.join(PRECISIONS)}."
        )
    if opset not in OPSETS:
        raise ConfigError(f"Opset {opset} is not one of {OPSETS[0]} to {OPSETS[-1]}.")
    contract(scorer)
    if scorer.transformer.max_length < SHORTEST:
        raise ConfigError(
            f"{source or 'The model'} cuts texts to {scorer.transformer.max_length} tokens, and an engine takes "
            f"{SHORTEST} or more: one stands before and one after a text. Mend model_max_length in its "
            "tokenizer_config.json, or max_seq_length in its sentence_bert_config.json."
        )
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MachineError(f'Export needs {" and ".join(missing)}. Run: pip install "transenc[cpu]"')


def _save_layout(scorer: Any, work: Path, card: str) -> str:
    """Write the model directory without its weights, and return the fingerprint of the whole of it."""
    scorer.save(work, card=card)
    segments, readme = isinstance(scorer.module, SegmentModel), work / "README.md"
    if readme.is_file():  # how the weights are loaded, which are left out
        told = readme.read_text(encoding="utf-8")
        readme.write_text(told.replace(usage(scorer.family, segments=segments), ""), encoding="utf-8")
    if segments:
        # The graph has the head, so other tools run it as that of any classifier.
        for part in ("modules.json", "config_sentence_transformers.json"):
            (work / part).unlink()
    hashes = store.hash_tree(work)
    hashes.pop("README.md", None)
    for weights in [*work.glob("*.safetensors"), *work.glob("*.safetensors.index.json")]:
        weights.unlink()
    return store.fingerprint(hashes)


def _reference(scorer: Any) -> Scorer:
    """Return the scorer in fp32: the engine's precision, not that of the machine it was trained on."""
    compute = Compute(scorer.transformer.compute.device, "fp32")
    reference: Scorer = dataclasses.replace(
        scorer, transformer=dataclasses.replace(scorer.transformer, compute=compute, _copy=None)
    )
    return reference


def _card(facts: Facts, graphs: dict[str, GraphReport], notes: Sequence[str]) -> str:
    made_of = f" from `{facts.source['name']}`" if facts.source["name"] else ""
    lines = [
        "",
        "## ONNX engine",
        "",
        f"Exported{made_of} by transenc {facts.transenc}, opset {facts.opset}, and compared with the model. "
        f"Inputs: {', '.join(facts.inputs)}; output: `{facts.output}`; texts are cut to {facts.max_length} tokens.",
        "",
        "| graph | made by | largest difference | pairs compared | Spearman, model | Spearman, engine | drop |",
        "|---|---|---|---|---|---|---|",
    ]
    for graph in graphs.values():
        ranks = graph.parity.ranks
        found = (
            ["", "", ""] if ranks is None else [f"{v:.4f}" for v in (ranks.model, ranks.engine, ranks.drop)]
        )
        number = sum(check.pairs for check in graph.parity.checks)
        row = [f"`{graph.file}`", graph.what, f"{graph.parity.worst:.1e}", f"{number:,}", *found]
        lines.append(f"| {' | '.join(row)} |")
    lines += [f"\nNote: {note}." for note in notes]
    lines += [
        "",
        "transenc loads it, without torch, and so does the ONNX backend of sentence-transformers "
        '(`backend="onnx"`):',
        "",
        "```python",
        "from transenc import Pairs, load_scorer",
        "",
        'engine = load_scorer(".")  # this directory',
        'print(engine.score(Pairs.from_rows(["A man plays a guitar."], ["Someone makes music."])))',
        "```",
    ]
    timed = {name: graph.latency for name, graph in graphs.items() if graph.latency is not None}
    return "\n".join(lines) + "\n" + (f"\n{table(timed)}" if timed else "")
