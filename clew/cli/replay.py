"""`clew replay`: the recorded program again, from its recorded code, with its recorded answers."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from clew.cli.output import AsJson, StorePath, mistakes, reader, write, write_json
from clew.cli.price import prices

_Many = list[str] | None


def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A recorded run: its id, or any unique prefix.")],
    mode: Annotated[
        str,
        typer.Option(
            help="strict: nothing goes live. hybrid: what was not recorded does. plan: a dry run, what surely would."
        ),
    ] = "strict",
    code: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Run the code of this working tree instead.")
    ] = None,
    prompt: Annotated[
        _Many, typer.Option(metavar="NAME=TEXT", help="Another prompt (`clew show RUN --prompts`); @FILE reads it.")
    ] = None,
    model: Annotated[_Many, typer.Option(metavar="NAME.FIELD=JSON", help="A field of a model.")] = None,
    tool: Annotated[
        _Many,
        typer.Option(
            metavar="NAME=MODULE:FUNCTION",
            help="Another function in a tool's place. The module is sought in the folder where you are, and read as it is "
            "there today; else among what is installed. What it imports of the program is the code that runs: the "
            "recorded one, or that of --code.",
        ),
    ] = None,
    document: Annotated[
        _Many, typer.Option(metavar="ID=TEXT", help="Another text of a retrieved document; @FILE reads it.")
    ] = None,
    answer: Annotated[_Many, typer.Option(metavar="SPAN=JSON", help="Another answer of one recorded call.")] = None,
    allow: Annotated[_Many, typer.Option(metavar="KIND|TOOL", help="What may go live in a hybrid replay.")] = None,
    budget: Annotated[float | None, typer.Option(metavar="MONEY", help="What live calls may cost, by --price.")] = None,
    max_calls: Annotated[int | None, typer.Option(metavar="N", help="How many calls may go live.")] = None,
    price: Annotated[
        _Many, typer.Option(metavar="MODEL=IN,OUT", help="Money for a million input and output tokens.")
    ] = None,
    pace: Annotated[float, typer.Option(help="1 gives streams in recorded time, 0 at once.")] = 0.0,
    ordered: Annotated[bool, typer.Option("--ordered", help="Parallel calls end in the recorded order.")] = False,
    travel: Annotated[
        bool, typer.Option("--travel", help="datetime.now() tells the recorded time (needs clew[clock]).")
    ] = False,
    host: Annotated[_Many, typer.Option(metavar="HOST", help="A host that stays within reach.")] = None,
    argument: Annotated[
        _Many, typer.Option("--argument", metavar="TEXT", help="The program's arguments instead of the recorded.")
    ] = None,
    cwd: Annotated[str | None, typer.Option(metavar="FOLDER", help="The working folder instead.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="End the program after this.")] = None,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """Run a recorded program again, with its answers.

    Its recorded code runs, and is given its recorded answers. The certificate says what was served, what was not and why,
    and whether the answer is the recorded one. Exit status 0: it is, and nothing went live (in a plan or a hybrid replay:
    nothing failed), and each patch met something; else 1.
    """
    from clew.replay.playback.rerun import rerun

    with reader(store) as opened, mistakes():
        certificate = rerun(
            run,
            mode=mode,
            patch=_patches(code, prompt, model, tool, document, answer),
            allow=allow,
            budget=budget,
            max_calls=max_calls,
            prices=prices(price),
            pace=pace,
            ordered=ordered,
            travel=travel,
            hosts=host or (),
            arguments=argument,
            cwd=cwd,
            timeout_seconds=timeout,
            stdout=sys.stderr if as_json else None,
            tell=_announce,
            store=opened,
        )
    if as_json:
        write_json({"certificate": certificate.to_dict()})
    else:
        write(*certificate.lines(differences=False))
    if certificate.error is not None or certificate.unmet or (mode == "strict" and not certificate.holds):
        raise typer.Exit(1)


def _announce(difference: str) -> None:
    sys.stderr.write(f"differs  {difference}\n")
    sys.stderr.flush()


def _patches(
    code: str | None, prompts: _Many, models: _Many, tools: _Many, documents: _Many, answers: _Many
) -> list[Any]:
    from clew.replay.playback.rerun import Code

    found: list[Any] = [] if code is None else [Code(code)]
    if not (prompts or models or tools or documents or answers):
        return found
    from clew.replay.playback.patch_answered import Answer, Retrieved
    from clew.replay.playback.patch_asked import Model, Prompt, Tool

    for name, text in map(_pair, prompts or []):
        found.append(Prompt(name, _text(text)))
    for place, text in map(_pair, models or []):
        name, _, field = place.rpartition(".")
        if not name:
            raise typer.BadParameter(f"{place!r} is no field of a model: write NAME.FIELD=VALUE")
        found.append(Model(name, **{field: _json(text)}))
    for name, where in map(_pair, tools or []):
        with mistakes():
            found.append(Tool(name, where))
    for which, text in map(_pair, documents or []):
        found.append(Retrieved(which, _text(text)))
    for span, text in map(_pair, answers or []):
        found.append(Answer(span, _exact(text) if text[:1] in '{["' else text))
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is no NAME=VALUE")
    return name, value


def _json(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def _exact(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} begins as JSON and is none: {error}") from error


def _text(said: str) -> str:
    """A text as it stands, or with @ the file that holds it."""
    if not said.startswith("@"):
        return said
    try:
        with open(said[1:], encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise typer.BadParameter(f"{said[1:]} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{said[1:]} is no text in UTF-8") from error
