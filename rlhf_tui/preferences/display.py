"""Making texts of files and models safe to show in a terminal. Stored texts stay exactly as they are.

A terminal obeys control characters, some reorder a line on bidirectional controls (CVE-2021-42574, "Trojan
Source"), and characters without ink can hide text from the rater that the model reads. So nothing invisible
reaches the screen unless it makes the visible text read right, and `hidden` says how much was left out: a mark
in the place of each would cut words in two in honest texts (soft hyphens, Hebrew with direction marks).
"""

from __future__ import annotations

import re
import unicodedata

TAB = 4  # columns
#: Combining marks kept in one stack. Written languages need up to four or five (Tibetan), "zalgo" piles up hundreds.
STACK = 6

_UNKNOWN = "\ufffd"
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Roughly the characters of Unicode's Extended_Pictographic (UTS #51), skin tones among them.
_PICTURES = "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
# Scripts in which a joiner or variation selector after a letter is spelling: Arabic to N'Ko, the Indic ones,
# Sinhala, Tibetan, Myanmar, Khmer, Mongolian, Balinese, Javanese, and those of the supplementary planes' Brahmi family.
_JOINED = (
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u17ff\u1820-\u18aa\u1b00-\u1b4f\ua980-\ua9df\U00011000-\U000114df"
)
# Text or emoji style of the picture or digit before it. Terminals and Textual disagree about the width of a picture
# with a selector (one cell or two) and agree without it; it carries no text, so it is not counted as hidden either.
_STYLES = re.compile(f"[\ufe0e\ufe0f](?<=[0-9#*{_PICTURES}][\ufe0e\ufe0f])")
_JOINERS = "\u180b-\u180d\u180f\u200c\u200d"
_TAGS = "\U000e0020-\U000e007e"
_END_OF_TAGS = "\U000e007f"
_PICTURE = f"[{_PICTURES}][\U0001f3fb-\U0001f3ff]?"
# What follows its neighbours' fate. At most four pictures are joined, as in every sequence that Unicode recommends:
# a longer chain would have the width of one picture in Textual's arithmetic and of all of them on the screen.
_COMPANY = re.compile(
    f"(?P<flag>\U0001f3f4[{_TAGS}]{{2,6}}{_END_OF_TAGS})"
    f"|(?P<joined>{_PICTURE}(?:\u200d{_PICTURE}){{1,3}}|(?<=[{_JOINED}])[{_JOINERS}])"
    f"|(?P<tag>[{_TAGS}])"
    f"|(?P<loose>[{_JOINERS}{_END_OF_TAGS}])"
)
_IN_COMPANY = re.compile(f"[{_JOINERS}{_TAGS}{_END_OF_TAGS}]")
# Format characters (Cf) with ink: Arabic, Syriac and Kaithi number and verse signs.
_INKED = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
# Without ink in other categories (Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt): combining
# grapheme joiner, Hangul fillers, Khmer inherent vowels, variation selectors, and what is reserved for more of these.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]")
# Not a word character, not white space: marks are among these, and in a text only a stack gives a long run of them.
_STACKS = re.compile(f"[^\\w\\s\x00-\u02ff]{{{STACK + 1},}}")


def clean(text: str) -> str:
    """The text without anything a terminal would obey or a reader could not see; pure, and clean(clean(x)) == clean(x).

    Every kind of line end is a newline, tabs are spaces. Dropped: control characters (of a colour code "[31m" stays
    visible, because it is in the text), bidirectional controls, characters without ink, marks piled up higher
    than STACK. Joiners stay where spelling or an emoji needs them. Text written in invisible tag characters is
    shown as the letters it means. Lone surrogates, private-use and unassigned characters, whose width
    nobody knows, become "\ufffd".
    """
    if text.isascii() and text.isprintable():  # as nearly every text is that the app draws
        return text
    return _visible(_readable(text)).expandtabs(TAB)


def hidden(text: str) -> int:
    """How many characters of the text `clean` leaves out because nobody could see them, or a terminal would obey."""
    readable = _readable(text)
    return len(readable) - len(_visible(readable))


def _readable(text: str) -> str:
    return _STYLES.sub("", _LINE_ENDS.sub("\n", text))


def _visible(text: str) -> str:
    shown = text.translate(_FATES)
    if shown.isascii():
        return shown
    shown = _STACKS.sub(_lower, shown)
    return _COMPANY.sub(_keep_company, shown) if _IN_COMPANY.search(shown) else shown


class _Fates(dict[int, str]):
    """What becomes of each character wherever it stands; worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = fate = _fate(chr(code))
        return fate


_FATES = _Fates()


def _fate(char: str) -> str:
    if char in "\n\t" or _IN_COMPANY.match(char) or _INKED.match(char):
        return char
    if _BLANK.match(char):
        return ""
    match unicodedata.category(char):
        case "Cc" | "Cf":
            return ""
        case "Cs" | "Co" | "Cn":
            return _UNKNOWN
    return char


def _lower(run: re.Match[str]) -> str:
    """The run of symbols with no stack of marks higher than STACK."""
    kept, height = [], 0
    for char in run[0]:
        if unicodedata.category(char) in ("Mn", "Me"):
            height += 1
        elif not _IN_COMPANY.match(char):
            height = 0
        if height <= STACK:
            kept.append(char)
    return "".join(kept)


def _keep_company(found: re.Match[str]) -> str:
    match found.lastgroup:
        case "tag":
            return chr(ord(found[0]) - 0xE0000)
        case "loose":
            return ""
    return found[0]
