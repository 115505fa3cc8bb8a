"""The model card (README.md) of an adapter: base, data, licence, results, how to load it."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from haloforge.model.adapter import AdapterInfo
from haloforge.store.run import write_atomic

_RESULTS = "<!-- results -->"

_CARD = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
    """\
---
base_model: {{ info.base_public_id }}
library_name: {{ "transformers" if whole else "peft" }}
{% if license %}
license: {{ license }}
{% endif %}
tags: [haloforge, code, {{ "lora, " if not whole }}{{ info.stage }}]
---

# {{ info.base_public_id }}, {{ "RAFT cycle " ~ info.cycle if info.cycle else "SFT" }}

{{ "All weights of" if whole else "A LoRA adapter on" }}
[{{ info.base_public_id }}](https://huggingface.co/{{ info.base_public_id }})
(digest `{{ info.base_digest }}`), trained with haloforge
{%- if info.cycle %} on its own answers that the compiler and the tests accepted
{%- else %} on given answers{% endif %}.

## Data

{{ data }}

{{ info.training.rows }} conversations, {{ info.training.trained_tokens }} trained tokens,
{{ info.training.steps }} steps, loss {{ "%.3f" | format(info.training.loss_first) }} to
{{ "%.3f" | format(info.training.loss_last) }}. All settings and versions are in `haloforge.json`.

## Licence

{% if license %}The base model's licence is {{ license }}; what was trained is shared under it too.
{% else %}Not stated with the base model: see its own page before you share what was trained.
{% endif %}

## Results

{{ results }}
Not measured yet: `halo-forge benchmark run --model FOLDER` fills this in.

## Use

```python
{% if whole %}
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("FOLDER")
```
{% else %}
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")
```

`halo-forge model merge --model FOLDER --output MERGED` writes base and adapter as one model.
{% endif %}
"""
)


def model_card(info: AdapterInfo, data: str, license: str | None, whole: bool = False) -> str:
    """The card of a new adapter, or of a `whole` model, in Markdown; `data` says what it learned
    from."""
    return _CARD.render(info=info, data=data, license=license, results=_RESULTS, whole=whole)


def add_results(folder: Path, title: str, measures: Mapping[str, str]) -> None:
    """Puts the measures of a benchmark, as text, into the card of the adapter in `folder`."""
    path = folder / "README.md"
    head, mark, rest = path.read_text().partition(_RESULTS)
    if not mark:  # a card that its owner rewrote is left alone
        return
    lines = [_RESULTS, title, "", "| measure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in measures.items()]
    _, use, tail = rest.partition("\n## Use")
    write_atomic(path, head + "\n".join(lines) + "\n" + use + tail)
