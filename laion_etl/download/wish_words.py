"""The words with which owners forbid that models are trained with their images, by language.

English, German, French, Spanish, Italian, Portuguese, Dutch and Polish are read word by word
(worded_wishes.py); their words stand in one list each, because a clause in two languages is more common than
a word that forbids in one language and not in the other. Japanese, Chinese and Korean have no blanks between
words, so whole phrases are searched. Everything here is written as `plain` and `without_accents` return
a text.
"""

import html
import re
import unicodedata

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'", "\u00b4": "'"})
_HYPHENS = re.compile("[\u2010-\u2015\u2212]")
_ESCAPED = re.compile(r"&[#a-zA-Z0-9]{1,12};")
_LETTERS_WITHOUT_PARTS = str.maketrans({"\u0142": "l", "\u00f8": "o", "\u0131": "i"})


def plain(text: str) -> str:
    """Return a text in small letters without invisible characters, other hyphens and escapes of HTML."""
    for _ in range(2):  # XMP has one layer of escapes or two
        if "&" not in text:
            break
        text = _ESCAPED.sub(lambda found: html.unescape(found[0].lower()), text)
    if not text.isascii():
        seen = (one for one in unicodedata.normalize("NFKC", text) if unicodedata.category(one) != "Cf")
        text = _HYPHENS.sub("-", "".join(seen).casefold())
    return text.lower().translate(_APOSTROPHES)


def without_accents(text: str) -> str:
    """Return a plain text without accents, with the syllables of Korean as letters."""
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFKD", text.translate(_LETTERS_WITHOUT_PARTS))
    return "".join(one for one in parts if unicodedata.category(one) != "Mn")


def _words(stems: str) -> re.Pattern[str]:
    """Return a pattern of words, where `*` stands for any ending."""
    return re.compile("|".join(stem.replace("*", r"\w{0,14}") for stem in stems.split()))


# Terms of several words, each replaced by one word of MODELS. The second kind is training by itself.
_MODEL_TERMS = re.compile(
    r"\b(?:artificial[\s_-]+intelligence|kunstliche[nr]?[\s_-]+intelligenz|intelligences?[\s_-]+artificielles?"
    r"|intelligen[cz]i?a[\s_-]+artificia(?:l|le)|inteligencia[\s_-]+artificial|kunstmatige[\s_-]+intelligentie"
    r"|sztuczn(?:a|ej|a)[\s_-]+inteligencj(?:a|i|e)|neural[\s_-]+net(?:work)?s?|neuronale[\s_-]+netze?"
    r"|language[\s_-]+models?|sprachmodellen?|diffusion[\s_-]+models?|generative[\s_-]+models?"
    r"|foundation[\s_-]+models?)\b"
)
_LEARNING_TERMS = re.compile(
    r"\b(?:(?:machine|deep)[\s_-]+learning|maschinelle[mns]?[\s_-]+lernens?"
    r"|apprentissage[\s_-]+(?:automatique|machine|profond)|aprendizaje[\s_-]+(?:automatico|profundo)"
    r"|apprendimento[\s_-]+(?:automatico|profondo)|aprendizad?[og]e?m?[\s_-]+(?:de[\s_-]+maquina|automatic[oa])"
    r"|machinaal[\s_-]+leren|uczeni[ae][\s_-]+maszynowego|uczenie[\s_-]+maszynowe)\b"
)
_MINING_TERMS = re.compile(
    r"\b(?:(?:text|data|image)[\s_-]*(?:(?:and|und|&|en|u)[\s_-]*(?:data[\s_-]*)?)?minings?|datamining"
    r"|fouille[\s_-]+(?:de[\s_-]+)?(?:textes?|donnees)|mineria[\s_-]+de[\s_-]+(?:textos?|datos)"
    r"|mineracao[\s_-]+de[\s_-]+(?:textos?|dados)|estrazione[\s_-]+di[\s_-]+(?:testo|testi|dati)"
    r"|eksploracj[aie][\s_-]+(?:tekstow|danych))\b"
)

MODELS = _words(
    "ai ki ia ml llms? genai mltraining chatgpt gpt midjourney tdm aimodels? generative generativ*"
)
BY_ITSELF = frozenset({"tdm", "mltraining"})  # they are a use of images, not only what uses them
USES = _words(
    "used? uses using usage fed feed upload uploaded input inputs processed process"
    " nutzung nutzen genutzt verwend* verwert* eingespeist"
    " utilis* employ* uso usos usar* usad[oa]s? utiliz* impieg* gebruik* wykorzyst* uzyci* uzywa*"
)
ACTIVE_USES = _words("use nutzen verwenden utiliser usare? utilizz?are? gebruiken")
INTO = _words(
    "for in with by into to fur zum zur durch pour par dans para por en em nas? nos? pela per da dall dalla"
    " voor door aan do dla przez w"
)
TRAINS = _words(
    "train(?:s|ed|ing|ings|ers?)? mined? mining scrap(?:e|ed|er|ers|ing) crawl(?:ed|er|ers|ing)? datasets?"
    " train(?:iert|ieren|ingsdaten|ingszwecken?) datensatz* anlernen angelernt train(?:en|ingen)? getraind?"
    " entrain(?:er|e|ee|es|ees|ement|ements) entren(?:ar|ado|ada|amiento)"
    " addestr(?:are|ato|ata|amento|amenti) trein(?:ar|ado|ada|amento|o)"
    " treno(?:wac|wania|wanie|wany) szkoleni(?:a|e|u)"
)
MADE_WITHOUT = _words("without ohne sans sin senza sem zonder bez")  # a text that says only "without AI"
FORBIDS = _words(
    "no not never nor don't cannot can't mustn't won't without prohibit* forbid* disallow* deny denied"
    " reserved? reserves refused? excluded? excluding banned? unauthori[sz]ed optout"
    " kein(?:e|en|er|em|es|erlei)? nicht nie niemals ohne verbot(?:en|enen)? untersagt* vorbehalt*"
    " widersproch* widerspreche ausgeschlossen verweigert"
    " pas aucune? jamais sans interdi(?:t|te|ts|tes|ction|re) refus* reservee?s? oppose exclue?s? non"
    " ningun* nunca sin prohib* reservad[oa]s? excluid[oa]s?"
    " nessun* mai senza vietat[oaie] vieto proibi* riservat[oaie] esclus[oaie]"
    " nao nenhum* sem proibid[oa]s? vedad[oa]s?"
    " geen niet nooit zonder verbod(?:en)? voorbehouden uitgesloten"
    " nie bez zakaz* zabroni* zastrzez* zadn*"
)
# A text of these words only, such as "No AI, please", is a wish, although it names no use.
FILLERS = _words(
    "please bitte svp thanks thank you danke merci to for the a any all of d de l la le les zu fur pour para"
    " per voor dla allowed permitted erlaubt gestattet gen generative art images? is are be this"
)
MOST_WORDS_OF_SHORT = 7

_SHORTENED = re.compile(r"\b([akim])\.\s?([ial])\.?(?![a-z])")  # A.I., K.I., I.A., M.L.
_ABBREVIATED = re.compile(
    r"\b(?:e\.\s?g\.|i\.\s?e\.|z\.\s?b\.|p\.\s?ex\.|p\.\s?ej\.|(?:incl|etc|resp|art|bzw|ecc)\.)"
)
# "I have" in French; "to the" in Italian, where a plural follows; a unit of volume.
_OTHER_WORDS = re.compile(r"\b[nj]'ai\b|\bai(?= [a-z]{2,}i\b)|\bagli ai\b|\d\s?ml\b")
_DATA_SET = re.compile(r"\bdata[\s_-]+sets?\b")
_OPT_OUT = re.compile(r"\b(?:opt(?:s|ed|ing)?[\s_-]*out|keep[\s_-]+out|hands[\s_-]+off|stay[\s_-]+away)\b")


def in_sentences(text: str) -> str:
    """Return a plain text in which dots are the ends of sentences, and "opt out" is one word."""
    return _SHORTENED.sub(r"\1\2", _ABBREVIATED.sub(" ", _OPT_OUT.sub("optout", text)))


def in_single_words(clause: str) -> str:
    """Return a plain clause with one word for each term that is known."""
    text = _OTHER_WORDS.sub(" ", clause)
    text = _MODEL_TERMS.sub("ai", text)
    text = _DATA_SET.sub("dataset", text)
    return _MINING_TERMS.sub("tdm", _LEARNING_TERMS.sub("mltraining", text))


# Four letters stand by chance in what is not text. So a token has to stand between signs that texts have, or
# behind the length of a text.
_SIGNS = r" -/:-@\[-`{-~\t\r\n\xa9\xab\xae\xb7\xbb\u2000-\u206f\u3000-\u303f"
TOKEN = re.compile(
    rf"(?<![^\0-\x1f{_SIGNS}])(?:(?:say)?no[-_]?(?:to[-_]?)?(?:gen|image)?[-_]?ai"
    rf"(?:[-_]?(?:images?|art|train(?:ing)?))?(?:20\d\d)?|notrainai|donottrain(?:ai)?|notdm)(?![^\0{_SIGNS}])"
)

_GAP = r"[^。!?.\n|<>\"]{0,24}"
_JA_MODEL = "(?:ai|人工知能|機械学習|深層学習)"
_JA_USE = "(?:学習|利用|使用|訓練|データ)"
_JA_NO = "(?:禁止|禁じ|お断り|不可|しないで|ご遠慮|拒否)"
_ZH_MODEL = "(?:ai|人工智[能慧]|机器学习|機器學習|大模型|数据挖掘)"
_ZH_USE = "(?:训练|訓練|学习|學習|使用|用于|用於|挖掘)"
_ZH_NO = "(?:禁止|严禁|嚴禁|不得|请勿|請勿|不允许|不允許|拒绝|拒絕|不可)"
_KO_MODEL = r"(?:ai|인공지능|기계\s?학습|머신\s?러닝)"
_KO_USE = "(?:학습|사용|이용|훈련)"
_KO_NO = r"(?:금지|불가|거부|하지\s?마|안\s?됩니다)"


def _phrase(*parts: str) -> str:
    return _GAP.join(map(without_accents, parts))


PHRASES = re.compile(
    "|".join(
        (
            _phrase(_JA_MODEL, _JA_USE, _JA_NO),
            _phrase("(?:無断|ai|機械)学習", _JA_NO),
            _phrase(_ZH_NO, _ZH_MODEL, _ZH_USE),
            _phrase(_ZH_NO, _ZH_USE, _ZH_MODEL),
            _phrase(_ZH_MODEL, _ZH_USE, _ZH_NO),
            _phrase(_KO_MODEL, _KO_USE, _KO_NO),
        )
    )
)
PHRASE_WORDS = tuple(
    word.encode()
    for word in (
        "学習",
        "学习",
        "學習",
        "训练",
        "訓練",
        "학습",
        "훈련",
        "挖掘",
        "\uff21\uff29",
        "\uff41\uff49",
    )
)
