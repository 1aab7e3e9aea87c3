"""`fourfold separation separate MIXTURE QUERY -o OUT`: one recording of any length, in the shell."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.errors import DataError
from ..modalities.adapter import Adapter
from ..modalities.audio.embedding_metrics import nearest_class
from ..modalities.audio.listening import write_listening_page
from ..modalities.audio.pictures import Example
from ..modalities.audio.separator import DECODERS, Query, Separator, channel_weights
from ..modalities.audio.solvers import SOLVERS
from ..modalities.audio.streams import AudioReader, AudioWriter
from ..modalities.missing import MissingPart
from ..modalities.storage import ModelFolderError
from ..modalities.zoo import load, zoo
from .checkpoints import trained_adapter
from .cli import one_line
from .errors import UserError
from .runs import run_folder

__all__ = ["main"]

_PREFERRED = ("flowsep-esc10", "flowsep-vae-synthetic", "flowsep-synthetic")
_CLIPPED = 1e-4
_PAGE_SECONDS = 60.0


def main(args: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(list(args))
    try:
        _separate(options)
    except (UserError, DataError, MissingPart, ModelFolderError, ValueError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fourfold separation separate",
        description="Keep what a description asks for in a recording of any length, rate and number of channels.",
        allow_abbrev=False,
    )
    parser.add_argument("mixture", type=Path, help="the recording: WAV, FLAC, OGG, MP3 or AIFF")
    parser.add_argument("query", help="the sound to keep, in words, e.g. 'a dog barking'")
    parser.add_argument("-o", "--out", type=Path, required=True, help="file to write: .wav, .flac, .ogg or .mp3")
    parser.add_argument("--model", help="zoo name, model folder, run or hub id (default: of the zoo, by the query)")
    parser.add_argument("--negative", help="a sound to avoid, in words")
    parser.add_argument("--residual", type=Path, help="also write mixture minus estimate to this file")
    parser.add_argument("--page", type=Path, help="also write a page with players to this .html file")
    parser.add_argument("--decoder", choices=DECODERS, default="auto", help="how to render the estimate")
    parser.add_argument("--steps", type=int, help="steps of the generator (default: what the model recommends)")
    parser.add_argument("--guidance", type=float, help="scale of guidance (default: the model's; 2 with --negative)")
    parser.add_argument("--candidates", type=int, default=1, help="estimates that are averaged")
    parser.add_argument("--start", type=float, help="begin at this noise level (0-1) from the mixture, not from noise")
    parser.add_argument("--temperature", type=float, help="factor on the noise it begins with (default: the model's)")
    parser.add_argument("--solver", choices=SOLVERS, help="of the generator's flow (default: the model's)")
    parser.add_argument("--text", help="folder or hub name of the text encoder, for models with a pretrained one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def load_separators(name: str | None = None) -> dict[str, Separator]:
    """A separator by zoo name, model folder, run or hub id; by default all of the zoo, the preferred one first.

    Raises:
        UserError: The zoo has none, or the model is of another kind.
    """
    shipped = [known for known in _PREFERRED if known in zoo()]
    if name is None and not shipped:
        raise UserError("no separator is shipped with this version: give one with --model FOLDER")
    models: dict[str, Separator] = {}
    for wanted in shipped if name is None else [name]:
        model = _load(wanted)
        if not isinstance(model, Separator):
            raise UserError(f"{wanted} is a {model.name} model, which does not separate sounds")
        models[wanted] = model
    return models


def _load(name: str) -> Adapter:
    run = run_folder("separation", name)
    if name in zoo() or not run.used():
        return load(name)
    return trained_adapter(run.best if run.best.exists() else run.last)


def _knows(model: Separator, query: str) -> bool:
    return not model.sounds or nearest_class(query, model.sounds) is not None


def _check_outputs(options: argparse.Namespace) -> None:
    outputs = [path for path in (options.out, options.residual, options.page) if path is not None]
    for path in outputs:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file")
        if path.exists() and not options.force:
            raise UserError(f"{path} exists; choose another name or overwrite it with --force")
        if path.resolve() == options.mixture.resolve():
            raise UserError(f"{path} is the mixture itself; choose another name")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise UserError("estimate, residual and page need different names")
    if options.page is not None and options.page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--page writes HTML: give a name that ends in .html, not {options.page}")


def _separate(options: argparse.Namespace) -> None:
    _check_outputs(options)
    # What is wrong with the words or the file is said before a model is loaded.
    steps = 1 if options.steps is None else options.steps
    query = Query(
        options.query,
        options.negative,
        options.guidance,
        steps,
        options.candidates,
        options.start,
        options.seed,
        options.temperature,
        options.solver,
    )
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(options.mixture))
        models = load_separators(options.model)
        name = next((n for n, m in models.items() if _knows(m, options.query)), next(iter(models)))
        model = models[name]
        if options.steps is None:
            query = replace(query, steps=model.sampling_steps)
        if options.text is not None:
            model.look_for_text_in(options.text)
        decoder = model.reconstruction(options.decoder)
        seconds = reader.length / reader.sample_rate
        if options.page is not None and seconds > _PAGE_SECONDS:
            raise UserError(f"--page is for recordings up to {_PAGE_SECONDS:g} s, this one has {seconds:.0f} s")
        files = [options.out] + ([options.residual] if options.residual is not None else [])
        writers = [
            stack.enter_context(AudioWriter(file, reader.sample_rate, reader.channels, force=options.force))
            for file in files
        ]
        kept: list[tuple[Tensor, Tensor]] = []
        pieces = model.stream(
            reader.read,
            reader.length,
            reader.sample_rate,
            query,
            decoder=options.decoder,
            progress=None if options.quiet else _progress(),
        )
        for begin, part in pieces:
            mixture = reader.read(begin, begin + part.shape[1])
            for writer, samples in zip(writers, (part, mixture - part), strict=False):
                writer.write(samples)
            if options.page is not None:
                kept.append((mixture, part))
        clipped = reader.clipped_share
        rate = reader.sample_rate
    print(f"{writers[0].path}: {seconds:.2f} s, separated by {name} ({model.name}), rendered by {decoder.name}")
    for asked, writer in zip(files, writers, strict=True):
        if writer.path != asked:
            print(f"note: {writer.path} (32-bit float) takes the place of {asked}: peaks lie beyond what FLAC holds")
    if not decoder.aligned and options.residual is not None:
        print(f"note: {decoder.name} invents phases, so the residual is not what is left; use --decoder mask for that")
    if not _knows(model, options.query):
        for other, known in models.items():
            print(f"note: {other} was trained on {', '.join(known.sounds)}; of {options.query!r} it knows nothing")
    if clipped > _CLIPPED:
        print(f"note: {clipped:.1%} of the mixture's samples are at full scale; overdriven sounds separate badly")
    if options.page is not None:
        _write_page(options, kept, rate, decoder.name)
        print(options.page)


def _write_page(options: argparse.Namespace, kept: Sequence[tuple[Tensor, Tensor]], rate: int, decoder: str) -> None:
    channels = [torch.cat(parts, 1) for parts in zip(*kept, strict=True)]
    weights = channel_weights(channels[0][None])[0]
    mixture, estimate = (weights @ sound for sound in channels)
    sounds = {"mixture": mixture, "estimate": estimate, "residual": mixture - estimate}
    example = Example(options.query, sounds, rate, f"{options.mixture.name}, rendered by {decoder}")
    write_listening_page(options.page, [example], title=f"Separated from {options.mixture.name}")


def _progress() -> Any:
    def show(done: int, total: int) -> None:
        if total > 1 and (sys.stderr.isatty() or done == total):
            end = "\n" if done == total else ""
            print(f"\r{done}/{total} windows", end=end, file=sys.stderr, flush=True)

    return show
