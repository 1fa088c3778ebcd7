"""General skills of the tiny world: things that are not reasoning, each with one exactly checkable answer.

Opposites, translation, facts, and instructions to answer in a given form. `SKILLS` is what the base model reads,
`ASKED` what chats ask; a skill is a function from a random generator to (question, thought, answer).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from temper.data.tiny.split import Split, split_of

GERMAN = {
    "dog": "Hund", "cat": "Katze", "horse": "Pferd", "bird": "Vogel", "fish": "Fisch", "house": "Haus",
    "tree": "Baum", "water": "Wasser", "fire": "Feuer", "sun": "Sonne", "moon": "Mond", "star": "Stern",
    "book": "Buch", "bread": "Brot", "milk": "Milch", "apple": "Apfel", "hand": "Hand", "head": "Kopf",
    "eye": "Auge", "door": "Tuer", "window": "Fenster", "table": "Tisch", "chair": "Stuhl", "street": "Strasse",
    "city": "Stadt", "river": "Fluss", "mountain": "Berg", "garden": "Garten", "flower": "Blume", "child": "Kind",
    "mother": "Mutter", "father": "Vater", "friend": "Freund", "school": "Schule", "teacher": "Lehrer",
    "night": "Nacht",
    "day": "Tag", "winter": "Winter", "summer": "Sommer", "stone": "Stein",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "old": "new", "fast": "slow", "light": "dark", "good": "bad", "long": "short",
    "high": "low", "full": "empty", "rich": "poor", "hard": "soft", "wet": "dry", "early": "late", "happy": "sad",
    "strong": "weak", "open": "closed", "near": "far", "left": "right", "loud": "quiet", "clean": "dirty",
}  # fmt: skip
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London",
    "Austria": "Vienna", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw",
    "Russia": "Moscow", "Japan": "Tokyo", "China": "Beijing", "Egypt": "Cairo", "Cuba": "Havana", "Peru": "Lima",
    "Kenya": "Nairobi", "Ireland": "Dublin", "Portugal": "Lisbon", "Finland": "Helsinki",
}  # fmt: skip
COLOURS = {
    "grass": "green", "snow": "white", "coal": "black", "blood": "red", "the sky": "blue", "a lemon": "yellow",
    "milk": "white", "a carrot": "orange", "a tomato": "red", "the sea": "blue", "a leaf": "green",
    "chocolate": "brown",
}  # fmt: skip
WORDS = tuple(GERMAN)
Skill = Callable[[Random], tuple[str, str, str]]


def to_german(random: Random) -> tuple[str, str, str]:
    word = random.choice(WORDS)
    return f"German for {word}?", f"The word {word} is {GERMAN[word]} in German.", GERMAN[word]


def to_english(random: Random) -> tuple[str, str, str]:
    word = random.choice(WORDS)
    return f"English for {GERMAN[word]}?", f"The word {GERMAN[word]} is {word} in English.", word


def opposite(random: Random) -> tuple[str, str, str]:
    pair = random.choice(tuple(OPPOSITES.items()))
    one, other = pair if random.random() < 0.5 else pair[::-1]
    return f"Opposite of {one}?", f"The opposite of {one} is {other}.", other


def capital(random: Random) -> tuple[str, str, str]:
    country = random.choice(tuple(CAPITALS))
    return f"Capital of {country}?", f"The capital of {country} is {CAPITALS[country]}.", CAPITALS[country]


def colour(random: Random) -> tuple[str, str, str]:
    thing = random.choice(tuple(COLOURS))
    return f"Colour of {thing}?", f"The colour of {thing} is {COLOURS[thing]}.", COLOURS[thing]


def twice(random: Random) -> tuple[str, str, str]:
    word = random.choice(WORDS)
    return f"Say {word} twice", f"Two times {word}.", f"{word} {word}"


def first_word(random: Random) -> tuple[str, str, str]:
    words = random.sample(WORDS, 3)
    return f"First of {words[0]}, {words[1]}, {words[2]}?", f"It starts with {words[0]}.", words[0]


def last_word(random: Random) -> tuple[str, str, str]:
    words = random.sample(WORDS, 3)
    return f"Last of {words[0]}, {words[1]}, {words[2]}?", f"It ends with {words[2]}.", words[2]


def yes_or_no(random: Random) -> tuple[str, str, str]:
    country, right = random.choice(tuple(CAPITALS.items()))
    asked = right if random.random() < 0.5 else random.choice(tuple(CAPITALS.values()))
    answer = "yes" if asked == right else "no"
    return (f"Answer yes or no: is {asked} the capital of {country}?",
            f"The capital of {country} is {right}.", answer)  # fmt: skip


# Other ways of asking, by skill; `{}` is what the skill's own question is about. The base model has read only the
# first way; which ways a fact is asked in training and which are held out, the hash of the question decides.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "to_german": (
        "German for {}?", "{} in German?", "The word {} in German?", "Say {} in German", "The German for {}?",
    ),
    "to_english": (
        "English for {}?", "{} in English?", "The word {} in English?", "Say {} in English", "The English for {}?",
    ),
    "opposite": ("Opposite of {}?", "The opposite of {}?", "{}: the opposite?", "Say the opposite of {}", "Not {}?"),
    "capital": ("Capital of {}?", "The capital of {}?", "{}: the capital?", "Say the capital of {}", "{} capital?"),
    "colour": ("Colour of {}?", "The colour of {}?", "{}: the colour?", "Say the colour of {}", "{} colour?"),
    "twice": ("Say {} twice", "{} twice?", "Say the word {} twice", "The word {} two times?", "{} two times?"),
}  # fmt: skip

SKILLS: dict[str, Skill] = {
    "to_german": to_german,
    "to_english": to_english,
    "opposite": opposite,
    "capital": capital,
    "colour": colour,
    "twice": twice,
    "first_word": first_word,
    "last_word": last_word,
    "yes_or_no": yes_or_no,
}


def draw_task(random: Random, split: Split | None = None) -> tuple[str, str, str]:
    """A (question, thought, answer) as the base model reads them: the first phrasing, all skills equally often, of that
    side of the split (of either, if none is named).

    >>> draw_task(Random(1), "train")
    ('Opposite of quiet?', 'The opposite of quiet is loud.', 'loud')
    """
    while True:
        skill = SKILLS[random.choice(tuple(SKILLS))]
        question, thought, answer = skill(random)
        if split is None or split_of(question) == split:
            return question, thought, answer


FACTS = ("to_german", "to_english", "opposite", "capital", "colour")
ASKED = (*FACTS, "twice", "fact_twice", "first_word", "last_word")  # the skills that are asked about in chats


def fact_twice(random: Random) -> tuple[str, str, str]:
    """A fact, and the form its answer is to have."""
    question, thought, answer = SKILLS[random.choice(FACTS)](random)
    return f"{question} Say it twice", thought, f"{answer} {answer}"


def ask(name: str, random: Random) -> tuple[str, str, str]:
    """A (question, thought, answer) of `name` in ASKED, in any of its phrasings.

    >>> ask("opposite", Random(2))
    ('big: the opposite?', 'The opposite of big is small.', 'small')
    """
    if name == "fact_twice":
        return fact_twice(random)
    question, thought, answer = SKILLS[name](random)
    ways = PHRASINGS.get(name)
    if ways is None:
        return question, thought, answer
    before, after = ways[0].split("{}")
    subject = question.removeprefix(before).removesuffix(after)
    return random.choice(ways).format(subject), thought, answer


def draw_skill(random: Random, split: Split) -> tuple[str, str, str, str]:
    """A (skill, question, thought, answer) of that side of the split, all of ASKED equally often, in any phrasing."""
    while True:
        skill = random.choice(ASKED)
        question, thought, answer = ask(skill, random)
        if split_of(question) == split:
            return skill, question, thought, answer


def draw_asked(random: Random, split: Split) -> tuple[str, str, str]:
    """The question, thought and answer of `draw_skill`."""
    return draw_skill(random, split)[1:]
