"""The Grafana dashboard of a run: `python -m cluster.grafana.dashboard` writes `haloforge.json`.

What it shows is in `panels.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.grafana.panels import GREEN, ROWS, VARIABLES, VERMILION, Panel

FILE = Path(__file__).with_name("haloforge.json")
UID = "haloforge"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row, members in ROWS.items():
        at = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append(
            {"type": "row", "title": row, "collapsed": False, "gridPos": at, "panels": []}
        )
        x, y, height = 0, y + 1, 0
        for panel in members:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            at = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            panels.append({**_panel(panel), "gridPos": at})
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": UID,
        "title": "Haloforge",
        "description": "Runs of Haloforge: samples, rewards, engines, verifiers, training, scores.",
        "tags": ["haloforge", "ray"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables()},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def text() -> str:
    """What `haloforge.json` holds."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "current": {},
        }
    ]
    for place, name in enumerate(VARIABLES):
        before = ",".join(f'{each}=~"${each}"' for each in VARIABLES[:place])
        asked = f"label_values(ray_haloforge_stage_seconds{{{before}}}, {name})"
        found.append(
            {
                "name": name,
                "label": name.capitalize(),
                "type": "query",
                "datasource": SOURCE,
                "definition": asked,
                "query": {"query": asked, "refId": name},
                "refresh": 2,  # when the time range changes
                "sort": 3 if name == "cycle" else 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",  # what is of no cycle too
                "current": {"text": ["All"], "value": ["$__all"]},
            }
        )
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": SOURCE,
            "expr": ask.expr,
            "legendFormat": ask.legend,
            "format": ask.format,
            "instant": ask.instant,
            "range": not ask.instant,
        }
        for place, ask in enumerate(panel.asks)
    ]
    steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
    if panel.red_from is not None:
        steps.append({"color": VERMILION, "value": panel.red_from})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": _lines(panel) if panel.kind == "timeseries" else {},
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.look_for,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": _overrides(panel)},
        "options": _OPTIONS[panel.kind](panel),
    }


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in panel.colours.items()
    ]
    if panel.dashed:
        style = {"fill": "dash", "dash": [6, 6]}
        found.append(
            {
                "matcher": {"id": "byRegexp", "options": f"/\\b({panel.dashed})\\b/"},
                "properties": [{"id": "custom.lineStyle", "value": style}],
            }
        )
    return found


def _lines(panel: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineInterpolation": "stepAfter" if panel.steps else "linear",
        "lineWidth": 1 if panel.stacked else 2,
        "fillOpacity": 70 if panel.stacked else 0,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }


_REDUCED = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, Callable[[Panel], dict[str, Any]]] = {
    "timeseries": lambda panel: {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": lambda panel: {
        "reduceOptions": _REDUCED,
        "colorMode": "value",
        "graphMode": "none" if panel.names else "area",
        "textMode": "value_and_name" if panel.names else "auto",
    },
    "bargauge": lambda panel: {
        "reduceOptions": _REDUCED,
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
    },
    "heatmap": lambda panel: {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Cividis", "steps": 64},
        "cellGap": 1,
        "yAxis": {"axisPlacement": "left", "unit": "short"},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "legend": {"show": True},
    },
}


if __name__ == "__main__":
    FILE.write_text(text())
