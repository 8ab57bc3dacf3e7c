"""Which files lie on a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store.processes import in_namespaces

from llm_jupyter.mounts import Mount, is_network, kind_of, mounts, on_network, parsed

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
40 22 0:40 / /home rw shared:9 master:2 - nfs4 server:/home rw,vers=4.2
41 40 0:41 / /home/ann/with\040blank rw - tmpfs tmpfs rw
42 40 0:42 / /home/bob rw - autofs systemd-1 rw
43 42 0:43 / /home/bob rw - cifs //server/bob rw
a line of another shape
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/homestead", "ext4"),
        ("/home", "nfs4"),
        ("/home/ann/store.db", "nfs4"),
        ("/home/ann/with blank/store.db", "tmpfs"),
        ("/home/bob/store.db", "cifs"),
        ("/proc/self", "proc"),
    ],
)
def test_the_longest_mount_above_a_file_counts_and_of_two_the_later(path: str, kind: str) -> None:
    assert kind_of(path, parsed(MOUNTINFO)) == kind


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "SMBFS", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "virtiofs", "fuse.sshfs", "fuse.rclone", "fuse.never-heard-of"]
)  # fmt: skip
def test_a_file_system_that_machines_share_is_one_of_a_network(kind: str) -> None:
    assert is_network(kind)


@pytest.mark.parametrize(
    "kind",
    ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "ntfs", "NTFS", "fuseblk", "fuse.fuse-overlayfs"],
)
def test_a_file_system_of_this_machine_is_none(kind: str) -> None:
    assert not is_network(kind)


@given(st.text(), st.text())
def test_no_list_of_mounts_whatever_is_an_error(mountinfo: str, path: str) -> None:
    kind_of(f"/{path}", parsed(mountinfo))


@given(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1))
def test_any_name_of_a_folder_is_found_as_the_system_writes_it(name: str) -> None:
    escaped = "".join(f"\\{ord(sign):03o}" if sign in " \t\n\\" else sign for sign in name)
    assert parsed(f"1 2 0:1 / /{escaped} rw - nfs a b\n") == [Mount(f"/{name}", "nfs")]


def test_files_here_and_yet_to_be_made_are_on_the_file_system_that_is_there(tmp_path: Path) -> None:
    assert (
        on_network(tmp_path)
        == on_network(tmp_path / "new" / "store.db")
        == is_network(kind_of(str(tmp_path), mounts()))
    )


MOUNTING = """
import subprocess, sys
from llm_jupyter.mounts import kind_of, mounts
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", sys.argv[1]], check=True)
print(kind_of(sys.argv[1] + "/store.db", mounts()))
"""


def test_a_real_mount_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "with blank"
    folder.mkdir()
    process = in_namespaces(MOUNTING, str(folder), kinds=["--mount"])
    assert process.communicate(timeout=60)[0] == "tmpfs\n"
    assert kind_of(str(folder), mounts()) != "tmpfs" or kind_of(str(tmp_path), mounts()) == "tmpfs"
