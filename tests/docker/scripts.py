"""Scripts of docker/, which is no package."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

DOCKER = Path(__file__).parents[2] / "docker"


def script(name: str) -> ModuleType:
    """Import a script by its name without ending."""
    spec = spec_from_file_location(name, DOCKER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
