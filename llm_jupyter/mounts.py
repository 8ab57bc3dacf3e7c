"""Which files lie on a network: there, memory cannot be shared between machines and locks may be slow or missing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NETWORK = frozenset((
    "9p", "acfs", "afp", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fakeowner", "fhgfs", "gfs2",
    "glusterfs", "gpfs", "lustre", "macfuse", "mfs", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "osxfuse",
    "panfs", "prl_fs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "webdav",
))  # fmt: skip
"""Types of file systems that several machines share, a virtual machine and its host among them."""
LOCAL_FUSE = frozenset((
    "fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.lxcfs", "fuse.mergerfs", "fuse.ntfs-3g",
    "fuse.unionfs",
))  # fmt: skip
"""What runs in user space and stays on this machine; any other that does (`fuse.sshfs`, `fuse.rclone`) counts as remote."""


class Mount(NamedTuple):
    """A folder, and the type of the file system that is mounted there."""

    folder: str
    kind: str


def on_network(path: Path) -> bool:
    """Whether a file, there or yet to be made, lies on a network file system; `True` where the system does not tell."""
    try:
        real = os.path.realpath(path)
        if sys.platform == "win32" and real.startswith("\\\\"):
            return True
        kind = kind_of(real, mounts())
    except OSError:
        return True
    return is_network(kind)


def is_network(kind: str) -> bool:
    """Whether a type of file system is one of a network. Unknown ones in user space are: being careful costs little."""
    kind = kind.lower()
    return kind in NETWORK or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)


def kind_of(path: str, mounted: Iterable[Mount]) -> str:
    """The type of the file system of an absolute path: that of the longest mount above it, the latest where two tie."""
    best = Mount("", "")
    for mount in mounted:
        if _is_below(path, mount.folder) and len(mount.folder) >= len(best.folder):
            best = mount
    return best.kind


def mounts() -> list[Mount]:
    """What is mounted here, in the order in which it was. Raises `OSError`."""
    if sys.platform == "linux":
        return parsed(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    import psutil

    try:
        partitions = psutil.disk_partitions(all=True)
    except psutil.Error as error:
        raise OSError(str(error)) from error
    return [Mount(part.mountpoint, "smb" if "remote" in part.opts.split(",") else part.fstype) for part in partitions]


def parsed(mountinfo: str) -> list[Mount]:
    """The mounts of a Linux `mountinfo`; lines of any other shape are passed over."""
    found = []
    for line in mountinfo.split("\n"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if len(fields) > 4 and kind:
            found.append(Mount(_unescaped(fields[4]), kind))
    return found


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _unescaped(field: str) -> str:
    r"""A blank in a folder's name stands as `\040` in `mountinfo`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
