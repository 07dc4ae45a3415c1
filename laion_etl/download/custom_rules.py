"""Custom rules for images: what is about to be stored in; out, None (it is stored) or the reason why not."""

from collections.abc import Sequence
from typing import Protocol

from laion_etl.core.errors import InternalError, SettingsError
from laion_etl.core.funnel import REASON_NAME, DownloadStatus, Outcomes
from laion_etl.core.import_factory import load_callables
from laion_etl.core.quantities import quantity
from laion_etl.core.rule_failures import NOT_CONTAINED, described, too_many
from laion_etl.download.images import StoredImage
from laion_etl.settings import DownloadSettings

VARIABLE = "LAION_ETL_DOWNLOAD_IMAGE_RULES"


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
        except NOT_CONTAINED:
            raise
        except Exception as error:
            raise RuleFailedError(described(error)) from error
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
    """Raise InternalError if rules failed for too many of the images that they saw."""
    failed = outcomes.count(DownloadStatus.INTERNAL_ERROR)
    seen = outcomes.kept + failed + outcomes.count(DownloadStatus.REFUSED_BY_RULE)
    if too_many(failed, seen):
        raise InternalError(
            f"cannot apply the image rules: they raised exceptions for {failed:,} of "
            f"{quantity(seen, 'image')}, such as {example}; mend the rules or the installation ({VARIABLE})"
        )
