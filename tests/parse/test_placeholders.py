import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.core.wordlists import words
from laion_etl.parse.placeholders import WORDS, PlaceholderRule, placeholder
from laion_etl.settings import ParseSettings
from tests.parse.outcomes import link_outcome

WORD, FILE = ParseReason.PLACEHOLDER_WORD, ParseReason.PLACEHOLDER_FILE_NAME
HASH, DATE = ParseReason.PLACEHOLDER_HASH, ParseReason.PLACEHOLDER_DATE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image", WORD),
        ("Logo", WORD),
        ("IMAGE 12", WORD),
        ("slide-3", WORD),
        ("[No image available]", WORD),
        ("Изображение", WORD),
        ("ФОТО 3", WORD),
        ("「画像」", WORD),
        ("IMG_1234.JPG", FILE),
        ("IMG_1234", FILE),
        ("DSC00123", FILE),
        ("red-house.jpg", FILE),
        ("my red house.jpeg", FILE),
        ("фото дома.png", FILE),
        ("photo.jpg?w=300", FILE),
        ("banner_728x90", WORD),
        ("WhatsApp Image 2024-01-05 at 10.22.33", FILE),
        ("d41d8cd98f00b204e9800998ecf8427e", HASH),
        ("123e4567-e89b-12d3-a456-426614174000", HASH),
        ("dQw4w9WgXcQ7RkT0aBcDeF12", HASH),
        ("2024-03-12", DATE),
        ("12 March 2024", DATE),
        ("12. März 2024, 10:45", DATE),
        ("2024年3月12日", DATE),
        ("10:45 PM", DATE),
        ("3 / 12", DATE),
        ("This image has an empty alt attribute; its file name is tree.png", WORD),
        ("Dieses Bild hat ein leeres Alt-Attribut. Der Dateiname ist baum.jpg", WORD),
        ("L’attribut alt de cette image est vide, son nom de fichier est arbre.jpg.", WORD),
        ("No alt text provided for this image", WORD),
        ("{{ item.name }}", WORD),
        ("Buy {{item.name}} online", WORD),
        ("${photo.caption}", WORD),
        ("%post_title%", WORD),
        ("[[ photo.title ]]", WORD),
        ("[object Object]", WORD),
        ("photo undefined", WORD),
        ("null null null", WORD),
        ("Photo 3 of 17", WORD),
        ("product image 2 von 9", WORD),
        ("logo-image", WORD),
        ("Bildschirmfoto 2023-11-02 um 09.15.44", WORD),
        ("Снимок экрана 2023-11-02 в 09.15.44", WORD),
        ("スクリーンショット 2023-11-02 9.15.44", WORD),
        ("Screen Shot 2023-11-02 at 9.15.44 AM", WORD),
        ("Untitled design - 2023-11-02T091544.007", WORD),
        ("1920x1080", WORD),
        ("640 × 480 px", WORD),
        ("Instagram", WORD),
        ("Twitter icon", WORD),
        ("Share on LinkedIn", WORD),
        ("IMG-20231102-WA0012", FILE),
        ("signal-2023-11-02-091544", FILE),
        ("https://shop.example/a-red-house", FILE),
        ("May 5, 2024", DATE),
        ("Friday 10:45", DATE),
        ("7 of 31", DATE),
        ("Follow us on Bluesky", WORD),
        ("X logo", WORD),
        ("icon-discord", WORD),
        ("logo-white-300x80", WORD),
        ("Banner 2 mobile", WORD),
        ("Photo of the site", WORD),
        ("Hamburger menu", WORD),
        ("Back to top", WORD),
        ("Kein Alt-Text für dieses Bild vorhanden", WORD),
        ("Enter image description here", WORD),
        ("Sans titre - 3", WORD),
        ("<?php echo $alt; ?>", WORD),
        ("@Model.Name", WORD),
        ("[object HTMLDivElement]", WORD),
        ("この画像には alt 属性が指定されておらず、ファイル名は tree.png です", WORD),
        ("截屏2023-11-02 下午9.15.44", WORD),
        ("Artboard 3 copy 2", FILE),
        ("Mask Group 14@2x", FILE),
        ("Screenshot_20231102-091544_Chrome", FILE),
        ("data:image/png;base64,iVBORw0KGgo", FILE),
        ("{f47ac10b-58cc-4372-a567-0e02b2c3d479}", HASH),
        ("lundi 12 mars 2021", DATE),
        ("12 Ağustos 2021", DATE),
        ("Canon-EOS-R5-with-RF-24-105mm", None),
        ("BMW_M3_Competition_2021", None),
        ("Bild am Sonntag", None),
        ("Telegram from 1912", None),
        ("Mastodon skeleton", None),
        ("Threads of silk", None),
        ("Batman logo", None),
        ("Frame house", None),
        ("Photo of the lighthouse", None),
        ("Share of renewable energy", None),
        ("Juni 2021", None),
        ("APRIL 1945", None),
        ("Sat 2", None),
        ("Mai 45", None),
        ("737-800", None),
        ("T-2000", None),
        ("Z 650", None),
        ("Nikon-Z-6II-with-24-70mm-Lens", None),
        ("Adidas-Ultraboost-22-Womens", None),
        ("Apple_iPhone_15_Pro_Max", None),
        ("WorldCup2022FinalLusailStadium", None),
        ("Follow us to the house on the hill", None),
        ("Facebook opens a data centre in Sweden", None),
        ("A price of $20 {about 18 euros}", None),
        ("Screenshot of the game Doom", None),
        ("Photo by Ansel Adams", None),
        ("A red car on a green field", None),
        ("iPhone 15 Pro", None),
        ("BMW 320d 2019", None),
        ("sunset", None),
        ("May the force be with you", None),
        ("The logo of the 2019 event", None),
        ("See house.jpg in the gallery of pictures for more", None),
        ("Windows 11", None),
        ("赤い家", None),
        ("x" * 300 + ".jpg", None),
        ("Это изображение имеет пустой атрибут alt; имя файла - дом.jpg", WORD),
        ("Den här bilden har ett alt-attribut som är tomt. Dess filnamn är hus.jpg", WORD),
        ("Captura de Tela 2023-11-02 às 09.15.44", WORD),
        ("Näyttökuva 2023-11-02 kello 9.15.44", WORD),
        ("Image No. 7", WORD),
        ("kép 7", WORD),
        ("1400px", WORD),
        ("YouTube channel", WORD),
        ("Image without alt text", WORD),
        ("Loading spinner", WORD),
        ("Mask group", WORD),
        ("Ohne Titel", WORD),
        ("Frame 1171276543", FILE),
        ("Vector (4)", FILE),
        ("_MG_4711", FILE),
        ("MG 350", None),
        ("Frame house 2021", None),
        ("Vector graphics (4)", None),
        ("Spinner dolphin", None),
    ],
)
def test_placeholders_have_a_reason(text: str, reason: ParseReason | None) -> None:
    assert placeholder(text) is reason


def judged(texts: list[str], settings: ParseSettings | None = None) -> list[int]:
    arena = ByteArena(100)
    spans = [arena.add(text.encode()) for text in texts]
    starts, ends = (np.array(edge, np.int32) for edge in zip(*spans, strict=True))
    reasons = np.zeros(len(texts), np.uint8)
    PlaceholderRule(settings or ParseSettings()).judge(arena, starts, ends, reasons)
    return [int(reason) for reason in reasons]


def odd_case(text: str) -> str:
    """Every other letter as a capital."""
    return "".join(letter.upper() if place % 2 else letter.lower() for place, letter in enumerate(text))


LISTS = (
    "camera-endings",
    "camera-words",
    "date-words",
    "image-words",
    "layer-words",
    "months",
    "no-text-sentences",
    "placeholder-additions",
)
OTHERS = [
    "_", "-", " ", " ", ".", "12", "2024", ".jpg", ".JPEG", "年", "ab12", "deadbeef", "D41D", "(", ")", "「",
    "»", "…", "Übung", "x", "(1)", "at", "?w=1", "{", "}", "{{", "}}", "${", "#{", "[", "]", "[[", "]]",
    "<%", "%>", "<?", "?>", "%", "a.b", "×", " px", "640", "https://", "www.", "фото/", "of", "undefined",
    "Canon-", "on X", "@Model.", "@item.b", "@2x", "received", "[object ", "[object Object]",
    "[native code]", "[no_image]", "{name}", "data:image/", "EOS", "by", ".jpg (2)", "signal-",
    "viber image ", "fb_img_", "screenshot_", "20231102-091544_Google Maps", "hq720",
    "gemini_generated_image_", "telegram-cloud-photo-size-", "ı", "İ", "ſ", "é", "0x", "10:45",
]  # fmt: skip
PARTS = st.one_of(
    st.sampled_from(OTHERS),
    *(st.sampled_from(sorted(words(name))) for name in LISTS),
    st.sampled_from(sorted(WORDS)),
)
SPELLINGS = st.sampled_from([str, str.upper, str.capitalize, str.title, str.swapcase, odd_case])
SPELLED = st.builds(lambda part, spelling: spelling(part), PARTS, SPELLINGS)
JOINED = st.builds(str.join, st.sampled_from(["", " ", "-", "_"]), st.lists(SPELLED, min_size=1, max_size=6))


BRACKETS = [
    ("[object Object]", True),
    ("Photo of [object Object]", True),
    ("The red house [object Object] in winter", True),
    ("Das rote Haus, [object HTMLImageElement]", True),
    ("赤い家 [object Object]", True),
    ("function Ne() { [native code] }", True),
    ("A red house [native code]", True),
    ("[[ photo.title ]]", True),
    ("[[photo.title]] in winter", True),
    ("[no_image]", True),
    ("[", False),
    ("A red house [", False),
    ("A red house [1]", False),
    ("A red house [object]", False),
    ("A red house [object of desire]", False),
    ("A red house [now with a garden]", False),
    ("A red house [[photo.title]]", False),
    ("A red house [no_image]", False),
    ("[Official] A red house", False),
    ("A [red] house", False),
    ("赤い家 [新築]", False),
]


@pytest.mark.parametrize(("text", "is_placeholder"), BRACKETS)
def test_brackets_mean_the_same_in_a_text_and_in_a_column(text: str, is_placeholder: bool) -> None:
    assert placeholder(text) is (WORD if is_placeholder else None)
    assert judged([text]) == [REASON_CODES[WORD] if is_placeholder else 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("640 × 480 px", WORD),
        ("800×600", WORD),
        ("300 x 250", WORD),
        ("1080p", WORD),
        ("{{ a }}", WORD),
        ("{% if a %}b", WORD),
        ("Kein Bild verfügbar", WORD),
        ("Pas d'image disponible", WORD),
        ("Нет изображения", WORD),
        ("画像なし", WORD),
        ("이미지 없음", WORD),
        ("Imagem com atributo alt vazio; O nome do arquivo é a.jpg", WORD),
        ("100 {% off}", None),
        ("Slide 2 of 3", WORD),
        ("карТИНКа", WORD),
        ("ЛОГОТИП", WORD),
        ("SCHLIESSEN", WORD),
        ("ADSIZ", WORD),
        ("This image has an empty alt attribute; its file name is tree.png (2)", WORD),
        ("Screenshot_20231102-091544_Google Maps", FILE),
        ("ımg_1234", None),
        ("www.juniſ", None),
    ],
)
def test_a_column_finds_what_its_texts_are(text: str, reason: ParseReason | None) -> None:
    assert placeholder(text) is reason
    assert judged([text]) == [REASON_CODES[reason] if reason else 0]


@settings(max_examples=1000)
@given(st.one_of(JOINED, st.text(min_size=1, max_size=30)))
def test_a_column_is_judged_as_its_texts_are(text: str) -> None:
    text = text.encode(errors="replace").decode()
    reason = placeholder(text)
    code = 0 if reason is None else REASON_CODES[reason]
    assert judged(["a text", text, text]) == [0, code, code]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("refuse_placeholder_words", "image 12"),
        ("refuse_placeholder_file_names", "IMG_1234.JPG"),
        ("refuse_placeholder_hashes", "d41d8cd98f00b204e9800998ecf8427e"),
        ("refuse_placeholder_dates", "12 March 2024"),
    ],
)
def test_each_reason_can_be_switched_off(setting: str, text: str) -> None:
    assert judged([text]) != [0]
    assert judged([text], ParseSettings(**{setting: False})) == [0]  # type: ignore[arg-type]
    assert isinstance(link_outcome("a.jpg", text, "https://example.org/"), ParseReason)
    kept = link_outcome("a.jpg", text, "https://example.org/", ParseSettings(**{setting: False}))  # type: ignore[arg-type]
    assert not isinstance(kept, ParseReason)
