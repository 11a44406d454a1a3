"""What can be said of a frame: captions, named boxes, multiple-choice questions. Pure functions, no torch."""

from mtv.miniworld.language.captions import captions
from mtv.miniworld.language.items import Question
from mtv.miniworld.language.pairs import PairQuestion, pair_questions
from mtv.miniworld.language.questions import questions
from mtv.miniworld.language.regions import Region, regions

__all__ = ["PairQuestion", "Question", "Region", "captions", "pair_questions", "questions", "regions"]
