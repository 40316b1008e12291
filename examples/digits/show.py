"""What the demo prints, in 80 columns."""

import torch
from eye import ARMS
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from train import RECIPES, batch_count

RUNS = {"declared": "declared rates", "uniform": "one rate for all"}
MARKS = dict(zip(ARMS, "○●◆", strict=True))

STILL = "conv1 is locked and moved by exactly 0, bit for bit (checked)"
LESS = ": it needs no gradient and no state"
VECTORS = "; Torch7's vectors hold it all the same"
SAME = (
    "Ten other seeds, each arm at the best of three rates, read 98.69 ± 0.34 % of the unseen "
    "digits at the declared rates and 98.92 ± 0.24 % at one rate: the same within the noise, "
    "-0.22 ± 0.26 (docs/evidence.md)."
)
BATCH_NORM = ". Its batch norm, bn1, is not locked: it went on learning."
EYE = (
    "The network trained above gets another camera: three channels, mixed of a negative, a blurred "
    "and an edge view. Its first layer, with batch norm, is new and learns at the base rate, by 20 "
    "images in 40 steps of AdamW. The other layers learn at the same rate, at 0.1 of it "
    "(layer-wise), or are locked (new layer only)."
)
TEN_SEEDS = """\
Ten other seeds, in %, each arm at the best of eight rates, with 95 % intervals
and the difference to one rate (docs/evidence.md):

        one rate       layer-wise                   new layer only
AdamW   91.6 ± 1.0     93.6 ± 1.3 (+2.1 ± 1.3)      95.0 ± 1.2 (+3.4 ± 1.8)
SGD     93.0 ± 1.4     94.0 ± 1.4 (+1.0 ± 1.8)*     94.7 ± 1.4 (+1.6 ± 1.9)*
* a tie: the difference lies within its 95 % interval
At low rates one rate is better: AdamW layer-wise -23.9 ± 10.5 at 0.0001, -8.6 ±
4.0 at 0.0002; AdamW new layer only -38.8 ± 16.1 at 0.0001, -20.5 ± 10.7 at
0.0002, -4.1 ± 2.6 at 0.0005.
"""


def show_head(console, options, data, epochs):
    """Print what will be trained on what."""
    recipe = RECIPES[options.optimizer]
    settings = "".join(f", {key} {value:g}" for key, value in recipe.settings.items())
    steps = batch_count(len(data.train_labels), options.batch_size)
    training = f"{epochs} of {steps:,} batches, seed {options.seed}, on {options.device}"
    if options.device == "cpu":
        training += f", {plural(torch.get_num_threads(), 'thread')}"
    lines = {
        "data": data.source,
        "split": f"{len(data.train_labels):,} to train, {len(data.test_labels):,} to test",
        "training": training,
        "optimizer": recipe.label + settings,
        "base rates": f"lr {recipe.lr:g}, weight decay {recipe.weight_decay:g}",
    }
    for name, text in lines.items():
        say(console, Text.assemble((f"{name:12}", "dim"), text))


def progress(console):
    """A bar for each run, on a terminal; nothing where the output goes to a file."""
    columns = [TextColumn("{task.description:17}"), BarColumn(bar_width=40)]
    columns += [TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn()]
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def show_results(console, title, chart, runs, plan):
    """Print how far each layer moved in both runs, and both accuracies."""
    chart = in_colour(chart)
    chart.stylize("bold", 0, len(title))
    say(console, chart)
    console.print()
    for name, result in runs.items():
        text = Text(f"{RUNS[name]:18}test accuracy ").append(f"{result.accuracy:.1%}", "bold")
        text.append(f" ({result.right:,} of {result.tested:,}), last loss ")
        say(console, text.append(f"{result.losses[-1]:.4f}, {result.seconds:.1f} s"))
    total = sum(row.numel for row in plan.rows)
    for name, result in runs.items():
        text = f"{RUNS[name]:18}of {total:,} numbers {result.gradients:,} have a gradient, "
        say(console, Text(f"{text}{result.state:,} a state"))
    console.print()
    less = LESS if runs["declared"].gradients < total else VECTORS
    say(console, Text(f"{STILL}{less}{BATCH_NORM}\n\n{SAME}"))


def show_eye(console, result):
    """Print what comes of a new camera: accuracy against rate, and what ten other seeds gave."""
    tested, right = result["tested"], result["right"]
    title = f"A new eye for a trained reader: how many of {tested:,} unseen images it reads"
    say(console, Text(f"\n{title}", "bold"))
    say(console, Text(f"{EYE}\n"))
    say(console, in_colour(eye_chart(right, tested, max(console.width, 48))))
    for arm, counts in right.items():
        rate = max(counts, key=counts.get)
        text = Text(f"{arm:16}at best ").append(f"{counts[rate] / tested:.1%}", "bold")
        say(console, text.append(f" ({counts[rate]:,}), at a rate of {rate:g}"))
    say(console, Text(f"\n{TEN_SEEDS}".rstrip()))


def eye_chart(right, tested, width):
    """A row for each rate: each arm's share in percent as a number, and as a mark on a scale."""
    rates = list(right["one rate"])
    columns = [[100 * counts[rate] / tested for rate in rates] for counts in right.values()]
    low = min(90, 10 * int(min(map(min, columns)) // 10))
    head = f"{'rate':8}" + "  ".join(right)
    room = width - len(head) - 3
    lines = [f"{head}   {f'{low} %':{room - 5}}100 %", "─" * width]
    for rate, *shares in zip(rates, *columns, strict=True):
        places = [round((share - low) / (100 - low) * (room - 1)) for share in shares]
        track = ["·"] * room
        track[min(places) : max(places)] = "─" * (max(places) - min(places))
        for place, mark in zip(places, MARKS.values(), strict=True):
            track[place] = mark if places.count(place) == 1 else "◉"
        numbers = "  ".join(
            f"{share:{len(arm)}.1f}" for arm, share in zip(right, shares, strict=True)
        )
        lines.append(f"{rate:<8g}{numbers}   {''.join(track)}")
    lines.append("   ".join(f"{mark} {arm}" for arm, mark in MARKS.items()) + "   ◉ several")
    return "\n".join(lines)


def in_colour(chart):
    """The chart with its marks in colour."""
    text = Text(chart)
    # Blue, orange and green, which every kind of colour vision tells apart.
    for marks, style in {
        "●": "bright_blue",
        "○": "dark_orange",
        "◆": "green",
        "◉": "bold",
        "[·─]": "dim",
    }.items():
        text.highlight_regex(marks, style)
    return text


def say(console, text):
    """Print text without the blanks that rich leaves at the ends of lines it wraps."""
    lines = text.wrap(console, console.width)
    for line in lines:
        line.rstrip()
    console.print(Text("\n").join(lines))


def plural(count, word):
    """``1 epoch``, ``6 epochs``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
