"""The configuration reference, generated from the settings: `make docs`."""

from laion_etl.settings import SettingField, setting_fields
from laion_etl.settings.fields import Entries

_INTRODUCTION = """# Configuration

*For those who set something up, or look up what a setting means and takes.*

Generated from `laion_etl/settings` by `make docs`; edit it there.

A setting is an environment variable, or an entry of a TOML file: `LAION_ETL_CONFIG` names the file, else
`laion_etl.toml` in the current folder is read (such a file has to be yours or root's, and cannot name code:
`module:factory`, or the Python of the runner venv).
`LAION_ETL_DOWNLOAD_CONNECTIONS=64` is
`connections = 64` under `[download]`; settings of the first table go at the top of the file. The
environment takes precedence. Lists are comma separated in the environment. All settings are checked before
any work: a name that does not exist, a value out of range or an unknown choice ends a command with exit code
2 and one line that says what to do. Column *changes* names the stage whose output a setting changes: after a
change its finished work is done again, and the manifest of a dataset records the value.
"""
_END = """
Next: [other settings for the same crawl](how-to/other-settings.md), [the commands](commands.md).
"""
_HEAD = "| variable | default | unit | values | changes | meaning |\n|---|---|---|---|---|---|"

_TITLES = {
    "core": "Locations and runner",
    "parse": "Parse",
    "database": "Postgres",
    "load": "Load",
    "plan": "Plan",
    "download": "Download",
    "clip": "CLIP",
    "safety": "Safety and aesthetics",
    "publish": "Publish",
    "index": "Index and search",
    "alerts": "Alerts",
    "airflow": "Airflow",
    "kubernetes": "Kubernetes",
    "prices": "Prices (by default AWS, us-east-1: EC2, S3 and VPC list prices of June 2026)",
}


def reference() -> str:
    """Returns docs/configuration.md as Markdown."""
    parts = [_INTRODUCTION]
    for group, title in _TITLES.items():
        rows = [_row(field) for field in setting_fields() if field.group == group]
        parts.append(f"## {title}\n\n{_HEAD}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts) + _END


def _row(field: SettingField) -> str:
    declaration = field.declaration
    cells = (
        f"`{field.variable}`",
        f"`{shown}`" if (shown := field.text(field.default)) else "",
        declaration.unit,
        _values(field),
        declaration.changes.value if declaration.changes else "",
        field.doc + " Secret: never shown." * field.secret,
    )
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _values(field: SettingField) -> str:
    """Returns the allowed values, in words."""
    if field.type is bool:
        return "true, false"
    if field.type == Entries:
        return "TOML table"
    choices = [f"`{choice}`" for choice in field.declaration.choices if choice]
    factory = ["`module:factory`"] if field.declaration.or_factory else []
    found = ", ".join([*choices, *factory]) or field.declaration.range
    return f"list{': ' * bool(found)}{found}" if isinstance(field.default, tuple) else found


if __name__ == "__main__":
    print(reference(), end="")
