"""Whether a file ends before its own header says.

FFmpeg plays such a file up to the cut and reports nothing, so the promise of each container is looked up here:
nothing but sizes in headers. Sources: ISO/IEC 14496-12 section 4.2 (boxes), RFC 8794 and 9559 (EBML, Matroska),
the RIFF and GIF89a specifications, ISO/IEC 13818-1 (packets of 188 bytes; 192 and 204 with what is added to them).
"""

import io

_MOST_BOXES = 100_000  # a file of nothing but empty boxes must not keep us busy


def is_cut(file: io.BufferedIOBase, size: int, container: str) -> bool:
    """Whether `file` of `size` bytes lacks its end, as far as `container` (FFmpeg's name of the demuxer) can tell."""
    file.seek(0)
    if container.startswith("mov,"):
        return _last_box_end(file, size) > size
    head = file.read(4096)
    if container.startswith("matroska,"):
        return _segment_end(head) > size
    if container == "avi":
        return head.startswith(b"RIFF") and 8 + int.from_bytes(head[4:8], "little") > size
    if container == "mpegts":
        return all(size % packet for packet in (188, 192, 204))
    if container == "gif":
        file.seek(max(0, size - 256))
        return not file.read().rstrip(b"\0\r\n ").endswith(b";")
    return False


def _last_box_end(file: io.BufferedIOBase, size: int) -> int:
    """Byte where the last box of an mp4 ends; boxes of other kinds may be garbage after the end."""
    end = 0
    for _ in range(_MOST_BOXES):
        if end >= size:
            break
        file.seek(end)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:  # the length follows in 64 bits
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or (end + length > size and kind not in (b"moov", b"moof", b"mdat")):
            return size  # 0 means "to the end of the file"
        end += length
    return end


def _segment_end(head: bytes) -> int:
    """Byte where a Matroska segment ends, 0 if the header leaves it open, as in live recordings.

    The file is a header element and then the segment; an element is an id, here of 4 bytes, a size and data.
    """
    length, width = _ebml_size(head, 4)
    segment = 4 + width + length
    if head[segment : segment + 4] != b"\x18\x53\x80\x67":
        return 0
    length, width = _ebml_size(head, segment + 4)
    return 0 if length == (1 << 7 * width) - 1 else segment + 4 + width + length


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """(value, bytes it takes): the leading zero bits of the first byte count the bytes that follow it."""
    first = head[at] if at < len(head) else 0
    width = 9 - first.bit_length()
    return int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1), width
