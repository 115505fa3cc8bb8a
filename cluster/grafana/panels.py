"""What the dashboard shows: each panel with what to look for in it and what it asks of Prometheus.

Colours are Okabe and Ito's, which the colour-blind tell apart, and those of a run's report.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from haloforge.schema import Outcome
from haloforge.verify.rewards import COMPILED_CLEAN, RAN, RIGHT, WITH_WARNINGS

VARIABLES = ("run", "stage", "cycle")
CHOSEN = ",".join(f'{name}=~"${name}"' for name in VARIABLES)
WINDOW = "[$__rate_interval]"

GREY, ORANGE, SKY, GREEN = "#7f7f7f", "#e69f00", "#56b4e9", "#009e73"
YELLOW, BLUE, VERMILION, PURPLE = "#f0e442", "#0072b2", "#d55e00", "#cc79a7"
OUTCOMES: dict[str, str] = {
    Outcome.PASSED: GREEN,
    Outcome.WRONG_ANSWER: SKY,
    **dict.fromkeys((Outcome.TIMEOUT, Outcome.MEMORY_LIMIT, Outcome.OUTPUT_LIMIT), YELLOW),
    Outcome.RUNTIME_ERROR: ORANGE,
    **dict.fromkeys((Outcome.COMPILED, Outcome.COMPILED_WITH_WARNINGS), BLUE),
    Outcome.COMPILE_ERROR: VERMILION,
    Outcome.NO_CODE: PURPLE,
    Outcome.INFRA_ERROR: GREY,
}


def of(name: str, more: str = "") -> str:
    """One of our metrics, of the runs, stages and cycles that are chosen."""
    return f"ray_haloforge_{name}{{{CHOSEN}{',' + more if more else ''}}}"


def mean(name: str) -> str:
    """The mean of a gauge between two points of the graph."""
    return f"avg_over_time({of(name)}{WINDOW})"


def rate(name: str, more: str = "") -> str:
    """So many a second of a counter."""
    return f"rate({of(name, more)}{WINDOW})"


@dataclass(frozen=True)
class Ask:
    """What is asked of Prometheus, and what its answers are called."""

    expr: str
    legend: str = "__auto"
    format: Literal["time_series", "heatmap"] = "time_series"
    instant: bool = False


@dataclass(frozen=True)
class Panel:
    """`kind` is Grafana's, `width` of 24 columns; `colours` are of series by their names, `dashed`
    names those that are bounds rather than values."""

    title: str
    look_for: str
    asks: tuple[Ask, ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "heatmap", "bargauge"] = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    steps: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)
    dashed: str = ""
    red_from: float | None = None
    most: float | None = None
    names: bool = False


NOT_OURS, RIGHT_ONES = 'outcome!="infra_error"', 'outcome="passed"'
LENGTH, OTHER_SIGNS = 'sign="mean_tokens"', 'sign!="mean_tokens"'
JUDGED = f"sum({of('samples_total', NOT_OURS)})"
PASSED = f"sum({of('samples_total', RIGHT_ONES)})"
WORKS = f"{of('stage_seconds')} and changes({of('stage_seconds')}[1m]) > 0"
BY_CYCLE = "sum by (run, stage, cycle)"
LEVELS = (WITH_WARNINGS, COMPILED_CLEAN, RAN, RIGHT)
REWARDS = 'le=~"0.0005|' + "|".join(f"{level:g}(.0)?" for level in LEVELS) + '"'

ROWS: dict[str, tuple[Panel, ...]] = {
    "Overview": (
        Panel(
            "Under way",
            "Stage, cycle and phase that are worked at, with their seconds so far. Empty: nothing "
            "is under way, or Prometheus reaches no Ray.",
            (Ask(f"max by (run, stage, cycle, phase) ({WORKS})", "{{stage}} {{cycle}} {{phase}}"),),
            "s",
            "stat",
            6,
            4,
            names=True,
        ),
        Panel(
            "Programs a second",
            "Samples that got a verdict. It falls to 0 while a model trains.",
            (Ask(f"sum({rate('samples_total', NOT_OURS)})"),),
            "suffix: /s",
            "stat",
            3,
            4,
        ),
        Panel(
            "Tokens a second",
            "Of the samples that got a verdict; what the engines are there for.",
            (Ask(f"sum({rate('tokens_total')})"),),
            "suffix: /s",
            "stat",
            3,
            4,
        ),
        Panel(
            "Accepted",
            "Share of the judged samples that passed all tests, of the stages and cycles chosen "
            "above. Choose one cycle to see that cycle's.",
            (Ask(f"({PASSED} or vector(0)) / {JUDGED}"),),
            "percentunit",
            "stat",
            4,
            4,
        ),
        Panel(
            "Failures of ours",
            "Samples without verdict since the judge itself failed (infra_error). Any is worth a "
            "look into logs/ of the run's folder; the same command judges them again.",
            (Ask(f"sum({of('failures_total')}) or vector(0)"),),
            "short",
            "stat",
            4,
            4,
            red_from=1,
        ),
        Panel(
            "Restarts",
            "Engines, verifiers and trainers that died and were started anew. A few are borne; "
            "many of one kind mean that it lacks memory, or that a node is bad.",
            (Ask(f"sum by (part) ({of('restarts_total')}) or vector(0)", "{{part}}"),),
            "short",
            "stat",
            4,
            4,
            red_from=1,
        ),
    ),
    "Samples": (
        Panel(
            "Samples by outcome",
            "Passed should take more of the whole from cycle to cycle. Much over a limit: programs "
            "loop. Much no_code: the model does not write a block of code, or is cut off.",
            (Ask(f"sum by (outcome) ({rate('samples_total')})", "{{outcome}}"),),
            "suffix: /s",
            stacked=True,
            colours=OUTCOMES,
        ),
        Panel(
            "Rewards",
            "How often each reward is given: 0 no program, 0.3 with warnings, 0.5 compiles, 0.7 "
            "runs, 1 right. The lower rows should grow pale from cycle to cycle.",
            (
                Ask(
                    f"sum by (le) (increase({of('reward_bucket', REWARDS)}{WINDOW}))",
                    "{{le}}",
                    "heatmap",
                ),
            ),
            kind="heatmap",
        ),
        Panel(
            "Mean reward",
            "Of all samples so far of each cycle. Flat or falling over cycles: nothing is learned; "
            "look at the held-out scores and at the signs of a collapse.",
            (
                Ask(
                    f"{BY_CYCLE} ({of('reward_sum')}) / {BY_CYCLE} ({of('reward_count')})",
                    "{{run}} {{stage}} {{cycle}}",
                ),
            ),
            most=RIGHT,
        ),
    ),
    "Engines, verifiers, trainers": (
        Panel(
            "Queues",
            "Requests beyond what engines compute at once, and samples not judged yet. A "
            "verifiers' queue that grows while all verifiers are busy: add verifiers: nodes with "
            "the resource `verifier`, or CPUs.",
            (Ask(f"sum by (run, queue) ({mean('queue_depth')})", "{{run}} {{queue}}"),),
        ),
        Panel(
            "Engines",
            "Requests under way in each engine against what all compute at once. Well below it in "
            "the middle of a phase: engines wait for work, a few long answers are left, or "
            "verifiers hold them up.",
            (
                Ask(f"sum by (run, engine) ({mean('engine_requests')})", "{{run}} {{engine}}"),
                Ask(f"sum by (run) ({mean('engine_capacity')})", "{{run}} capacity"),
            ),
            dashed="capacity",
        ),
        Panel(
            "Verifiers",
            "Verifiers that judge against those that there are. All busy and a queue that grows: "
            "add verifiers. Nearly none busy: engines are what limits.",
            (
                Ask(f"sum by (run) ({rate('verifying_seconds_total')})", "{{run}} busy"),
                Ask(f"sum by (run) ({mean('verifiers')})", "{{run}} number"),
            ),
            dashed="number",
        ),
        Panel(
            "Trainers",
            "Training workers, and how many of them are at a step on average. Low: validation, "
            "checkpoints and starting take the time, as with very few steps.",
            (
                Ask(
                    f"sum by (run) ({rate('training_seconds_total')} * {mean('trainers')})",
                    "{{run}} busy",
                ),
                Ask(f"sum by (run) ({mean('trainers')})", "{{run}} number"),
            ),
            dashed="number",
        ),
        Panel(
            "Verdicts from the cache",
            "Share of the samples so far of each cycle whose verdict was known. High: the model "
            "repeats itself, or this has been judged before.",
            (
                Ask(
                    f"({BY_CYCLE} ({of('cache_hits_total')}) or 0 * {BY_CYCLE} "
                    f"({of('samples_total')})) / {BY_CYCLE} ({of('samples_total')})",
                    "{{run}} {{stage}} {{cycle}}",
                ),
            ),
            "percentunit",
            most=1,
        ),
        Panel(
            "Time of phases",
            "Seconds of each phase, at most of a few runs. The longest is where more hardware "
            "helps: sampling wants engines or verifiers, training wants trainers.",
            (
                Ask(
                    "max by (run, stage, cycle, phase) "
                    f"(last_over_time({of('stage_seconds')}[$__range]))",
                    "{{run}} {{stage}} {{cycle}} {{phase}}",
                    instant=True,
                ),
            ),
            "s",
            "bargauge",
        ),
    ),
    "Training": (
        Panel(
            "Loss",
            "Nats per trained token, and on held-out rows. Held-out loss that rises while the "
            "other falls: fewer epochs, or a lower learning rate.",
            (
                Ask(mean("train_loss"), "{{run}} {{stage}} {{cycle}}"),
                Ask(mean("train_eval_loss"), "{{run}} {{stage}} {{cycle}} held out"),
            ),
            dashed="held out",
        ),
        Panel(
            "Gradient norm",
            "Before clipping. Jumps: a lower learning rate, or longer warm-up.",
            (Ask(mean("train_grad_norm"), "{{run}} {{stage}} {{cycle}}"),),
        ),
        Panel(
            "Learning rate",
            "Up in the warm-up, then down as the schedule says; lower from cycle to cycle.",
            (Ask(mean("train_lr"), "{{run}} {{stage}} {{cycle}}"),),
            "sci",
        ),
        Panel(
            "Trained tokens a second",
            "Should be flat within a training. Falling: the node swaps, or others use it.",
            (Ask(mean("train_tokens_per_s"), "{{run}} {{stage}} {{cycle}}"),),
            "suffix: /s",
        ),
        Panel(
            "Steps",
            "Optimizer steps done, and the seconds of each.",
            (
                Ask(mean("train_step"), "{{run}} {{stage}} {{cycle}} steps"),
                Ask(mean("train_seconds"), "{{run}} {{stage}} {{cycle}} seconds of the last"),
            ),
            dashed="seconds",
        ),
        Panel(
            "Memory of rank 0",
            "The most that it held: of its GPU, or resident where there is none. Near the limit: "
            "lower train.micro_batch_size or train.max_length.",
            (Ask(mean("train_memory_mb"), "{{run}} {{stage}} {{cycle}}"),),
            "mbytes",
        ),
    ),
    "What came of it": (
        Panel(
            "Held-out scores",
            "On problems that are never trained on, with the 95% interval. What a run is for: it "
            "should rise from base to SFT and over cycles by more than the interval is wide.",
            (
                Ask(
                    f"max by (run, stage, measure, bound) ({of('held_out')})",
                    "{{run}} {{stage}} {{measure}} {{bound}}",
                ),
            ),
            "percentunit",
            width=12,
            steps=True,
            dashed="low|high",
            most=1,
        ),
        Panel(
            "Selection",
            "Samples kept, and dropped by each rule, of the last cycle. Few kept: more samples, or "
            "a lower raft.reward_threshold.",
            (Ask(f"max by (run, rule) ({of('selected')})", "{{run}} {{rule}}"),),
            width=12,
            stacked=True,
            steps=True,
        ),
        Panel(
            "Signs of a collapse",
            "Of a cycle's samples: the share of duplicates and of trivial answers, the entropy of "
            "the answers (1: all differ), nats a token. Duplicates above 50%, trivial ones above "
            "20%, or entropy that has halved while rewards rise: the model says one thing only.",
            (
                Ask(
                    f"max by (run, sign) ({of('health', OTHER_SIGNS)})",
                    "{{run}} {{sign}}",
                ),
            ),
            width=12,
            steps=True,
        ),
        Panel(
            "Length of answers",
            "Mean tokens of a sample, by cycle. Half or twice of what it was: look at the samples.",
            (Ask(f"max by (run) ({of('health', LENGTH)})", "{{run}}"),),
            "suffix: tokens",
            width=12,
            steps=True,
        ),
    ),
    "Ray": (
        Panel(
            "CPU",
            "Of each node that Prometheus sees, whatever runs there. All at 100%: the nodes are "
            "what limits. Ray's own dashboards tell more, of GPUs too.",
            (Ask("ray_node_cpu_utilization", "{{ip}}"),),
            "percent",
            width=6,
            most=100,
        ),
        Panel(
            "Memory",
            "Used of each node, against what it has. Near it Ray kills workers: restarts.",
            (
                Ask("ray_node_mem_used_host", "{{ip}}"),
                Ask("ray_node_mem_total_host", "{{ip}} of"),
            ),
            "bytes",
            width=6,
            dashed="of",
        ),
        Panel(
            "Object store",
            "Objects in memory and on disk. SPILLED that grows: ray.object_store_mb is too small.",
            (Ask("sum by (Location) (ray_object_store_memory)", "{{Location}}"),),
            "bytes",
            width=6,
            stacked=True,
        ),
        Panel(
            "Actors",
            "Living actors by class. Verifiers come and go with the phases; engines stay.",
            (Ask('sum by (Name) (ray_actors{Source="gcs",State="ALIVE"})', "{{Name}}"),),
            width=6,
            stacked=True,
        ),
    ),
}
