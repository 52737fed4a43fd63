"""Stars as sidecar files, which photo programs read; no picture is ever opened for writing.

    darktable, digiKam   photo.jpg.xmp
    Lightroom            photo.xmp, shared by photo.jpg and photo.raw

A sidecar that is there stays as it is: it may hold a person's edits. Left out: merging a rating
into it, ratings inside the pictures, "rejected" (-1).
Source: Adobe, XMP Specification Part 1 (packet) and Part 2 (xmp:Rating, 0 to 5).
"""

import os
from collections.abc import Iterable
from pathlib import Path

from nanoaes.errors import UserError

PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="nanoaes">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="{stars}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def sidecar(picture: Path, style: str) -> Path:
    """Where a program looks for it. style: darktable | lightroom."""
    return (picture.with_suffix(".xmp") if style == "lightroom" else
            picture.with_name(picture.name + ".xmp"))


def write_sidecar(picture: Path, style: str, stars: int, dry_run: bool) -> bool:
    """A new sidecar; False: there is one already, or what else has its name.

    Args:
        dry_run: say what would happen, write nothing.
    Raises:
        UserError: it cannot be written.
    """
    path = sidecar(picture, style)
    if dry_run:
        return not os.path.lexists(path)
    try:
        with path.open("xb") as file:  # x: fails where there is one, a dangling link too
            try:
                file.write(PACKET.format(stars=stars).encode())
                file.flush()
            except BaseException:  # Ctrl-C, too
                path.unlink()  # or half a sidecar would stay for ever
                raise
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); mend the folder's rights, "
                        "or leave --xmp out") from error
    return True


def rate(stars: Iterable[tuple[Path, int]], style: str, dry_run: bool) -> tuple[int, list[Path]]:
    """Sidecars for pictures and their stars -> (written, those that were there already)."""
    new, there = set(), []  # of a dry run, too: photo.jpg and photo.raw share one
    for picture, n in stars:
        path = sidecar(picture, style)
        if path not in new and write_sidecar(picture, style, n, dry_run):
            new.add(path)
        else:
            there.append(path)
    return len(new), there
