"""Wishes in words, in the texts of images: each text with what it says, and why."""

import io
import struct
import zlib
from random import Random

import pytest
from PIL import Image

from laion_etl.download.content_opt_out import opted_out_by_metadata
from laion_etl.download.worded_wishes import text_forbids

WISHES = [
    "NoAI",
    "noai, noimageai",
    "#NoImageAI",
    "(c) 2025 A. Painter | NoAI",
    "No AI training",
    "no AI/ML training",
    "No A.I. training.",
    "Not for AI training",
    "May not be used to train AI models.",
    "This image must not be used for training of artificial intelligence",
    "Do not use this photo for machine learning",
    "Use for machine learning is prohibited",
    "AI training prohibited",
    "AI training: denied",
    "AI-training is strictly forbidden",
    "Use in AI datasets is not permitted",
    "Permission to use this work for training generative AI is not granted",
    "Scraping by AI companies forbidden",
    "I don't allow AI training with my work",
    "No training of LLMs",
    "No data mining",
    "TDM reserved",
    "Not for deep learning",
    "Text and data mining is not allowed",
    "All rights reserved, including those for text and data mining, AI training, and similar technologies",
    "All rights are reserved, also for TDM and AI training (Art. 4 DSM)",
    "Rights to data mining reserved",
    "The author opts out of AI training",
    "Opt-out: AI training, data mining",
    "Unauthorized use for AI training will be pursued",
    "Excluded from any use in machine learning datasets",
    "Neural networks may never be trained on this; nor may it be used for training neural networks",
    "You may share this photograph with credit. You may not use it to train AI. Thank you!",
    "\xa9 Anna \u2013 no ai training",
    "I don\u2019t allow AI training",
    "No AI\ntraining",
    "May not be used\r\n  to train AI",
    "No&#x20;AI&#32;training",
    "I don&apos;t allow AI training",
    "I don&amp;#8217;t allow AI training",
    "No text &amp; data mining",
    "&#78;o &#65;I training",
    "May not be used for e.g. AI training",
    "No use for AI",
    "May not be used by generative AI",
    "Images may not be uploaded to AI tools",
    "Do not feed this image into any LLM",
    "Not to be used in any machine-learning model",
    "AI use prohibited",
    "Not for AI data sets",
    "No training of generative models",
    "No training of language models",
    "machine\u2011learning prohibited",
    "May not be trained on by A. I.",
    "No use in ML",
    "#NoAITraining",
    "donottrain",
    "=" * 80 + "NoAI",
]
WISHES_IN_UTF_8 = [
    "Kein KI-Training",
    "Kein Training von KI",
    "Keine Nutzung für KI",
    "KI-Training verboten",
    "Nutzung durch KI untersagt",
    "Nicht für das Training von KI-Modellen verwenden",
    "Die Nutzung der Bilder zum Training künstlicher Intelligenz ist ausdrücklich untersagt",
    "Nutzung für Text und Data Mining vorbehalten (§ 44b UrhG)",
    "Text- und Data-Mining im Sinne von § 44b UrhG bleibt vorbehalten",
    "Der Nutzung zum Zwecke des Text- und Data-Minings wird widersprochen",
    "Darf nicht für maschinelles Lernen verwendet werden",
    "Keine KI",
    "KI-Nutzung verboten",
    "Pas d'entraînement d'IA",
    "Interdit d'utiliser cette image pour entraîner une IA",
    "Utilisation pour l'entraînement d'intelligences artificielles interdite",
    "L\u2019utilisation par une IA est interdite",
    "Fouille de textes et de données interdite",
    "Tous droits réservés, y compris pour la fouille de textes et de données",
    "Ne pas utiliser pour l'IA",
    "Pas d'IA",
    "Prohibido el uso para entrenar IA",
    "Prohibido el entrenamiento de inteligencia artificial con esta imagen",
    "No se permite el uso de esta imagen para entrenar modelos de IA",
    "No usar para IA",
    "Minería de datos prohibida",
    "Todos los derechos reservados, incluida la minería de textos y datos",
    "Vietato l'uso per addestrare l'intelligenza artificiale",
    "Vietato l'addestramento di IA",
    "È vietato l'utilizzo per l'addestramento di modelli di AI",
    "Non utilizzare per l'IA",
    "Estrazione di testo e di dati vietata",
    "Proibido o uso para treinamento de IA",
    "Não usar para treinar inteligência artificial",
    "Não é permitido o treino de IA com esta imagem",
    "Mineração de dados proibida",
    "Geen AI-training",
    "Niet gebruiken voor AI",
    "Gebruik voor het trainen van kunstmatige intelligentie verboden",
    "Gebruik door AI niet toegestaan",
    "Tekst- en datamining voorbehouden",
    "Zakaz trenowania AI",
    "Zakaz używania do trenowania sztucznej inteligencji",
    "Nie używać do uczenia maszynowego",
    "Eksploracja tekstów i danych zastrzeżona",
    "AI学習禁止",
    "無断AI学習禁止",
    "AIの学習に使用することを禁止します",
    "機械学習への利用を禁じます",
    "生成AIへの学習はご遠慮ください",
    "無断学習禁止",
    "\uff21\uff29学習禁止",
    "禁止AI训练",
    "禁止用于人工智能训练",
    "不得用于AI训练",
    "請勿用於AI訓練",
    "AI训练禁止",
    "严禁将本图用于机器学习",
    "AI 학습 금지",
    "AI학습을 금지합니다",
    "인공지능 학습에 사용을 금지합니다",
    "#SayNoToAIArt",
    "\uff2e\uff4f\uff21\uff29",
    "No\u200bAI",
    "noai2024",
    "no-ai",
    "no_ai",
    "#NoToAI",
    "no_ai_training",
    "AI crawlers keep out",
    "Text-mining forbidden",
    "No AI, please",
    "No AI allowed",
    "AI not allowed",
    "No AI!",
    "No scraping, no AI",
    "Not to be scraped for AI",
    "NoAIArt",
    "No Gen AI",
    "no generative AI",
    "No AI datasets",
    "Opt out of AI",
    "Please do not train AI on my art",
    "Use of this image to train any AI is strictly forbidden",
    "Do not use with AI",
    "I do not consent to AI training",
    "I do not consent to my images being used for AI",
    "AI companies may not use this image",
    "not for use by Midjourney, ChatGPT or similar",
    "No LLM training",
    "Machine learning: forbidden",
    "AI/ML usage prohibited",
    "This work is not licensed for AI training",
    "You do not have permission to train AI on this",
    "AI-Training: no",
    "No ML training, no TDM",
    "© Jane; NoAI; NoImageAI",
    "No permission is given for AI training, data mining or scraping",
    "This image may not be used, in whole or in part, "
    "for the purpose of training artificial intelligence technologies or systems",
    "© 2025 Foto Müller \u2013 Nutzung für KI-Training untersagt",
]
NO_WISHES = [
    "",
    "All rights reserved",
    "Copyright 2025 A. Painter. All rights reserved. No reproduction without permission.",
    "No AI was used to make this painting",
    "No AI used.",
    "100% human made, not AI generated",
    "AI training institute",
    "Our AI summit: training and workshops",
    "Trained on AI",
    "Noaim",
    "Genoai",
    "Monoaime",
    "noaix",
    "the noain desert",
    "Juno AI",
    "no airplanes",
    "Training of rescue dogs, no entry",
    "Mining is prohibited in this area",
    "A train that does not stop",
    "No dogs; machine learning conference 2024",
    "Machine learning datasets allowed",
    "You may use this for AI training",
    "digitalsourcetype/trainedAlgorithmicMedia",
    "iVBORw0KGgoAnoAIAAAANSUhEUgAAAAUA",
    "No smoking. AI training on the second floor",
    "No smoking\n\nAI training on the second floor",
    "A9x+noai/B3kPq" * 9 + "==",
    "This was not created using AI",
    "I never used AI for this",
    "Not made with the use of AI",
    "Created without AI",
    "No XML or HTML",
    "The diffusion of models in a neural network",
    "Ohne KI erstellt",
    "Ohne Verwendung von KI erstellt",
    "Keine KI verwendet",
    "Nicht mit KI erzeugt",
    "Es wurde keine KI verwendet",
    "Training im Verein, kein Eintritt",
    "Kein Training heute",
    "Alle Rechte vorbehalten",
    "Créé sans IA",
    "Aucune IA n'a été utilisée",
    "Réalisé sans utilisation d'IA",
    "Je n'ai pas l'autorisation",
    "Sin IA",
    "Hecho sin inteligencia artificial",
    "No se usó IA",
    "Vietato l'uso per scopi commerciali ai sensi di legge",
    "È vietata la riproduzione e l'uso ai fini commerciali",
    "Non utilizzare per scopi diversi, ai sensi della legge 633/41",
    "Tutti i diritti riservati ai sensi della legge sul diritto d'autore, vietato l'uso in altri siti",
    "Feito sem IA",
    "Não foi usada IA",
    "Zonder AI gemaakt",
    "Geen AI gebruikt",
    "Not generated by AI",
    "Human made, no AI involved",
    "AI-free photography",
    "No artificial intelligence was involved",
    "100% no AI generated content",
    "Do not use in 500 ml bottles",
    "Not for use in 50 ml",
    "no-reply@studio.example",
    "All rights reserved - studio.ai",
    "Training data science institute, no fee",
    "AI conference 2024, no photos allowed",
    "Made with no AI",
    "ml 5 not used",
    "© OpenAI. All rights reserved.",
    "Generated by Midjourney, no upscaling",
    "Adobe Photoshop 2024 (AI denoise), no crop",
    "Mai Nguyen, not for sale",
    "Kia Sportage, not for sale",
    "model release: no",
    "Model release: none; property release: none",
    "Kein Modell",
    "Deep Learning Institute, all rights",
    "Copyright Mining Museum. All rights reserved. No reproduction.",
    "Coal mining, data centre; all rights reserved",
    "Generative art, all rights reserved",
    "Generative art by hand; not for sale",
]
NO_WISHES_IN_UTF_8 = [
    "Bez użycia AI",
    "AI不使用",
    "AIは使用していません",
    "AI生成ではありません",
    "AI生成图片",
    "未使用AI",
    "本图非AI生成",
    "禁止吸烟",
    "禁止转载",
    "無断転載禁止",
    "무단 전재 금지",
    "AI 사용하지 않았습니다",
    "AI로 만든 이미지가 아닙니다",
]


@pytest.mark.parametrize("text", WISHES)
def test_what_forbids(text: str) -> None:
    for written in (text, text.upper(), f"<dc:rights><rdf:li>{text}</rdf:li></dc:rights>", f"x. {text}. y"):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            assert text_forbids(written.encode(encoding)), (written, encoding)


@pytest.mark.parametrize("text", WISHES_IN_UTF_8)
def test_what_forbids_in_the_languages_of_most_metadata(text: str) -> None:
    for written in (text, text.upper(), f"<dc:rights><rdf:li>{text}</rdf:li></dc:rights>", f"x. {text}. y"):
        assert text_forbids(written.encode()), written


@pytest.mark.parametrize("text", NO_WISHES_IN_UTF_8)
def test_what_does_not_in_the_languages_of_most_metadata(text: str) -> None:
    for written in (text, text.upper(), f"<dc:rights><rdf:li>{text}</rdf:li></dc:rights>"):
        assert not text_forbids(written.encode()), written


@pytest.mark.parametrize("text", NO_WISHES)
def test_what_does_not(text: str) -> None:
    for written in (text, text.upper(), f"<dc:rights><rdf:li>{text}</rdf:li></dc:rights>"):
        for encoding in ("utf-8", "utf-16-le"):
            assert not text_forbids(written.encode(encoding)), (written, encoding)


def test_a_wish_between_other_fields_counts() -> None:
    assert text_forbids(b"Artist\0A. Painter\0\0No AI training\0Canon\0")
    assert text_forbids(b"\xff\xfe\x01noai\0\x02")
    for length in (b"\0\x30", b"\0\x61", b"\1\x41"):  # of IPTC, which may be a digit or a letter
        assert text_forbids(b"\x1c\x02\x50\0\1A\x1c\x02\x74" + length + b"NoAI")
        assert text_forbids(b"\x1c\x02\x74" + length + b"No AI training")
    assert text_forbids(b"caption " * 5_000 + b"may not be used for AI training")


@pytest.mark.parametrize(
    "filling",
    [
        b"not ",
        b"ai ",
        b"ai training ",
        b"not. training ",
        b"a.i.",
        b"no\0ai\0",
        b"'t",
        b"not used for ",
        b"&#x",
        b"<rdf:RDF",
        b"\xff\xd8\xff",
        b"never for in ai ",
        b"uczenia ",
        "\u7981\u6b62ai".encode(),
        "\u0301ai".encode(),
    ],
)
def test_texts_made_to_take_long_are_searched_in_parts(filling: bytes) -> None:
    assert not text_forbids(filling * (1 << 20))


@pytest.mark.parametrize("filling", [b"DataMining", b"tdm:reservation='", b"training-mining data_mining"])
def test_names_of_properties_without_end_are_searched_at_the_first_places(filling: bytes) -> None:
    text = chunk(b"tEXt", b"Comment\0" + filling * (1 << 20))
    assert not opted_out_by_metadata(PNG[:33] + text + PNG[33:])


def test_a_property_that_is_named_before_counts_where_it_forbids() -> None:
    named = b'tdm:reservation="0" ' * 3 + b"DataMining training-mining " * 3
    for wish in (
        b'tdm:reservation="1"',
        b"<plus:DataMining>PROHIBITED<",
        b"training-mining ai_training notAllowed",
    ):
        assert opted_out_by_metadata(PNG[:33] + chunk(b"tEXt", b"XML\0" + named + wish) + PNG[33:])


def test_random_bytes_are_no_wish() -> None:
    random = Random(5)
    assert not any(text_forbids(random.randbytes(20_000)) for _ in range(100))


@pytest.mark.parametrize("filling", [b"<rdf:RDF", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08" * 3 + b"</rdf:RDF>"])
def test_files_made_to_take_long_are_searched_in_parts(filling: bytes) -> None:
    assert not opted_out_by_metadata(b"\0\0\0\x1cftypavif" + filling * (1 << 20))


def image(format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 60), "teal").save(buffer, format_, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(body, zlib.crc32(kind)).to_bytes(4, "big")


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + (len(body) + 2).to_bytes(2, "big") + body


WISH = b"No AI training"
EXIF = Image.Exif()
EXIF[0x8298] = WISH.decode()


def exif_in_order(order: str, before: bytes) -> bytes:
    """Exif with a copyright right behind other bytes, such as those of a fraction."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    start = 8 + 2 + 12 + 4 + len(before)
    entry = struct.pack(f"{order}IHHHIII", 8, 1, 0x8298, 2, len(WISH), start, 0)
    return b"Exif\0\0" + head + entry + before + WISH


THUMBNAIL = image("JPEG")[:-2] + b" noai " + image("JPEG")[-2:]
CUT = b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)
JPEG, PNG = image("JPEG"), image("PNG")
PLACES = {
    "Exif of a JPEG": image("JPEG", exif=EXIF.tobytes()),
    "comment of a JPEG": image("JPEG", comment=WISH),
    "XMP of a JPEG": image("JPEG", xmp=b"<rdf:li>" + WISH + b"</rdf:li>"),
    "IPTC of a JPEG": JPEG[:2] + segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04" + WISH) + JPEG[2:],
    "comment behind the pixels": JPEG[:-2] + segment(0xFE, WISH) + JPEG[-2:],
    "comment of a JPEG that is cut off": image("JPEG", comment=WISH)[:-2],
    "Exif of a PNG": image("PNG", exif=EXIF.tobytes()),
    "text of a PNG": PNG[:33] + chunk(b"tEXt", b"Copyright\0" + WISH) + PNG[33:],
    "international text of a PNG": PNG[:33] + chunk(b"iTXt", b"Copyright\0\0\0\0\0" + WISH) + PNG[33:],
    "compressed text of a PNG": PNG[:33] + chunk(b"zTXt", b"Copyright\0\0" + zlib.compress(WISH)) + PNG[33:],
    "text behind the pixels of a PNG": PNG[:-12] + chunk(b"tEXt", b"Comment\0" + WISH) + PNG[-12:],
    "text at the end of a PNG that is cut off": PNG[:-12] + chunk(b"tEXt", b"Comment\0" + WISH)[:-3],
    "one of many texts of a PNG": PNG[:33]
    + chunk(b"tEXt", b"Comment\0x") * 2_000
    + chunk(b"tEXt", b"Comment\0" + WISH)
    + PNG[33:],
    "profile of a PNG in digits": PNG[:33]
    + chunk(b"tEXt", b"Raw profile type exif\0\nexif\n      14\n" + WISH.hex().encode())
    + PNG[33:],
    "Exif at the end of a WebP that is cut off": image("WEBP", exif=EXIF.tobytes())[:-1],
    "segment of Ducky": JPEG[:2] + segment(0xEC, b"Ducky\0\2" + WISH) + JPEG[2:],
    "comment behind bytes that are no segment": JPEG[:2] + b"junk" + segment(0xFE, WISH) + JPEG[2:],
    "Exif of a WebP": image("WEBP", exif=EXIF.tobytes()),
    "Exif behind a letter": JPEG[:2] + segment(0xE1, exif_in_order("<", b"x")) + JPEG[2:],
    "Exif of another order behind a letter": JPEG[:2] + segment(0xE1, exif_in_order(">", b"d")) + JPEG[2:],
    "Exif behind a thumbnail": JPEG[:2] + segment(0xE1, exif_in_order(">", THUMBNAIL)) + JPEG[2:],
    "Exif of an AVIF": image("AVIF", exif=EXIF.tobytes()),
    "XMP of an AVIF": image("AVIF", xmp=b"<rdf:RDF><rdf:li>" + WISH + b"</rdf:li></rdf:RDF>"),
    "XMP in two segments": JPEG[:2]
    + segment(0xE1, CUT + WISH[:7])
    + segment(0xE1, CUT + WISH[7:])
    + JPEG[2:],
    "IPTC in two segments": JPEG[:2]
    + segment(0xED, b"Photoshop 3.0\x008BIM\x1c\x02\x74\0\x0e" + WISH[:7])
    + segment(0xED, b"Photoshop 3.0\0" + WISH[7:])
    + JPEG[2:],
    "XMP of a WebP": image("WEBP", xmp=b"<rdf:li>" + WISH + b"</rdf:li>"),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_text_of_an_image_is_read(place: str) -> None:
    assert opted_out_by_metadata(PLACES[place])


PIXELS = {
    "PNG": PNG[:33] + chunk(b"IDAT", WISH) + PNG[33:],
    "thumbnail in Exif": JPEG[:2] + segment(0xE1, b"Exif\0\0II*\0" + THUMBNAIL) + JPEG[2:],
    "thumbnail of Photoshop": JPEG[:2] + segment(0xED, b"Photoshop 3.0\x008BIM" + THUMBNAIL) + JPEG[2:],
    "two thumbnails": JPEG[:2] + segment(0xE1, b"Exif\0\0" + THUMBNAIL + THUMBNAIL) + JPEG[2:],
    "compressed text": PNG[:33] + chunk(b"iTXt", b"Comment\0\1\0\0\0 noai ") + PNG[33:],
    "AVIF": image("AVIF")[:-3] + b" noai ",
    **{name: image(name) for name in ("JPEG", "PNG", "WEBP", "AVIF")},
    "nothing": b"",
    "head of a JPEG": b"\xff\xd8",
    "head of a WebP": b"RIFF",
    "head of an AVIF": b"\0\0\0\x1cftypavif" + b"II*\0\x08\0\0\0MM\0*\0\0\0\x08",
}


@pytest.mark.parametrize("place", PIXELS)
def test_pixels_are_not_read(place: str) -> None:
    assert not opted_out_by_metadata(PIXELS[place])
