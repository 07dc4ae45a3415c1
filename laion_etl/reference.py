"""The configuration reference, generated from the settings: `make docs`."""

from laion_etl.settings import SettingField, setting_fields

_INTRODUCTION = """# Configuration

Generated from `laion_etl/settings` by `make docs`; edit it there.

A setting is an environment variable, or an entry of a TOML file: `LAION_ETL_CONFIG` names the file, else
`laion_etl.toml` in the current folder is read. `LAION_ETL_DOWNLOAD_CONNECTIONS=64` is
`connections = 64` under `[download]`; settings of the first table stand at the top of the file. The
environment wins. A name that is no setting is an error that suggests the right one.
"""

_TITLES = {
    "core": "Where things are",
    "parse": "Parse",
    "database": "Postgres",
    "load": "Load",
    "plan": "Plan",
    "download": "Download",
    "clip": "CLIP",
    "safety": "Safety and beauty",
    "publish": "Publish",
    "index": "Index and search",
    "alerts": "Alerts",
    "airflow": "Airflow",
    "kubernetes": "Kubernetes",
}


def reference() -> str:
    """docs/configuration.md as one Markdown text."""
    parts = [_INTRODUCTION]
    for group, title in _TITLES.items():
        rows = [_row(field) for field in setting_fields() if field.group == group]
        parts.append(
            f"## {title}\n\n| variable | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _row(field: SettingField) -> str:
    default = ", ".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
    return f"| `{field.variable}` | {f'`{default}`' if default else ''} | {field.doc} |"


if __name__ == "__main__":
    print(reference(), end="")
