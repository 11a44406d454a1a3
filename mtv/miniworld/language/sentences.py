"""Sentences about a frame: which construction says what. Text without capitals or full stop.

Six plans share the work: a list, one thing closely, a relation (with a further clause when long), one thing with others
around it, places in the picture, foreground and background. A plan returns None where the frame has nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtv.draws import Draws
from mtv.miniworld.language.facts import Facts, Thing
from mtv.miniworld.language.grammar import BESIDE, COMPARISONS, RELATIONS, Mention
from mtv.miniworld.language.telling import Teller, Tier, some_scenery
from mtv.miniworld.language.words import STANDING, listing, place_of

_Plan = Callable[[Teller], "str | None"]
_NOUN_OPENERS = ("a photo of", "a picture of", "an image of", "a photograph of", "a snapshot of", "a view of")
_VERB_OPENERS = ("we see", "you can see", "the picture shows", "the image shows", "this photo shows")
_POSITIONS = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "middle": ("in the middle", "in the center"),
}
_FOREGROUND_RATIO = 1.5
_LANDMARK_SHARE = 0.2


def sentence(draws: Draws, facts: Facts, tier: Tier, used: dict[int, int]) -> str:
    """One true sentence or noun phrase about a frame.

    Args:
        draws: the stream.
        facts: of the frame.
        tier: how long it shall be.
        used: how often earlier captions mentioned an object; these are chosen less often. Added to.
    """
    if not facts.things:
        return _surroundings(draws, facts)
    plans: dict[_Plan, float] = {
        _list: 3,
        _closely: {"short": 3, "medium": 2, "long": 0.5}[tier],
        _relation: {"short": 1.5, "medium": 5, "long": 7}[tier],
        _around: {"short": 0.5, "medium": 2, "long": 2}[tier],
        _places: {"short": 0.2, "medium": 1.5, "long": 2}[tier],
        _grounds: {"short": 0.1, "medium": 0.7, "long": 0.7}[tier],
    }
    while True:
        plan = draws.choice(list(plans), list(plans.values()))
        text = plan(Teller(draws, facts, tier, used))
        if text is not None:
            return text
        del plans[plan]


def _surroundings(draws: Draws, facts: Facts) -> str:
    """A frame without nameable objects: the place and what stands there."""
    place, there = place_of(facts.phrase), draws.chance(0.15)
    opener = "there is" if there else draws.choice((*_NOUN_OPENERS, *_VERB_OPENERS, "this is"))
    if not facts.scenery or draws.chance(0.2):
        return f"{opener} {place}"
    items = some_scenery(draws, facts.scenery, 3)
    if draws.chance(0.3):
        return f"{place} with {items}"
    return f"{opener} {items} {facts.phrase}" if draws.chance(0.5) else f"{opener} {place} with {items}"


def _present(
    t: Teller, items: Sequence[str], things: Sequence[Thing], *, plural: bool = False, backdrop: bool = True
) -> str:
    """Mentions in one of the constructions that introduce them, with setting and tail.

    Args:
        t: the sentence's choices.
        items: the mentions.
        things: what they stand for.
        plural: whether the first mention takes a plural verb.
        backdrop: whether scenery may follow.
    """
    d, said, tail = t.draws, listing(items), t.tail(things, backdrop=backdrop)
    there = "there are" if plural else "there is"
    if d.chance(0.08):
        return f"{place_of(t.facts.phrase)} with {said}"
    if d.chance(0.12):
        return f"{t.facts.phrase}{d.choice((',', ''))} {d.choice((there, 'we see', 'you can see'))} {said}{tail}"
    setting = t.setting()
    if t.tier != "short" and d.chance(0.1):
        return f"{said} {'are' if plural or len(items) > 1 else 'is'} {d.choice(('shown', 'seen'))}{setting}"
    opener = d.choice(("", there, d.choice(_NOUN_OPENERS), d.choice(_VERB_OPENERS)), (4.0, 1.5, 2.0, 1.5))
    return f"{opener} {said}{setting}{tail}".strip()


def _list(t: Teller) -> str | None:
    """Several mentions in a row."""
    wanted = t.draws.integer(*{"short": (1, 3), "medium": (2, 4), "long": (3, 5)}[t.tier])
    mentions = [t.say(s) for s in t.several(wanted)]
    mentions.sort(key=lambda m: ", one" in m.text)
    items, things = [m.text for m in mentions], [x for m in mentions for x in m.things]
    if t.facts.scenery and t.draws.chance(0.2):
        items.insert(0, some_scenery(t.draws, t.facts.scenery, 1))
        return _present(t, items, things, backdrop=False)
    return _present(t, items, things, plural=mentions[0].plural)


def _closely(t: Teller) -> str | None:
    """One thing in detail."""
    thing = t.pick(t.facts.things)
    said = t.say((thing,), min(3, t.detail() + 1))
    if t.facts.close_up(thing) and t.draws.chance(0.5):
        return f"a close-up of {said.text}{t.setting()}"
    return _present(t, [said.text], (thing,))


def _relation(t: Teller) -> str | None:
    """How two things lie to each other, and a further clause when the sentence is long."""
    d, setting = t.draws, t.setting()
    by_landmark = d.chance(_LANDMARK_SHARE)
    found = t.related(t.subjects(), t.landmarks(), BESIDE) if by_landmark else t.related(t.subjects(), t.subjects())
    if found is None:
        return None
    first, relation, second = found
    # two of one kind are told apart by their colours, so these must be said
    least = int(first[0].name == second[0].name)
    a, b = (t.say(s, max(least, t.detail()), distinct=bool(least)) for s in (first, second))
    words = d.choice(RELATIONS[relation])
    if relation not in COMPARISONS and d.chance(0.35):
        there = "there are" if a.plural else "there is"
        opener = d.choice(("", d.choice(_NOUN_OPENERS), there, d.choice(_VERB_OPENERS)))
        way = _participle(d, a) if d.chance(0.4) else ""
        tail = t.tail((*first, *second), backdrop=not by_landmark)
        return f"{opener} {a.text} {way}{words} {b.text}{setting}{tail}".strip()
    clause = f"{a.text} {_verb(d, a, relation)} {words} {b.text}"
    further = _further(t, a, b) if d.chance({"short": 0.0, "medium": 0.3, "long": 0.7}[t.tier]) else ""
    if setting and d.chance(0.3):
        return f"{t.facts.phrase}{d.choice((',', ''))} {clause}{further}"
    return f"{clause}{setting}{further}"


def _further(t: Teller, a: Mention, b: Mention) -> str:
    """A second clause about one of two mentions: another relation, or its colour; nothing if there is none."""
    d, link = t.draws, t.draws.choice((", and", " and", " while", ";"))
    for said in d.shuffled((a, b)):
        thing = said.things[0]
        if not said.coloured and len(said.things) == 1 and thing.look.alone and d.chance(0.5):
            return f"{link} {said.short} is {thing.look.colours[0]}"
    fresh = t.subjects(without=(a.things[0].name, b.things[0].name))
    found = t.related((a.things, b.things), fresh)
    if found is None:
        return ""
    first, relation, second = found
    said = a if first is a.things else b
    other = t.say(second)
    return f"{link} {said.short} {_verb(d, said, relation)} {d.choice(RELATIONS[relation])} {other.text}"


def _around(t: Teller) -> str | None:
    """One thing with one or two others around it: `a table with a mug on it`."""
    centre = (t.pick(t.facts.things),)
    parts: list[str] = []
    names, things = {centre[0].name}, [*centre]
    said, by_landmark = None, t.draws.chance(_LANDMARK_SHARE)
    for _ in range(2 if t.tier == "long" else 1):
        others = [s for s in t.landmarks() if s[0].name not in names] if by_landmark else t.subjects(without=names)
        found = t.related(others, (centre,), BESIDE)
        if found is None:
            break
        said = said or t.say(centre)
        other, relation, _ = found
        parts.append(f"{t.say(other).text} {t.draws.choice(RELATIONS[relation])} it")
        names.add(other[0].name)
        things += other
    if said is None:
        return None
    return _present(t, [f"{said.text} with {listing(parts)}"], things, backdrop=not by_landmark)


def _places(t: Teller) -> str | None:
    """Where things are in the picture."""
    placed = [(s, p) for s in t.subjects() if len(s) == 1 and (p := t.facts.position(s[0]))]
    items, things = list[str](), list[Thing]()
    names, places = set[str](), set[str]()
    for subject, place in t.draws.shuffled(placed):
        if subject[0].name in names or place in places or len(items) == 3:
            continue
        items.append(f"{t.say(subject).text} {t.draws.choice(_POSITIONS[place])}")
        names.add(subject[0].name)
        places.add(place)
        things += subject
    return _present(t, items, things) if items else None


def _grounds(t: Teller) -> str | None:
    """One thing in the foreground, one in the background."""
    pairs = [
        (a, b)
        for a in t.facts.things
        for b in t.facts.things
        if a.name != b.name and t.facts.nearer(a, b) and b.depth >= _FOREGROUND_RATIO * a.depth
    ]
    if not pairs:
        return None
    near, far = t.draws.choice(pairs, [t.worth(p) for p in pairs])
    parts = [f"{t.say((near,)).text} in the foreground", f"{t.say((far,)).text} in the background"]
    return _present(t, t.draws.shuffled(parts), (near, far))


def _verb(draws: Draws, subject: Mention, relation: str) -> str:
    """A finite verb for where a subject is."""
    name, copula = subject.things[0].name, "are" if subject.plural else "is"
    options = [copula]
    if relation not in COMPARISONS:
        options += ["stand" if subject.plural else "stands"] if name in STANDING else []
        options += [f"{copula} parked"] if name == "car" else []
    return draws.choice(options)


def _participle(draws: Draws, subject: Mention) -> str:
    """`standing ` or `parked `, or nothing, with a blank after it."""
    name = subject.things[0].name
    return "standing " if name in STANDING else "parked " if name == "car" else ""
