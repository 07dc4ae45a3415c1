"""An enum whose members are names in files and outputs, each with the sentence that documents it."""

from enum import StrEnum
from typing import Self


class DocumentedEnum(StrEnum):
    """Members are written as `NAME = "value", "Sentence."`; `sentence` has the second part."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member
