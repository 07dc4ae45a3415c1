"""Commands that need an extra of pyproject.toml, and what they say where it is not installed."""

import functools
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, ParamSpec

from typer.core import TyperGroup

from laion_etl.core.errors import LaionEtlError, Stopped

P = ParamSpec("P")

# The modules that each extra installs, as they are imported. First those that its commands always need ...
_ALWAYS = {
    "score": ("torch", "safetensors", "regex"),
    "search": ("usearch", "fastapi", "h11", "starlette", "uvicorn"),
    "dashboard": ("fastapi", "h11", "starlette", "uvicorn"),
    "airflow": ("airflow", "pendulum", "jsonschema"),
    "kubernetes": ("kubernetes",),
    "warc": ("selectolax",),
    "hub": ("huggingface_hub",),
}
# ... then those that depend on settings or arguments: their absence shows when one is imported.
_SOMETIMES = {
    "score": (
        *("huggingface_hub", "open_clip", "open_clip_train", "pandas", "timm", "torchvision"),
        *("transformers", "webdataset"),
    ),
}
EXTRAS = {extra: always + _SOMETIMES.get(extra, ()) for extra, always in _ALWAYS.items()}


class MissingExtraError(LaionEtlError):
    """A command needs packages of an extra that is not installed."""

    exit_code = 2


class MissingPackages(ModuleNotFoundError):  # noqa: N818 - says which, as its base does
    """Packages that a command needs; `extras` installs them."""

    def __init__(self, modules: Iterable[str], extras: Iterable[str]) -> None:
        self.modules, self.extras = tuple(modules), tuple(extras)
        super().__init__(f"no modules named {', '.join(self.modules)}", name=self.modules[0])


def needs(*extras: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a command refuse to start, before any work, where a package of these extras is missing."""

    def decorated(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def checked(*arguments: P.args, **options: P.kwargs) -> None:
            missing = {extra: [m for m in _ALWAYS[extra] if not _installed(m)] for extra in extras}
            modules = dict.fromkeys(module for found in missing.values() for module in found)
            if modules:
                raise MissingPackages(modules, (extra for extra, found in missing.items() if found))
            command(*arguments, **options)

        return checked

    return decorated


class Commands(TyperGroup):
    """Ctrl-C and SIGTERM are an expected end, not Typer's silent abort; so is a missing extra."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped("stopped; run the same command again to continue") from error
        except ModuleNotFoundError as error:
            missing = _of_extras(error)
            if missing is None:
                raise
            groups = ctx.command_path.removeprefix(ctx.find_root().command_path)
            command = f"{groups} {ctx.invoked_subcommand}".strip()
            raise MissingExtraError(_sentence(command, missing)) from error


def _installed(module: str) -> bool:
    found = find_spec(module)
    return found is not None and found.origin is not None  # a mere folder of that name has none


def _of_extras(error: ModuleNotFoundError) -> MissingPackages | None:
    if isinstance(error, MissingPackages):
        return error
    module = (error.name or "").partition(".")[0]
    extras = [extra for extra, modules in EXTRAS.items() if module in modules]
    # `No module named torch.x` where torch is installed is another version or a bug; installing is no cure.
    return MissingPackages([module], extras[:1]) if extras and not _installed(module) else None


def _sentence(command: str, missing: MissingPackages) -> str:
    one = len(missing.modules) == 1
    packages = (
        f"the package{'' if one else 's'} {', '.join(missing.modules)} {'is' if one else 'are'} missing"
    )
    return f"cannot run {command}: {packages}; pip install 'laion-etl[{','.join(missing.extras)}]'"
