"""Which metadata of a source go with its edit: what says what it is, and nothing that says who made it where."""

import re
from collections.abc import Mapping

_TRACK = {"language": "language", "title": "title", "name": "title", "comment": "comment"}
"""What is said of one track, by the name that it has in mp4 and elsewhere; all else is about how it was stored."""

_STALE = re.compile(
    r"encoder|encoding_tool|creation_?time|major_brand|minor_version|compatible_brands|duration|timecode|reel_name"
    r"|company_name|product_name|product_version|handler_name|vendor_id|rotate|bps|number_of_(frames|bytes)|_statistics.*"
)
"""About the file that it was, as in FFmpeg's own rules for a file that is encoded again."""

_PERSONAL = re.compile(
    r"gps|geo(tag|loc)|location|latitude|longitude|altitude|coordinate|iso6709"  # where
    r"|device|serial|camera|manufacturer|firmware|imei|lens(make|model|id|info)|owner"  # with what, and whose
    r"|\b(xyz|geo|place|make|model|lens|android|hostcomputer|uuid|umid|guid|identifier|creationdate)\b"
)
"""What a key has in it that is about a place, a device or its owner."""

_VENDOR = re.compile(r"com\.[a-z0-9]+\..*")
_ORDINARY = ("title", "displayname", "comment", "description", "information", "keywords", "copyright", "artist")
_ORDINARY += ("author", "album", "genre", "director", "producer", "performer", "publisher", "year")


def carried(metadata: Mapping[str, str], *, of_track: bool = False) -> dict[str, str]:
    """The entries that an edit keeps.

    As FFmpeg does when it encodes a file again, title, artist, comment and all other entries are kept, but for the
    date of creation and what was said of the old encoding. Left out as well are position, device, serial numbers and
    owner, in whatever form a maker writes them: of keys in a maker's own namespace ("com.apple.quicktime.…") only
    the ordinary ones are kept.

    Args:
        metadata: of a file, or of a track.
        of_track: it is of a track, which keeps language and title.
    """
    if of_track:
        return {_TRACK[key.lower()]: value for key, value in metadata.items() if key.lower() in _TRACK}
    return {key: value for key, value in metadata.items() if _is_kept(key.lower())}


def _is_kept(key: str) -> bool:
    if _VENDOR.fullmatch(key):
        return key.rpartition(".")[2] in _ORDINARY
    return not (_STALE.fullmatch(key) or _PERSONAL.search(key.replace("_", " ")))
