"""Custom rules for images: what is about to be stored in; out, None (it is stored) or the reason why not."""

from collections.abc import Sequence
from typing import Protocol

from laion_etl.core.errors import InternalError, LaionEtlError, SettingsError
from laion_etl.core.funnel import REASON_NAME, DownloadStatus, Outcomes
from laion_etl.core.import_factory import load_callables
from laion_etl.download.images import StoredImage
from laion_etl.settings import DownloadSettings

VARIABLE = "LAION_ETL_DOWNLOAD_IMAGE_RULES"
_MAX_CHARS = 300
_MAX_FAILED_SHARE = 0.01
_FEW = 10  # of few images, these are more than 1%


class ImageRule(Protocol):
    """The interface of rules; docs/library.md shows how to write one.

    A rule may look at nothing but the image it gets, and has microseconds: it runs where the downloads do. It
    must not decode the bytes, which come from strangers and are decoded in confined processes only.
    """

    def __call__(self, image: StoredImage) -> str | None:
        """Return None to store the image, or the reason: a name like `not_a_landscape`."""
        ...


def load_image_rules(settings: DownloadSettings) -> tuple[ImageRule, ...]:
    """Return the rules that the settings name. Raises SettingsError for one that cannot be used.

    Each factory is called with the settings of the download stage.
    """
    return load_callables(settings.image_rules, settings, VARIABLE, "ImageRule")


class RuleFailedError(Exception):
    """A rule raised an exception for an image."""


def refused_by(rules: Sequence[ImageRule], image: StoredImage) -> str | None:
    """Return the reason of the first rule that refuses an image.

    Raises SettingsError for an invalid reason, RuleFailedError when a rule raises an exception.
    """
    for rule in rules:
        try:
            reason = rule(image)
        except (LaionEtlError, MemoryError):
            raise
        except Exception as error:
            raise RuleFailedError(f"{type(error).__name__}: {error}"[:_MAX_CHARS]) from error
        if reason is None:
            continue
        if not isinstance(reason, str) or not REASON_NAME.match(reason):
            name = getattr(rule, "__name__", type(rule).__name__)
            raise SettingsError(
                f"cannot use the image rule {name}: it returned {str(reason)[:80]!r}; return None or a name "
                "like not_a_landscape"
            )
        return reason
    return None


def check_failed_share(outcomes: Outcomes[DownloadStatus], example: str) -> None:
    """Raise InternalError if rules failed for more than 1% of the images that they saw, and more than ten.

    Few mean a bug in a rule, many a broken installation: a shard without images must not pass for done.
    """
    failed, refused = (
        outcomes.dropped.get(status.value, 0)
        for status in (DownloadStatus.INTERNAL_ERROR, DownloadStatus.REFUSED_BY_RULE)
    )
    seen = outcomes.kept + failed + refused
    if failed > max(_FEW, _MAX_FAILED_SHARE * seen):
        raise InternalError(
            f"cannot apply the image rules: they raised exceptions for {failed:,} of {seen:,} images, such "
            f"as {example}; mend the rules or the installation ({VARIABLE})"
        )
