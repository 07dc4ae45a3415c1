"""The thresholds of LAION-5B, and the model they belong to: other models' similarities differ in range."""

ENGLISH = 0.28
OTHER = 0.26  # with a multilingual text tower

_NAMES = ("ViT-B-32", "ViT-B-32-quickgelu")
_HUB, _ON_HUB = "hf-hub:", "/vit_base_patch32_clip_224.openai"  # OpenAI's weights; timm's, or a copy


def used_for_another_model(model: str, english: float) -> bool:
    """Whether a model uses the threshold of the paper, which was chosen for OpenAI's ViT-B/32.

    Args:
        model: Its name and weights, like ViT-B-32/openai, and more after a comma. A file of ViT-B-32 is taken
            for OpenAI's weights.
        english: Its threshold for English pairs.
    """
    return english == ENGLISH and not _is_of_the_paper(model.partition(",")[0])


def _is_of_the_paper(model: str) -> bool:
    if model.startswith(_HUB):
        return model.endswith(_ON_HUB)
    name, _, weights = model.partition("/")
    return name in _NAMES and (weights == "openai" or "." in weights)
