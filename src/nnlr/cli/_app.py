"""The commands: what each takes, and what it says of itself. The work is elsewhere.

Nothing of torch is imported before a command runs, so that help and completion need not wait.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final, cast

import typer
from typer import Argument, Option

from nnlr.cli import _complete, _terminal
from nnlr.cli._options import (
    Arguments,
    Config,
    Formats,
    Imports,
    Mode,
    Model,
    Optimizers,
    Out,
    OutOrPicture,
    Rate,
    RecipeFormats,
    Schemes,
    WeightDecay,
    one_of,
)
from nnlr.errors import NnlrError

_FORMS: Final = """\b
MODEL is one of
  timm:vit_base_patch16_224, torchvision:resnet50
  transformers:bert, transformers:LlamaForCausalLM, path/config.json
  package.module:callable, file.py:callable    with --arg name=value
  model.safetensors, checkpoint.pt             names and shapes suffice
  plan.json                                    as --out plan.json saves it
"""


# Plain help: the same text in every terminal, and a traceback only where there is a bug.
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config", help="Check, describe and write configurations.")


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; returns its exit status.

    Errors of usage and of input are told in a few lines, without a traceback.
    """
    try:
        return app(list(arguments), prog_name="nnlr", standalone_mode=False) or 0
    except NnlrError as error:
        _terminal.say(f"Error: {error}")
        return 2
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # every error of usage has it
        return error.exit_code
    except Exception as error:
        from nnlr.cli import _python

        if _python.users_line(error) is None:
            raise
        _terminal.say(f"Error: your code raises {_python.described(error)}")
        return 2


def _load_library() -> None:
    """Load nnlr, and with it torch, which takes a moment."""
    with _terminal.working("loading torch"):
        run_package(sys.modules["nnlr"])


def run_package(package: ModuleType) -> None:
    """Run the code of nnlr itself, if ``nnlr_command`` has put it off."""
    if not hasattr(package, "resolve"):
        loader = cast("Loader", cast("ModuleSpec", package.__spec__).loader)
        loader.exec_module(package)


def _show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"nnlr {_complete.version()}")
        raise typer.Exit


@app.callback()
def nnlr_command(
    version: Annotated[
        bool,
        Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Layer-wise learning rates and weight decays for PyTorch."""


def _examples(*lines: str, forms: bool = True) -> str:
    """What stands below the options of a command."""
    indent = "  nnlr "
    examples = "\n".join(
        ["\b", "Examples:", *(line if line[0] == " " else indent + line for line in lines)]
    )
    return f"{_FORMS}\n{examples}" if forms else examples


@app.command(
    epilog=_examples(
        "show timm:vit_base_patch16_224 -s layer_decay=0.75 -s no_weight_decay",
        "show train.py:make_model -a depth=12 -c scheme.yaml --columns +role",
        "show model.safetensors -s layer_decay=0.9 --out plan.html",
        "show timm:resnet50 -c recipe.yaml --steps 1000 --out rates.png",
        "show timm:vit_base_patch16_224 -c recipe:mae/vit-b/finetune",
    )
)
def show(
    model: Model,
    *,
    scheme: Schemes = None,
    config: Config = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    decay: Mode = None,
    arg: Arguments = None,
    allow_imports: Imports = None,
    format: Formats = None,
    out: OutOrPicture = None,
    full: Annotated[bool, Option("--full", help="Show every row.")] = False,
    trained: Annotated[bool, Option("--trained", help="Show what is trained only.")] = False,
    columns: Annotated[
        str | None,
        Option(
            metavar="A,B",
            help="Columns: role,lr instead of the usual ones, or +role beside them.",
            autocompletion=_complete.columns,
        ),
    ] = None,
    optimizer: Optimizers = None,
    steps: Annotated[
        int | None,
        Option(
            min=1, metavar="N", help="Show so many steps of the recipe's schedule: .html, .png."
        ),
    ] = None,
    epoch_steps: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Steps of an epoch, for rates that move by epochs."),
    ] = None,
) -> int:
    """Show which parameter learns how fast."""
    _load_library()
    from nnlr.cli import _scheme, _show

    options = _scheme.Options(scheme, config, lr, weight_decay, decay, allow_imports, arg)
    view = _show.View(full, trained, columns, steps, epoch_steps)
    return _show.show(model, options, optimizer, (format, out), view)


@app.command(
    epilog=_examples(
        "explain timm:resnet50 layer1.0.conv1.weight -s layer_decay=0.75",
        "explain plan.json 'blocks.3.*'",
    )
)
def explain(
    model: Model,
    params: Annotated[list[str], Argument(metavar="PARAM...", help="Names, or patterns.")],
    *,
    scheme: Schemes = None,
    config: Config = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    decay: Mode = None,
    arg: Arguments = None,
    allow_imports: Imports = None,
    format: Formats = None,
    out: Out = None,
) -> int:
    """Explain how the rates of a parameter came about."""
    _load_library()
    from nnlr.cli import _scheme, _show

    options = _scheme.Options(scheme, config, lr, weight_decay, decay, allow_imports, arg)
    return _show.explain(model, params, options, (format, out))


@app.command(
    epilog=_examples(
        "diff timm:vit_base_patch16_224 layer_decay=0.75 layer_decay=0.65",
        "diff transformers:bert none 'layer_decay=0.9 * no_weight_decay'",
        "diff train.py:make_model old.yaml new.yaml -f markdown",
        "diff old.json new.json --exit-code",
    )
)
def diff(
    sides: Annotated[
        list[str],
        Argument(
            metavar="[MODEL] A B",
            help="A and B: schemes (none for no scheme), config files, or saved plans, which "
            "need no MODEL.",
            autocompletion=_complete.models,
        ),
    ],
    *,
    scheme: Schemes = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    decay: Mode = None,
    arg: Arguments = None,
    allow_imports: Imports = None,
    format: Formats = None,
    out: OutOrPicture = None,
    exit_code: Annotated[bool, Option("--exit-code", help="Status 1 if they differ.")] = False,
) -> int:
    """Show what another scheme changes.

    What --scheme says counts on both sides.
    """
    _load_library()
    from nnlr.cli import _scheme, _show

    options = _scheme.Options(scheme, None, lr, weight_decay, decay, allow_imports, arg)
    return _show.diff(sides, options, (format, out), exit_code=exit_code)


@app.command(
    epilog=_examples(
        "check train.py:make_model -c scheme.yaml --optimizer AdamW",
        "check train.py:make_gpt -s 'route={matrices: muon, others: adamw}' \\",
        "      --lr muon=0.02 --lr adamw=3e-4 \\",
        "      --optimizer muon=Muon --optimizer adamw=AdamW",
    )
)
def check(
    model: Model,
    *,
    scheme: Schemes = None,
    config: Config = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    decay: Mode = None,
    arg: Arguments = None,
    allow_imports: Imports = None,
    optimizer: Optimizers = None,
    strict: Annotated[bool, Option("--strict", help="Warnings count as errors.")] = False,
    format: Formats = None,
    out: Out = None,
) -> int:
    """Look for mistakes; the exit status is 1 if there is an error."""
    _load_library()
    from nnlr.cli import _check, _scheme

    options = _scheme.Options(scheme, config, lr, weight_decay, decay, allow_imports, arg)
    return _check.check(model, options, optimizer, (format, out), strict=strict)


@app.command(
    epilog=_examples(
        "code timm:vit_base_patch16_224 -s layer_decay=0.75 -s no_weight_decay \\",
        "     --optimizer AdamW --out groups.py",
        "code train.py:make_model -c recipe.yaml",
    )
)
def code(
    model: Model,
    *,
    scheme: Schemes = None,
    config: Config = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    decay: Mode = None,
    arg: Arguments = None,
    allow_imports: Imports = None,
    optimizer: Optimizers = None,
    out: Out = None,
) -> int:
    """Write the groups as plain torch code, without nnlr."""
    _load_library()
    from nnlr.cli import _code, _scheme

    options = _scheme.Options(scheme, config, lr, weight_decay, decay, allow_imports, arg)
    return _code.code(model, options, optimizer, out)


@app.command(epilog=_examples("schemes", "schemes layer_decay", "schemes -f json", forms=False))
def schemes(
    name: Annotated[
        str | None,
        Argument(
            metavar="NAME", help="One to tell more of.", autocompletion=_complete.scheme_names
        ),
    ] = None,
    format: Formats = None,
    out: Out = None,
) -> int:
    """List the published schemes, or tell all of one."""
    _load_library()
    from nnlr.cli import _schemes

    return _schemes.schemes(name, (format, out))


@app.command(
    epilog=_examples(
        "recipes",
        "recipes mae/vit-b/finetune --batch-size 256",
        "recipes mae/vit-b/finetune --out mine.yaml",
        "recipes --for timm:vit_base_patch16_224",
    )
)
def recipes(
    name: Annotated[str | None, Argument(metavar="NAME", help="One to tell all of.")] = None,
    *,
    model: Annotated[
        str | None,
        Option(
            "--for",
            metavar="MODEL",
            help="Those that fit this model, the best first.",
            autocompletion=_complete.models,
        ),
    ] = None,
    arg: Arguments = None,
    batch_size: Annotated[
        float | None, Option(metavar="N", help="The batch of your run, for the rate.")
    ] = None,
    batch_rule: Annotated[
        str | None,
        Option(
            metavar="RULE", help="linear or sqrt, if NAME has no rule.", **one_of("linear", "sqrt")
        ),
    ] = None,
    format: RecipeFormats = None,
    out: Out = None,
) -> int:
    """List the published recipes, or tell all of one."""
    _load_library()
    from nnlr.cli import _recipes

    return _recipes.recipes(name, (model, arg), (batch_size, batch_rule), (format, out))


@config_app.command("check", epilog=_examples("config check scheme.yaml", forms=False))
def config_check(
    file: Annotated[Path, Argument(metavar="FILE")], allow_imports: Imports = None
) -> int:
    """Say whether a file is a scheme or a recipe, and what it comes to."""
    _load_library()
    from nnlr.cli import _config

    return _config.check(file, allow_imports)


@config_app.command("schema", epilog=_examples("config schema --out nnlr.json", forms=False))
def config_schema(out: Out = None) -> int:
    """Write the JSON Schema of configurations, which editors use."""
    _load_library()
    from nnlr.cli import _config

    return _config.schema(out)


@config_app.command(
    "dump",
    epilog=_examples(
        "config dump -s layer_decay=0.75 -s no_weight_decay --optimizer AdamW -o s.yaml",
        forms=False,
    ),
)
def config_dump(
    *,
    scheme: Schemes = None,
    config: Config = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    decay: Mode = None,
    allow_imports: Imports = None,
    optimizer: Optimizers = None,
    out: Out = None,
) -> int:
    """Write the options as a configuration."""
    _load_library()
    from nnlr.cli import _config, _scheme

    options = _scheme.Options(scheme, config, lr, weight_decay, decay, allow_imports)
    return _config.dump(options, optimizer, out)
