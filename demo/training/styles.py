"""What the composer can choose from: instruments, drum, bass and chord patterns, styles. Data only.

A pattern is one 4/4 bar of sixteen steps. Drums: `X` loud, `x` normal, `o` soft. Bass: `R` root, `F` fifth, `O` octave,
`T` third. Chords: `x` a short chord, `X` one that is held with `-`, `A` one note of an arpeggio. `.` is silence.
"""

from dataclasses import dataclass

Bar = dict[str, str]

INSTRUMENTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "piano": (0, ("piano", "grand piano", "acoustic piano")),
    "electric piano": (4, ("electric piano", "rhodes", "e-piano")),
    "vibraphone": (11, ("vibraphone", "vibes")),
    "marimba": (12, ("marimba",)),
    "organ": (16, ("organ", "hammond organ")),
    "acoustic guitar": (25, ("acoustic guitar", "guitar")),
    "clean guitar": (27, ("clean electric guitar", "electric guitar", "guitar")),
    "muted guitar": (28, ("muted guitar", "funky guitar")),
    "distorted guitar": (30, ("distorted guitar", "electric guitar", "overdriven guitar")),
    "double bass": (32, ("double bass", "upright bass", "acoustic bass")),
    "bass guitar": (33, ("bass guitar", "electric bass", "bass")),
    "slap bass": (36, ("slap bass", "bass")),
    "synth bass": (38, ("synth bass", "bass synth", "bass")),
    "sub bass": (39, ("sub bass", "deep bass", "synth bass")),
    "strings": (48, ("strings", "string section")),
    "synth strings": (50, ("synth strings", "strings")),
    "trumpet": (56, ("trumpet",)),
    "brass": (61, ("brass", "horns")),
    "saxophone": (66, ("saxophone", "sax")),
    "flute": (73, ("flute",)),
    "square lead": (80, ("square lead", "synth lead", "chiptune lead")),
    "saw lead": (81, ("saw lead", "synth lead", "lead synth")),
    "pluck": (84, ("pluck synth", "synth pluck", "synth arpeggio")),
    "new age pad": (88, ("warm pad", "synth pad", "pad")),
    "choir pad": (91, ("choir pad", "choir", "synth choir")),
    "bowed pad": (92, ("bowed pad", "glassy pad", "pad")),
    "voices": (53, ("voice pad", "soft voices", "vocal pad")),
    "polysynth pad": (90, ("polysynth pad", "synth pad", "pad")),
}

PADS = ("new age pad", "choir pad", "bowed pad", "voices")
PAD_MOODS = ("calm", "soft", "peaceful", "dreamy", "ethereal", "meditative", "warm", "spacious", "gentle", "floating")
PIANO_MOODS = ("calm", "gentle", "romantic", "melancholic", "sad", "hopeful", "playful", "bright", "tender")

KICK, SNARE, CLAP, CLOSED, OPEN, RIDE, CRASH, RIM, SHAKER, TOM = 36, 38, 39, 42, 46, 51, 49, 37, 70, 45
DRUM_NOTES = {
    "kick": KICK, "snare": SNARE, "clap": CLAP, "hat": CLOSED, "open": OPEN, "ride": RIDE, "rim": RIM, "shaker": SHAKER,
}  # fmt: skip

FOUR = "X...X...X...X..."
BACKBEAT = "....X.......X..."
EIGHTHS = "x.o.x.o.x.o.x.o."
SIXTEENTHS = "xoooxoooxoooxooo"


@dataclass(frozen=True)
class Style:
    """One genre: what it is called, how fast, how it feels, and the patterns and instruments it is made of."""

    names: tuple[str, ...]
    bpm: tuple[int, int]
    moods: tuple[str, ...]
    drums: tuple[Bar, ...]
    bass: tuple[str, ...]
    bass_instruments: tuple[str, ...]
    chords: tuple[str, ...]
    chord_instruments: tuple[str, ...]
    leads: tuple[str, ...]
    swing: float = 0.0
    minor: float = 0.5


STYLES: dict[str, Style] = {
    "techno": Style(
        ("techno", "driving techno", "club techno"),
        (120, 145),
        ("upbeat", "energetic", "dark", "hypnotic", "driving"),
        (
            {"kick": FOUR, "open": "..x...x...x...x.", "clap": BACKBEAT},
            {"kick": FOUR, "hat": SIXTEENTHS, "open": "..x...x...x...x."},
        ),
        ("..R...R...R...R.", "..RR..RR..RR..RR", "R.RRR.RRR.RRR.RR"),
        ("synth bass", "sub bass"),
        ("x..x..x...x..x..", "..x...x...x...x.", "AAAAAAAAAAAAAAAA"),
        ("saw lead", "pluck", "polysynth pad"),
        ("square lead", "saw lead"),
        minor=0.9,
    ),
    "house": Style(
        ("house", "deep house", "house music"),
        (115, 130),
        ("groovy", "upbeat", "warm", "happy", "uplifting"),
        (
            {"kick": FOUR, "open": "..x...x...x...x.", "clap": BACKBEAT, "hat": EIGHTHS},
            {"kick": FOUR, "hat": "..x...x...x...x.", "clap": BACKBEAT, "shaker": SIXTEENTHS},
        ),
        ("R..R..R...R.O...", "..R...R...R...O.", "R.....R.R.....F."),
        ("synth bass", "bass guitar"),
        ("..x...x...x...x.", "x..x..x.....x...", "..X-..X-..X-..X-"),
        ("piano", "electric piano", "organ"),
        ("saw lead", "flute", "saxophone"),
    ),
    "rock": Style(
        ("rock", "rock band", "hard rock", "indie rock"),
        (95, 155),
        ("energetic", "powerful", "driving", "raw", "bright"),
        (
            {"kick": "X.......X.X.....", "snare": BACKBEAT, "hat": EIGHTHS},
            {"kick": "X.....x.X.......", "snare": BACKBEAT, "ride": EIGHTHS},
        ),
        ("R.R.R.R.R.R.R.R.", "R.R.R.R.R.R.F.F."),
        ("bass guitar",),
        ("X---X---X---X---", "x.x.x.x.x.x.x.x."),
        ("distorted guitar", "clean guitar"),
        ("distorted guitar", "organ"),
        minor=0.4,
    ),
    "pop": Style(
        ("pop ballad", "pop", "ballad"),
        (70, 110),
        ("emotional", "romantic", "hopeful", "sad", "gentle"),
        (
            {"kick": "X.......X.......", "snare": BACKBEAT, "hat": EIGHTHS},
            {"kick": "X.....x.X.......", "rim": BACKBEAT, "hat": EIGHTHS},
        ),
        ("R-------R-----F-", "R-----R-R-----R-"),
        ("bass guitar",),
        ("X---X---X---X---", "A.A.A.A.A.A.A.A."),
        ("piano", "acoustic guitar", "electric piano"),
        ("strings", "flute", "acoustic guitar"),
        minor=0.3,
    ),
    "funk": Style(
        ("funk", "funky groove", "disco funk"),
        (95, 120),
        ("funky", "groovy", "upbeat", "playful", "happy"),
        (
            {"kick": "X..x..x...x.....", "snare": "....X..o.o..X..o", "hat": SIXTEENTHS},
            {"kick": FOUR, "snare": BACKBEAT, "open": "..x...x...x...x."},
        ),
        ("R..R..O.R..R.FO.", "R.O...R.O.F.R.O."),
        ("slap bass", "bass guitar"),
        ("..x..x..x..x..x.", "x..xx..xx..xx..x"),
        ("muted guitar", "clean guitar", "organ"),
        ("brass", "saxophone", "trumpet"),
    ),
    "jazz": Style(
        ("jazz", "jazz swing", "swing jazz"),
        (90, 160),
        ("smooth", "relaxed", "smoky", "playful", "cool"),
        ({"ride": "x...x.o.x...x.o.", "hat": "....x.......x...", "kick": "o...o...o...o..."},),
        ("R...T...F...T...", "R...F...O...F..."),
        ("double bass",),
        ("x.....x.........", "....x.....x....."),
        ("piano", "electric piano", "vibraphone"),
        ("saxophone", "trumpet", "vibraphone"),
        swing=0.33,
    ),
    "lofi": Style(
        ("lo-fi hip hop", "lofi beat", "chillhop", "lo-fi"),
        (70, 95),
        ("chill", "mellow", "relaxed", "sleepy", "nostalgic"),
        (
            {"kick": "X.....x.X.......", "snare": BACKBEAT, "hat": EIGHTHS},
            {"kick": "X..x......x.....", "rim": BACKBEAT, "hat": EIGHTHS},
        ),
        ("R-------R-----F-", "R---..R-R---...."),
        ("sub bass", "double bass"),
        ("X-------X-------", "X-----x.X-----x."),
        ("electric piano", "piano", "clean guitar"),
        ("vibraphone", "flute", "electric piano"),
        swing=0.15,
        minor=0.6,
    ),
    "synthwave": Style(
        ("synthwave", "retro synthwave", "80s synthwave"),
        (80, 120),
        ("nostalgic", "dreamy", "driving", "dark", "retro"),
        (
            {"kick": FOUR, "snare": BACKBEAT, "hat": EIGHTHS},
            {"kick": "X.......X.......", "snare": BACKBEAT, "hat": SIXTEENTHS},
        ),
        ("R.R.R.R.R.R.R.R.", "RRRRRRRRRRRRRRRR", "R.O.R.O.R.O.R.O."),
        ("synth bass",),
        ("X---------------", "AAAAAAAAAAAAAAAA"),
        ("polysynth pad", "synth strings", "pluck"),
        ("saw lead", "square lead"),
        minor=0.8,
    ),
    "reggae": Style(
        ("reggae", "roots reggae", "dub reggae"),
        (70, 100),
        ("laid-back", "sunny", "relaxed", "happy", "warm"),
        (
            {"kick": "........X.......", "rim": "........X.......", "hat": EIGHTHS},
            {"kick": FOUR, "rim": "........X.......", "hat": EIGHTHS},
        ),
        ("R...R.F.....R.T.", "..R.R.F.R...T.F."),
        ("bass guitar",),
        ("....x.......x...", "..x...x...x...x."),
        ("organ", "clean guitar", "muted guitar"),
        ("trumpet", "brass", "organ"),
        minor=0.4,
    ),
    "drum and bass": Style(
        ("drum and bass", "dnb", "jungle"),
        (140, 160),
        ("fast", "energetic", "intense", "dark", "liquid"),
        (
            {"kick": "X.........X.....", "snare": BACKBEAT, "hat": EIGHTHS},
            {"kick": "X.....x...X.....", "snare": BACKBEAT, "hat": SIXTEENTHS},
        ),
        ("R-----R-..F-----", "R-------..R-O-.."),
        ("sub bass", "synth bass"),
        ("X---------------", "X-------X-------"),
        ("synth strings", "choir pad", "electric piano"),
        ("saw lead", "square lead"),
        minor=0.8,
    ),
    "trance": Style(
        ("trance", "uplifting trance", "edm"),
        (125, 142),
        ("uplifting", "euphoric", "energetic", "bright", "driving"),
        ({"kick": FOUR, "open": "..x...x...x...x.", "clap": BACKBEAT},),
        ("..R...R...R...R.", ".RRR.RRR.RRR.RRR"),
        ("synth bass",),
        ("x.xx.xx.x.xx.xx.", "AAAAAAAAAAAAAAAA"),
        ("saw lead", "polysynth pad", "pluck"),
        ("saw lead", "square lead"),
        minor=0.7,
    ),
    "hip hop": Style(
        ("hip hop", "boom bap", "hip hop beat"),
        (80, 105),
        ("laid-back", "confident", "gritty", "cool", "dark"),
        (
            {"kick": "X..x......X.....", "snare": BACKBEAT, "hat": EIGHTHS},
            {"kick": "X.x.......X.x...", "snare": BACKBEAT, "hat": SIXTEENTHS},
        ),
        ("R..R......R.....", "R-....R-..F-...."),
        ("sub bass", "bass guitar"),
        ("X-------....x...", "x.....x.x.....x."),
        ("piano", "electric piano", "strings"),
        ("flute", "brass", "pluck"),
        minor=0.8,
    ),
}

# Scale degrees of the chords, one per bar.
PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 3), (3, 4, 0, 5), (1, 4, 0, 0), (0, 2, 3, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 6), (0, 5, 3, 4), (0, 2, 6, 3), (0, 0, 5, 6)),
}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
