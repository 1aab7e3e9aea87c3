"""Words of captions: all forms of a word are one, and different sounds remain different."""

from __future__ import annotations

import pytest

from fourfold.data.audio.words import content_words, stem

FORMS = """
    idle idles idling idled, engine engines, roar roars roaring, horse horses, vehicle vehicles, sneeze sneezes
    sneezing, dog dogs, car cars, bus buses, cry cries crying cried, fly flies flying flew, buzz buzzes buzzing,
    hiss hisses hissing, run runs running ran, tap taps tapping tapped, wolf wolves, knife knives, leaf leaves, hoof
    hooves, church churches, glass glasses, bee bees, shoe shoes, toe toes, die dies dying, whistle whistles
    whistling whistled, echo echoes, sing sings singing singer sang, baby babies, clap claps clapping, hum hums
    humming, snore snores snoring, key keys, mouse mice, goose geese, ring rings ringing rang rung, speak speaks
    speaking speech speaker spoke, child children, man men, woman women, person people persons, bell bells,
    recording recordings, feed feeds feeding, hammer hammers hammering hammered, thunder thunders thundering, drum
    drums drumming drummer, laugh laughing laughter, wave waves, play plays playing, tree trees, blow blows blowing
    blew, gas gases, wheel wheels
"""
SOUNDS = """
    bell bird buzz clap clock engine hiss siren thunder whistle dog rain cat car horse wave baby sneeze helicopter
    rooster fire chainsaw sea train door glass speech laugh drum guitar piano cow sheep frog cricket wind water footstep
    cough snore saw keyboard vacuum church airplane cock crow hen pig insect mouse toilet brush can
"""


@pytest.mark.parametrize("forms", [forms.split() for forms in FORMS.split(",")], ids=lambda forms: forms[0])
def test_forms_of_a_word(forms):
    assert len({stem(form) for form in forms}) == 1
    assert stem(forms[0])


def test_different_sounds():
    words = SOUNDS.split()
    assert len({stem(word) for word in words}) == len(words)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("An engine idles", "Engines roaring", True),
        ("Two dogs growling", "A dog howls", True),
        ("Children playing", "a child's voice", True),
        ("A vehicle passes by", "several vehicles", True),
        ("A dog barks in the background", "Rain falling, with sounds of thunder", False),
        ("犬が吠えている", "犬が鳴く", True),
        ("エンジンの音", "雨の音", False),
        ("エンジンの音", "ｴﾝｼﾞﾝ", True),
        ("Звук колокола", "Дождь", False),
        ("Ein Café", "das CAFE\u0301", True),
    ],
)
def test_captions(one, other, same):
    assert bool(content_words(one) & content_words(other)) == same


def test_words():
    assert content_words("A dog is barking, with sounds of 2 trains") == {"dog", "bark", "train"}
    assert content_words("the sound of it, 3") == frozenset()
