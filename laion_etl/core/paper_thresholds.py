"""The thresholds of LAION-5B, and the model they belong to: other models' similarities differ in range."""

from collections.abc import Container, Sequence

ENGLISH = 0.28
OTHER = 0.26  # with a multilingual text tower

_NAMES = ("ViT-B-32", "ViT-B-32-quickgelu")
_HUB, _ON_HUB = "hf-hub:", "/vit_base_patch32_clip_224.openai"  # OpenAI's weights; timm's, or a copy


def of_other_models(
    english: Container[float],
    other: Container[float],
    models: Sequence[str],
    other_models: Sequence[str],
) -> list[tuple[float, str]]:
    """Return each threshold of the paper that is in force for a model it was not chosen for, and that model.

    Args:
        english: The thresholds in force for English.
        other: Those for other languages.
        models: Names and weights, like ViT-B-32/openai, and more after a comma. A file of ViT-B-32 is taken
            for OpenAI's weights, for which the thresholds were chosen.
        other_models: Those of other languages, if they have models of their own.
    """
    routes = ((ENGLISH, english, models), (OTHER, other, other_models or models))
    return [
        (threshold, model)
        for threshold, in_force, scored_by in routes
        if threshold in in_force
        for model in scored_by
        if not _belong_to(model)
    ]


def _belong_to(model: str) -> bool:
    model = model.partition(",")[0]
    if model.startswith(_HUB):
        return model.endswith(_ON_HUB)
    name, _, weights = model.partition("/")
    return name in _NAMES and (weights == "openai" or "." in weights)
