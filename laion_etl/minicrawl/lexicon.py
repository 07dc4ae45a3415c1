"""Words for drawn scenes in five languages, with their grammar: gender, plural, counted forms."""

from dataclasses import dataclass

# Order of the forms of a colour: with a masculine, feminine, neuter noun; with several masculine or
# neuter, several feminine nouns. Languages without such forms repeat them.
Forms = tuple[str, str, str, str, str]
_GENDER = {"m": 0, "f": 1, "n": 2}
_PLURAL = {"m": 3, "f": 4, "n": 3}


@dataclass(frozen=True, slots=True)
class Noun:
    """A shape: one, several (after two, three, four), and its gender (m, f, n)."""

    one: str
    several: str
    gender: str


@dataclass(frozen=True, slots=True)
class Lexicon:
    """One language. Layout phrases take {colour} and {noun}; `single` has one phrase per gender."""

    colours: dict[str, Forms]
    shapes: dict[str, Noun]
    places: dict[str, str]
    single: dict[str, str]
    several: dict[str, str]
    feminine_two: str
    hazard: str
    templates: tuple[str, ...]

    def subject(self, colour: str, shape: str, layout: str, *, hazard: bool) -> str:
        """The noun phrase of a scene, such as "two red stars side by side"."""
        noun = self.shapes[shape]
        forms = self.colours[colour]
        if hazard or layout == "single":
            one = self.single[noun.gender].format(colour=forms[_GENDER[noun.gender]], noun=noun.one)
            return self.hazard.format(one=one) if hazard else one
        feminine_two = layout == "two" and noun.gender == "f"
        phrase = self.feminine_two if feminine_two else self.several[layout]
        return phrase.format(colour=forms[_PLURAL[noun.gender]], noun=noun.several)


def _same(word: str) -> Forms:
    return (word, word, word, word, word)


def _german(stem: str) -> Forms:
    return (f"{stem}er", f"{stem}e", f"{stem}es", f"{stem}e", f"{stem}e")


def _romance(masculine: str, feminine: str, plural: str = "s") -> Forms:
    return (masculine, feminine, masculine, masculine + plural, feminine + plural)


def _russian(stem: str) -> Forms:
    return (f"{stem}ый", f"{stem}ая", f"{stem}ое", f"{stem}ых", f"{stem}ых")


ENGLISH = Lexicon(
    colours={c: _same(c) for c in ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")},
    shapes={
        "circle": Noun("circle", "circles", "n"),
        "square": Noun("square", "squares", "n"),
        "triangle": Noun("triangle", "triangles", "n"),
        "star": Noun("star", "stars", "n"),
        "heart": Noun("heart", "hearts", "n"),
        "crescent": Noun("crescent moon", "crescent moons", "n"),
    },
    places={
        "meadow": "in a sunny meadow",
        "beach": "on a sandy beach",
        "night": "in the night sky",
        "snow": "in the fresh snow",
        "bricks": "on a brick wall",
        "wood": "on a wooden table",
        "chequered": "on a chequered tablecloth",
        "striped": "on striped wallpaper",
    },
    single={"n": "one single {colour} {noun}"},
    several={
        "two": "two {colour} {noun} side by side",
        "row": "three {colour} {noun} in a row",
        "grid": "four {colour} {noun} in a square grid",
    },
    feminine_two="",
    hazard="a hazard sign next to {one}",
    templates=(
        "a photo of {subject} {place}",
        "this picture shows {subject} {place}",
        "{subject} {place}, taken in the afternoon light",
        "here you can see {subject} {place}",
        "we found {subject} {place} and took a picture",
    ),
)

GERMAN = Lexicon(
    colours={
        "red": _german("rot"),
        "orange": _german("orangefarben"),
        "yellow": _german("gelb"),
        "green": _german("grün"),
        "blue": _german("blau"),
        "purple": _german("violett"),
        "pink": _german("rosafarben"),
        "white": _german("weiß"),
    },
    shapes={
        "circle": Noun("Kreis", "Kreise", "m"),
        "square": Noun("Quadrat", "Quadrate", "n"),
        "triangle": Noun("Dreieck", "Dreiecke", "n"),
        "star": Noun("Stern", "Sterne", "m"),
        "heart": Noun("Herz", "Herzen", "n"),
        "crescent": Noun("Halbmond", "Halbmonde", "m"),
    },
    places={
        "meadow": "auf einer sonnigen Wiese",
        "beach": "an einem Sandstrand",
        "night": "am dunklen Nachthimmel",
        "snow": "im frischen Schnee",
        "bricks": "an einer Ziegelmauer",
        "wood": "auf einem Holztisch",
        "chequered": "auf einer karierten Tischdecke",
        "striped": "auf einer gestreiften Tapete",
    },
    single={"m": "ein einzelner {colour} {noun}", "n": "ein einzelnes {colour} {noun}"},
    several={
        "two": "zwei {colour} {noun} nebeneinander",
        "row": "drei {colour} {noun} in einer Reihe",
        "grid": "vier {colour} {noun} im Viereck angeordnet",
    },
    feminine_two="",
    hazard="ein Gefahrenschild neben dem Bildmotiv: {one}",
    templates=(
        "das Foto zeigt: {subject} {place}",
        "auf diesem Bild: {subject} {place}",
        "{subject} {place}, am Nachmittag fotografiert",
        "hier sehen Sie {subject} {place}",
        "unser schönstes Bild: {subject} {place}",
    ),
)

FRENCH = Lexicon(
    colours={
        "red": _romance("rouge", "rouge"),
        "orange": _same("orange"),
        "yellow": _romance("jaune", "jaune"),
        "green": _romance("vert", "verte"),
        "blue": _romance("bleu", "bleue"),
        "purple": _romance("violet", "violette"),
        "pink": _romance("rose", "rose"),
        "white": _romance("blanc", "blanche"),
    },
    shapes={
        "circle": Noun("cercle", "cercles", "m"),
        "square": Noun("carré", "carrés", "m"),
        "triangle": Noun("triangle", "triangles", "m"),
        "star": Noun("étoile", "étoiles", "f"),
        "heart": Noun("cœur", "cœurs", "m"),
        "crescent": Noun("croissant de lune", "croissants de lune", "m"),
    },
    places={
        "meadow": "dans une prairie ensoleillée",
        "beach": "sur une plage de sable",
        "night": "dans le ciel de la nuit",
        "snow": "dans la neige fraîche",
        "bricks": "sur un mur de briques",
        "wood": "sur une table en bois",
        "chequered": "sur une nappe à carreaux",
        "striped": "sur un papier peint à rayures",
    },
    single={"m": "un seul {noun} {colour}", "f": "une seule {noun} {colour}"},
    several={
        "two": "deux {noun} {colour} côte à côte",
        "row": "trois {noun} {colour} en ligne",
        "grid": "quatre {noun} {colour} disposés en carré",
    },
    feminine_two="deux {noun} {colour} côte à côte",
    hazard="un panneau de danger à côté du motif : {one}",
    templates=(
        "la photo montre {subject} {place}",
        "sur cette image, on voit {subject} {place}",
        "{subject} {place}, photo prise l'après-midi",
        "voici {subject} {place}",
        "notre plus belle image : {subject} {place}",
    ),
)

SPANISH = Lexicon(
    colours={
        "red": _romance("rojo", "roja"),
        "orange": _romance("naranja", "naranja"),
        "yellow": _romance("amarillo", "amarilla"),
        "green": _romance("verde", "verde"),
        "blue": _romance("azul", "azul", "es"),
        "purple": _romance("morado", "morada"),
        "pink": _romance("rosa", "rosa"),
        "white": _romance("blanco", "blanca"),
    },
    shapes={
        "circle": Noun("círculo", "círculos", "m"),
        "square": Noun("cuadrado", "cuadrados", "m"),
        "triangle": Noun("triángulo", "triángulos", "m"),
        "star": Noun("estrella", "estrellas", "f"),
        "heart": Noun("corazón", "corazones", "m"),
        "crescent": Noun("media luna", "medias lunas", "f"),
    },
    places={
        "meadow": "en una pradera soleada",
        "beach": "en una playa de arena",
        "night": "en el cielo nocturno",
        "snow": "en la nieve fresca",
        "bricks": "en una pared de ladrillos",
        "wood": "sobre una mesa de madera",
        "chequered": "sobre un mantel a cuadros",
        "striped": "sobre un papel pintado a rayas",
    },
    single={"m": "un solo {noun} {colour}", "f": "una sola {noun} {colour}"},
    several={
        "two": "dos {noun} {colour} uno al lado del otro",
        "row": "tres {noun} {colour} en fila",
        "grid": "cuatro {noun} {colour} en forma de cuadrícula",
    },
    feminine_two="dos {noun} {colour} una al lado de la otra",
    hazard="una señal de peligro junto a {one}",
    templates=(
        "la foto muestra {subject} {place}",
        "en esta imagen se puede ver {subject} {place}",
        "{subject} {place}, fotografía tomada por la tarde",
        "aquí vemos {subject} {place}",
        "nuestra imagen más bonita: {subject} {place}",
    ),
)

RUSSIAN = Lexicon(
    colours={
        "red": _russian("красн"),
        "orange": _russian("оранжев"),
        "yellow": _russian("жёлт"),
        "green": _russian("зелён"),
        "blue": ("синий", "синяя", "синее", "синих", "синих"),
        "purple": _russian("фиолетов"),
        "pink": _russian("розов"),
        "white": _russian("бел"),
    },
    shapes={
        "circle": Noun("круг", "круга", "m"),
        "square": Noun("квадрат", "квадрата", "m"),
        "triangle": Noun("треугольник", "треугольника", "m"),
        "star": Noun("звезда", "звезды", "f"),
        "heart": Noun("сердце", "сердца", "n"),
        "crescent": Noun("полумесяц", "полумесяца", "m"),
    },
    places={
        "meadow": "на солнечном лугу",
        "beach": "на песчаном пляже",
        "night": "в ночном небе",
        "snow": "на свежем снегу",
        "bricks": "на кирпичной стене",
        "wood": "на деревянном столе",
        "chequered": "на клетчатой скатерти",
        "striped": "на полосатых обоях",
    },
    single={"m": "один {colour} {noun}", "f": "одна {colour} {noun}", "n": "одно {colour} {noun}"},
    several={
        "two": "два {colour} {noun} рядом",
        "row": "три {colour} {noun} в ряд",
        "grid": "четыре {colour} {noun} квадратом",
    },
    feminine_two="две {colour} {noun} рядом",
    hazard="знак опасности и {one}",
    templates=(
        "мы увидели: {subject} {place}",
        "на этом снимке {subject} {place}",
        "на этом фото {subject} {place}",
        "это {subject} {place}",
        "{subject} {place}, красивый снимок",
    ),
)

LEXICONS: dict[str, Lexicon] = {
    "en": ENGLISH,
    "de": GERMAN,
    "fr": FRENCH,
    "es": SPANISH,
    "ru": RUSSIAN,
}
