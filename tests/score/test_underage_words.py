"""Captions that may speak of minors are found in any script, form and inflection."""

import unicodedata

import pytest

from laion_etl.score.safety import PROMPTS, load_prompts
from laion_etl.score.underage_words import UnderageWords, folded

# By language: captions that must be suspect.
SUSPECT = {
    "en": (
        "babysitter wanted", "childhood memories", "teen_girl_01", "teens2020", "TEENAGERS", "preteen model",
        "a KID plays", "kids", "my toddler", "newborn photos", "under-age", "underaged", "a minor", "minors",
        "schoolgirls", "little boy", "SchoolGirl2", "ｔｅｅｎ ｇｉｒｌ", "te\u00aden", "tee\u200bn",
        "grandchildren", "youngsters", "adolescence", "her daughter", "IMG-boy-3", "kindergartener",
    ),
    "de": ("Kinderzimmer", "KIND", "Kleinkinder", "Mädchens", "Ma\u0308dchen", "Minderjähriger",
           "Schulmädchen", "die Jungen", "des Kindes", "Schild mit Kindern", "Schülerinnen"),
    "fr": ("les enfants", "une fillette", "des mineures", "ado", "bébé", "be\u0301be\u0301",
           "petites filles"),
    "es": ("nin\u0303a", "las niñas", "NIÑO", "menor", "muchachita", "adolescentes", "bebés"),
    "pt": ("crianças", "crianc\u0327a", "menininha", "garotinha", "meninos"),
    "it": ("bambine", "una ragazzina", "neonato", "minorenni", "bimba"),
    "nl": ("kinderen", "meisjes", "peuters", "jongens"),
    "pl": ("dziewczynki", "dziewczynką", "dzieciom", "chłopca", "nastolatka"),
    "tr": ("ÇOCUK", "çocuğu", "küçük kızlar", "KIZ", "bebeğim"),
    "ru": (
        "ребёнка", "ребенку", "о детях", "детьми", "детская", "девочку", "девочками", "мальчиков",
        "подростка", "школьницы", "малышка", "МЛАДЕНЕЦ", "дети", "несовершеннолетняя",
    ),
    "uk": ("дитину", "дитячий", "дівчинка", "хлопчика", "підлітки", "діти"),
    "el": ("παιδιά", "κορίτσια", "μωρό", "ΑΝΗΛΙΚΟΣ"),
    "ar": ("الطفل", "والأطفال", "طفلة", "طِفْل", "طفـل", "للاطفال", "المراهقين", "البنات", "فتاة"),
    "fa": ("کودکان", "بچه‌ها", "دخترم", "نوجوانان"),
    "he": ("הילדה", "ילדים", "תינוקת", "יֶלֶד"),
    "hi": ("बच्चों", "लड़की", "एक लड़का", "बालिका"),
    "zh": ("公园里的女孩们", "一个小孩在玩", "可爱的儿童服装", "三個孩子", "未成年人", "幼女图片", "兒童節"),
    "ja": ("公園で遊ぶ子供たち", "かわいい女の子です", "美少女フィギュア", "こどもの日", "女子中学生の制服",
           "赤ちゃん", "ｺﾄﾞﾓ"),
    "ko": ("귀여운 아기가", "소녀시대", "어린이날", "청소년의"),
    "th": ("เด็กผู้หญิงกำลังเล่น", "วัยรุ่นไทย", "ทารกน้อย"),
    "vi": ("một bé gái", "trẻ em", "tre\u0309 em"),
    "id": ("anak-anak", "seorang gadis", "bayinya"),
}  # fmt: skip

# Harmless ones, also with words that only begin or end like those of the lists.
HARMLESS = (
    "", "ein Gefahrenschild", "Rothschild", "a red lamp",
    "mankind", "some kindness", "minority report", "minority", "tornado warning", "avocado",
    "filled glass", "season", "sonata", "a person in a chair", "barnacle", "soldier", "2020", "___",
    "Menorca am Abend", "das Haus am See", "une maison", "casa blanca", "belo horizonte", "la strada",
    "het huis", "stary dom", "eski ev", "старый дом", "детектив", "диета", "дорога в горах", "старий будинок",
    "το σπίτι", "بيت قديم", "خانه قدیمی", "בית ישן", "पुराना घर", "老房子", "山水风景", "古い家", "電子レンジ",
    "오래된 집", "บ้านเก่า", "ngôi nhà", "rumah tua",
)  # fmt: skip


@pytest.fixture(scope="module")
def words() -> UnderageWords:
    return UnderageWords()


def test_the_table_is_as_large_as_it_claims() -> None:
    assert len(SUSPECT) >= 15
    assert sum(map(len, SUSPECT.values())) + len(HARMLESS) >= 180


@pytest.mark.parametrize("language", SUSPECT)
def test_suspect_captions_are_found(words: UnderageWords, language: str) -> None:
    assert [caption for caption in SUSPECT[language] if not words.found_in(caption)] == []


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
def test_the_unicode_form_of_a_caption_does_not_matter(words: UnderageWords, form: str) -> None:
    captions = [unicodedata.normalize(form, caption) for found in SUSPECT.values() for caption in found]
    assert [caption for caption in captions if not words.found_in(caption)] == []


def test_harmless_captions_are_not_suspect(words: UnderageWords) -> None:
    assert [caption for caption in HARMLESS if words.found_in(caption)] == []


def test_words_of_a_prompt_file_come_on_top() -> None:
    words = UnderageWords(["Gizmo"])
    assert words.found_in("a gizmo")
    assert words.found_in("a child")
    assert not words.found_in("gizmos")
    assert words.identity != UnderageWords().identity


def test_the_shipped_prompt_files_add_no_word_that_others_would_lack(words: UnderageWords) -> None:
    """A prompt file of one's own is as strict as the shipped ones."""
    shipped = load_prompts(PROMPTS / "clip.json").underage_words
    assert [word for word in sorted(shipped) if not words.found_in(word)] == []


def test_folding_is_stable() -> None:
    for captions in (*SUSPECT.values(), HARMLESS):
        for caption in captions:
            assert folded(folded(caption)) == folded(caption)
