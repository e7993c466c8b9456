"""`transenc label --augment`: look at rewritten sentences, or write rewritten gold pairs with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transenc.cli.console import note, out_json
from transenc.cli.console import out as say


def augment_file(
    specs: Sequence[str],
    *,
    gold: Path | None,
    gold_range: tuple[float, float] | None,
    pairs: Path | None,
    corpus: Sequence[Path],
    out: Path | None,
    show: int,
    columns: Sequence[str],
    skip_bad: str | None,
    seed: int,
    device: str,
    precision: str,
    offline: bool,
    as_json: bool,
) -> None:
    """Rewrite sentences of a file: print `show` of each augmenter, or with `out` write gold's pairs rewritten."""
    from transenc.augmenters import Fill
    from transenc.errors import ConfigError, DataError
    from transenc.gold import check_labels
    from transenc.readers import SkipBad, read_pairs, read_sentences
    from transenc.single import output_file, refuse_existing
    from transenc.stages.augment import augment_sentences, augmented_pairs, outside_files
    from transenc.writers import check_suffix, write_pairs

    if sum(map(bool, (gold, pairs, corpus))) != 1:
        raise ConfigError("--augment takes one of --gold FILE, --pairs FILE and --corpus FILE.")
    if out is not None and gold is None:
        raise ConfigError("--augment writes pairs with the labels of gold ones: give --gold FILE with --out.")
    if out is not None:
        check_suffix(out)
        refuse_existing(out)
    skip = SkipBad.parse(skip_bad)

    def fill_of(name: str) -> Fill:
        from transenc.models.device import Compute
        from transenc.stages.fill import find_masked_lm

        if not name:
            raise ConfigError(
                "A contextual augmenter needs a masked language model here: model=NAME, as in insert:model=NAME."
            )
        return find_masked_lm(name, compute=Compute.choose(device, precision), offline=offline)

    outside_files(specs)
    if out is not None and gold is not None:
        labelled = read_pairs(gold, scores="required", score_range=gold_range, skip_bad=skip, columns=columns)
        check_labels(labelled, str(gold))
        out.parent.mkdir(parents=True, exist_ok=True)  # before the work, which would be lost
        rewritten = augment_sentences(labelled.sentences, specs, seed=seed, fill_of=fill_of)
        made, facts = augmented_pairs(labelled, rewritten)
        if not len(made):
            raise DataError(f"{', '.join(specs)} changed none of {len(labelled):,} pairs of {gold}.")
        with output_file(out) as (_, result):
            write_pairs(made, result, told=out)
        if as_json:
            told = {"path": str(out), "augmenters": list(specs), "seed": seed, "gold_pairs": len(labelled)}
            out_json({**told, **facts})
            return
        counts = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in facts.items())
        say(f"{out}: of {len(labelled):,} gold pairs {counts}")
        return

    file = gold or pairs
    found = read_pairs(file, scores="ignored", skip_bad=skip, columns=columns).sentences if file else None
    sentences = list(found if found is not None else read_sentences(list(corpus), skip_bad=skip))[:show]
    for spec, lines in zip(
        specs, augment_sentences(sentences, specs, seed=seed, fill_of=fill_of), strict=True
    ):
        changed = sum(a != b for a, b in zip(sentences, lines, strict=True))
        note(f"{spec}: {changed} of {len(sentences)} sentences changed")
        for before, after in zip(sentences, lines, strict=True):
            if as_json:
                out_json({"augmenter": spec, "sentence": before, "rewritten": after})
                continue
            say(before)
            say(f"  -> {after}" if after != before else "  (unchanged)")
