"""Reads captions back: a recogniser of the captions' language, written apart from the grammar that makes them.

`read(caption)` explains every word or raises `UnreadError`. The result lists who is in the picture and what is said of
them; `caption_judge` checks that against masks, depth and scene.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CATEGORIES = (
    *("mug", "bottle", "book", "lamp", "chair", "table", "sofa", "bed"),
    *("car", "plane", "boat", "house", "tree", "dog", "bird", "robot"),
)
SCENERY = ("window", "door", "picture", "rug", "crate", "pillar", "bush", "rock", "fence", "hill")
ALIASES = {"cup": "mug", "couch": "sofa", "airplane": "plane", "automobile": "car"}
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "white", "grey", "black")
_NOUNS = (*CATEGORIES, *SCENERY, *ALIASES)
SINGULAR = {w + s: w for w in _NOUNS for s in ("s", "es", "")}
PATTERNS = {
    "striped": "striped",
    "checked": "checked",
    "checkered": "checked",
    "dotted": "dotted",
    "spotted": "dotted",
    "marbled": "marbled",
    "shaded": "shaded",
}
MARKS = {"stripes": "striped", "checks": "checked", "squares": "checked", "dots": "dotted", "spots": "dotted"}
FINISHES = {"glossy": "glossy", "shiny": "glossy", "matte": "matte", "dull": "matte"}
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
PLACES = {
    "in a": "kitchen,bedroom,living room,hallway,classroom,garage,meadow,park,yard,desert,snow field",
    "in an": "office,attic",
    "on a": "beach,street",
    "by a": "country road,winter road",
}
PHRASES = {f"{prep} {place}": place for prep, names in PLACES.items() for place in names.split(",")}
RELATIONS = {
    "to the left of": "left",
    "left of": "left",
    "on the left of": "left",
    "to the right of": "right",
    "right of": "right",
    "on the right of": "right",
    "in front of": "front",
    "behind": "behind",
    "on top of": "on",
    "on": "on",
    "next to": "next",
    "beside": "next",
    "closer to the camera than": "nearer",
    "nearer than": "nearer",
    "farther from the camera than": "farther",
    "farther away than": "farther",
    "larger than": "larger",
    "bigger than": "larger",
    "smaller than": "smaller",
}
POSITIONS = {
    "on the left side": "left",
    "on the left": "left",
    "at the left": "left",
    "on the right side": "right",
    "on the right": "right",
    "at the right": "right",
    "in the middle": "middle",
    "in the center": "middle",
    "in the foreground": "foreground",
    "in the background": "background",
}
FACING = {
    "facing to the left": "left",
    "facing left": "left",
    "facing to the right": "right",
    "facing right": "right",
    "facing away from the camera": "away",
    "facing the camera": "towards",
    "seen from the front": "towards",
    "seen from behind": "away",
}
OPENERS = (
    *(f"a {w} of" for w in ("photo", "picture", "photograph", "snapshot", "view")),
    *(f"{w} of" for w in ("photo", "picture", "photograph", "snapshot", "view", "image")),
    "an image of",
    "we see",
    "you can see",
    "this photo shows",
    "the picture shows",
    "the image shows",
    *("there is", "there are", "this is"),
)
VERBS = ("is parked", "are parked", "is", "are", "stands", "stand", "standing", "parked")


class UnreadError(ValueError):
    """A caption with words that the recogniser cannot explain."""


@dataclass
class Figure:
    """Somebody in the picture: one instance of a class, or all of them."""

    name: str
    """Semantic class."""
    number: int = 0
    """0: one of them; n: all n of them."""
    claims: list[tuple[str, object]] = field(default_factory=list)
    """What is said of it: kind and value."""


@dataclass
class Reading:
    """What a caption says."""

    figures: list[Figure] = field(default_factory=list)
    """Who is in the picture."""
    relations: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, first and second figure."""
    scene: list[tuple[str, object]] = field(default_factory=list)
    """What is said of the whole: kind and value."""


class _Reader:
    def __init__(self, caption: str, traits: tuple[str, ...]) -> None:
        text = caption[:-1] if caption.endswith(".") else caption
        self.words = re.sub(r"[,;] ", " ", text.lower()).replace("gray", "grey").split(" ")
        self.at, self.out, self.traits = 0, Reading(), sorted(traits, key=len, reverse=True)

    def next(self, *options: str) -> str | None:
        """Consume the longest option that stands here."""
        for option in sorted(options, key=len, reverse=True):
            n = len(option.split())
            if " ".join(self.words[self.at : self.at + n]) == option:
                self.at += n
                return option
        return None

    def fail(self) -> UnreadError:
        return UnreadError(f"unexplained: {' '.join(self.words[self.at :])!r} in {' '.join(self.words)!r}")

    def caption(self) -> Reading:
        if place := self.next(*PHRASES):
            self.out.scene.append(("setting", PHRASES[place]))
        elif self.next("a close-up of", "close-up of"):
            self.out.scene.append(("close-up", 0))
        elif not self.place_first():
            self.next(*OPENERS) and self.place_first()
        self.next("there is", "there are", "we see", "you can see")
        if self.at < len(self.words) and not (self.out.scene and self.out.scene[0][0] == "setting" and self.tail()):
            self.figure(bare=self.at == 0)
        while self.at < len(self.words):
            self.attachment()
        return self.out

    def place_first(self) -> bool:
        """`a kitchen with ...`, or the place alone."""
        bare = {phrase.split(" ", 1)[1]: place for phrase, place in PHRASES.items()}
        bare |= {place: place for place in PHRASES.values()} if self.at == 0 else {}
        place = self.next(*bare)
        if place:
            self.out.scene.append(("setting", bare[place]))
            if self.at < len(self.words) and not self.next("with"):
                raise self.fail()
        return place is not None

    def attachment(self) -> None:
        """Anything that may follow a figure: tails, clauses, relations, the next figure."""
        if self.tail() or self.next("is shown", "are shown", "is seen", "are seen"):
            return
        self.next("and", "while")
        if self.next("with"):
            self.around()
        elif self.next("the"):
            self.clause()
        elif not self.relation():
            self.figure()

    def relation(self) -> bool:
        """`is behind a chair`, of the last figure."""
        start = self.at
        self.next(*VERBS)
        relation = self.next(*RELATIONS)
        if relation is None:
            self.at = start
            return False
        subject = len(self.out.figures) - 1
        self.out.relations.append((RELATIONS[relation], subject, self.figure()))
        return True

    def tail(self) -> bool:
        """Setting, view or background."""
        if place := self.next(*PHRASES):
            self.out.scene.append(("setting", PHRASES[place]))
        elif word := self.next("indoors", "outdoors"):
            self.out.scene.append(("outdoor", word == "outdoors"))
        elif self.next("seen from above"):
            self.out.scene.append(("from above", True))
        else:
            return self.background()
        return True

    def background(self) -> bool:
        """`with a window and a door in the background`."""
        start, names = self.at, []
        if self.next("with"):
            while self.next("a", "an") and (word := self.next(*SCENERY)):
                names.append(word)
                self.next("and")
            if names and self.next("in the background"):
                first = len(self.out.figures)
                self.out.scene.append(("behind all", tuple(range(first, first + len(names)))))
                self.out.figures += [Figure(n) for n in names]
                return True
        self.at = start
        return False

    def around(self) -> None:
        """`with a mug on it and a lamp behind it`; `it` is the figure before `with`."""
        centre = len(self.out.figures) - 1
        while True:
            other = self.figure()
            relation = self.next(*RELATIONS)
            if relation is None or not self.next("it"):
                raise self.fail()
            self.out.relations.append((RELATIONS[relation], other, centre))
            if not self.next("and"):
                return

    def clause(self) -> None:
        """`the mug is red`, `the red mug is behind a chair`."""
        colour, word = self.next(*COLOURS), self.next(*SINGULAR)
        name = ALIASES.get(SINGULAR[word], SINGULAR[word]) if word else ""
        fits = [
            i
            for i, f in enumerate(self.out.figures)
            if f.name == name and (colour is None or ("wears", colour) in f.claims)
        ]
        if len(fits) != 1 or not self.next(*VERBS):
            raise self.fail()
        if painted := self.next(*COLOURS):
            self.out.figures[fits[0]].claims.append(("colour", painted))
            return
        relation = self.next(*RELATIONS)
        if relation is None:
            raise self.fail()
        self.out.relations.append((RELATIONS[relation], fits[0], self.figure()))

    def figure(self, *, bare: bool = False) -> int:
        """A noun phrase; returns its number."""
        figure = Figure("")
        if self.next("a pair of") or (bare and self.next("pair of")):
            figure.number = 2
        elif number := self.next(*NUMBERS):
            figure.number = NUMBERS[number]
        elif not self.next("a", "an") and not bare:
            raise self.fail()
        self.adjectives(figure)
        word = self.next(*SINGULAR)
        if word is None or (SINGULAR[word] == word) == bool(figure.number):
            raise self.fail()
        figure.name = ALIASES.get(SINGULAR[word], SINGULAR[word])
        self.out.figures.append(figure)
        index = len(self.out.figures) - 1
        self.after(figure)
        return index

    def adjectives(self, figure: Figure) -> None:
        colours = []
        while True:
            if word := self.next(*COLOURS):
                colours.append(word)
                if self.words[self.at] == "and":
                    self.at += 1
                    second = self.next(*COLOURS)
                    if second is None:
                        raise self.fail()
                    colours.append(second)
            elif word := self.next(*PATTERNS):
                figure.claims.append(("pattern", PATTERNS[word]))
            elif word := self.next(*FINISHES):
                figure.claims.append(("finish", FINISHES[word]))
            elif word := self.next("large", "small"):
                figure.claims.append(("size", word))
            else:
                break
        if len(colours) == 1:
            figure.claims.append(("colour", colours[0]))
        elif colours:
            figure.claims.append(("colours", frozenset(colours)))
        figure.claims += [("wears", c) for c in colours]

    def after(self, figure: Figure) -> None:
        """What follows the noun."""
        while True:
            start = self.at
            if figure.number and self.next("one"):
                first = self.next(*COLOURS)
                second = self.next(*COLOURS) if self.next("and") and self.next("one") else None
                figure.claims.append(("each", (first, second)))
            elif self.next("fading from"):
                first = self.next(*COLOURS)
                second = self.next(*COLOURS) if self.next("to") else None
                figure.claims += [("pattern", "shaded"), ("colours", frozenset((first, second)))]
            elif way := self.next(*FACING):
                figure.claims.append(("facing", FACING[way]))
            elif self.next("with") and self.equipment(figure):
                pass
            else:
                self.at = start
                if any(" ".join(self.words[self.at :]).startswith(r) for r in ("on the left of", "on the right of")):
                    return
                place = self.next(*POSITIONS)
                if place is None:
                    return
                figure.claims.append(("position", POSITIONS[place]))

    def equipment(self, figure: Figure) -> bool:
        """`white stripes and a handle` after `with`."""
        if colour := self.next(*COLOURS):
            mark = self.next(*MARKS)
            if mark is None:
                raise self.fail()
            figure.claims += [("pattern", MARKS[mark]), ("second", colour)]
            start = self.at
            if not self.next("and") or not self.trait(figure):
                self.at = start
            return True
        return self.trait(figure)

    def trait(self, figure: Figure) -> bool:
        word = self.next(*self.traits)
        if word:
            figure.claims.append(("trait", word))
        return word is not None


def read(caption: str, traits: tuple[str, ...] = ()) -> Reading:
    """What a caption says.

    Args:
        caption: as written.
        traits: every trait of the world, `a handle`.

    Raises:
        UnreadError: a word that the recogniser cannot explain.
    """
    return _Reader(caption, traits).caption()
