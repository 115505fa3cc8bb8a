"""A run in which the model wrote what may attack its reader."""

from pathlib import Path

from haloforge.store.problems_table import write_problems
from tests.raft_runs import Row, problem, write_cycle
from tests.viewing import spoil

RAN = "window.ran = true; document.title = 'owned'; fetch('http://127.0.0.1:1/stolen')"
ATTACKS = {
    "script": f"<script>{RAN}</script>",
    "break-out": f'</pre></code></td></table><img src=x onerror="{RAN}">',
    "attribute": f'" autofocus onfocus="{RAN}" x="\'--><svg onload=\'{RAN}\'>',
    "template": "{{ ''.__class__.__mro__ }}{% raw %}${7*7}",
    "style": "</style><style>body{display:none}</style><link rel=stylesheet href=//127.0.0.1:1/x>",
    "frame": "<iframe src='http://127.0.0.1:1/'></iframe><meta http-equiv=refresh content='0;/x'>",
    "form": "<form action='http://127.0.0.1:1/'><button autofocus>Sign in</button></form>",
    "bidi": 'if (level != "user\u202e \u2066// admin only\u2069 \u2066") { drop(); }',
    "controls": "\x1b[2J\x1b]0;owned\x07\x00\x08\x7f\u200b\u2028\ufeff end",
    "comment": "<!-- <![CDATA[ <textarea> <title> <plaintext> &lt;script&gt; &#60;b&#62;",
}
HUGE = 5_000_000
NAMES = [*ATTACKS, "huge", "bytes"]


def write_hostile_run(run: Path) -> None:
    """A run of attacks: each is its answer, its diagnostics, its prompt and its problem's name."""
    run.mkdir()
    texts = [*ATTACKS.values(), "x" * HUGE, "x"]
    rows = [
        Row(f"{name} {text[:60]}", number, 0.0, code=f"int a; // {text}\n")
        for number, (name, text) in enumerate(zip(NAMES, texts, strict=True))
    ]
    write_cycle(run, 1, rows, commit=99)
    write_problems(
        run,
        [problem(row.problem, prompt=text[:2000]) for row, text in zip(rows, texts, strict=True)],
    )
    shard = "000001.parquet"
    said = [text.encode("utf-8") for text in [*ATTACKS.values(), "y" * HUGE]]
    spoil(run / "cycle_1" / "verdicts" / shard, "diagnostics", [*said, b"\xff\xfe bad \xc3("])
    answers = [f"```cpp\n{row.code}```\n".encode() for row in rows[:-1]]
    answers.append(b"```cpp\nint a; // \xf0\x28\x8c\x28 \xed\xa0\x80\n```\n")
    spoil(run / "cycle_1" / "samples" / shard, "completion", answers)
