"""The responsible-AI part of the Croissant metadata (RAI extension 1.0): only what holds for every version.

Properties that need human work (annotators, their demographics, an ethical review) are left out.
"""

from typing import Any

from laion_etl.core.quantities import quantity
from laion_etl.publish.card_text import BIASES, LIMITS, MISUSES, PERSONAL, USES
from laion_etl.report.publish_context import PublishContext

_MACHINE_TOOLS = (
    "A language detector (CLD3 unless configured otherwise) detects the language of each text.",
    "CLIP gives similarity, and with prompts or heads on its embeddings, safety tags and aesthetic scores.",
)


def responsible_ai(context: PublishContext) -> dict[str, Any]:
    """Return the rai: properties of a version."""
    parsed, downloaded = context.funnel.row("parse"), context.funnel.row("download")
    return {
        "rai:dataCollection": (
            f"Image links with alt texts were read from the WAT files of Common Crawl's {context.crawl}: "
            f"{quantity(parsed.input, 'link')}. Of {quantity(downloaded.input, 'image')}, each tried once, "
            f"{downloaded.kept:,} arrived and went on to scoring. Only links and texts are published."
        ),
        "rai:dataCollectionType": ["Web Scraping", "Secondary Data Analysis"],
        "rai:dataCollectionRawData": "WAT files of Common Crawl (https://commoncrawl.org).",
        "rai:dataCollectionMissingData": list(context.notes) or ["Nothing that was planned is missing."],
        "rai:dataPreprocessingProtocol": [
            "Alt texts were repaired and their white space folded; short ones and placeholders were dropped.",
            "Pairs with the same URL and text as an earlier one, in this or an earlier crawl, were dropped.",
            "Opt-outs stated by servers, sites and images were "
            + ("honoured." if context.settings.download.opt_out else "not honoured."),
            "Pairs below the CLIP similarity threshold were dropped; samples suspected to show minors in an "
            "unsafe context were dropped and are in no file.",
        ],
        "rai:machineAnnotationTools": [*_MACHINE_TOOLS, *context.scored.all_models],
        "rai:dataUseCases": [*USES, *(f"Not for: {misuse}" for misuse in MISUSES)],
        "rai:dataLimitations": list(LIMITS),
        "rai:dataBiases": list(BIASES),
        "rai:personalSensitiveInformation": [PERSONAL],
        "rai:dataReleaseMaintenancePlan": (
            "Versions are immutable; later crawls and removals make new ones. Removal can be requested from "
            f"{context.settings.publish.contact or 'the distributor of this dataset'}."
        ),
    }
