"""The thresholds of LAION-5B, and the model they belong to: other models' similarities differ in range."""

ENGLISH = 0.28
OTHER = 0.26  # with a multilingual text tower

_NAMES = ("ViT-B-32", "ViT-B-32-quickgelu")
_HUB, _ON_HUB = "hf-hub:", "/vit_base_patch32_clip_224.openai"  # OpenAI's weights; timm's, or a copy


def belong_to(model: str) -> bool:
    """Whether the thresholds were chosen for a model: OpenAI's ViT-B/32.

    Args:
        model: Its name and weights, like ViT-B-32/openai, and more after a comma. A file of ViT-B-32 is taken
            for OpenAI's weights.
    """
    model = model.partition(",")[0]
    if model.startswith(_HUB):
        return model.endswith(_ON_HUB)
    name, _, weights = model.partition("/")
    return name in _NAMES and (weights == "openai" or "." in weights)
