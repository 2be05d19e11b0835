"""Move the index of a finished MP4 from its end to its front, in the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from encoder_core.media.faststart import find_places, relocate

PIECE_BYTES: Final = 8 * 1024**2


def move_index_to_front(path: Path) -> int:
    """
    Return by how many bytes the data has moved.

    What it leaves is what ffmpeg's `+faststart` writes. It takes no room but the index's own in
    memory. Ended in the middle it leaves a file that is good for nothing. Raises BadIndex.
    """
    size = path.stat().st_size
    with path.open("r+b") as file:
        places = find_places(file, size)
        file.seek(places.index)
        index = relocate(file.read())
        # From the end on, so that nothing is overwritten before it was read.
        end = places.index
        while end > places.front:
            begin = max(places.front, end - PIECE_BYTES)
            file.seek(begin)
            piece = file.read(end - begin)
            file.seek(begin + len(index))
            file.write(piece)
            end = begin
        file.seek(places.front)
        file.write(index)
    return len(index)
