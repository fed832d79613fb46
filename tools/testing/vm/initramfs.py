# SPDX-License-Identifier: GPL-2.0
"""Makes the guest's initramfs: busybox, kmod, the modules, and the files that the user copies."""

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

from report import Unusable

HERE = Path(__file__).resolve().parent
MERGED = ("bin", "sbin", "lib", "lib64")
FOLDERS = ("dev", "etc", "proc", "sys", "run", "tmp", "root", "var", "vm", "mnt")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
# For another architecture than the host's, the file system that has the guest's programs and
# libraries. Its libraries are in the folder LIBRARIES.
GUEST = os.environ.get("BUILDROOT_GUEST", "")
LIBRARIES = "/usr/lib/aarch64-linux-gnu"
KMOD = ("modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod")
# The list of its programs, where busybox can't tell because it is for another architecture and of
# another version than the build root's.
APPLETS = Path(f"{GUEST}/usr/share/busybox.links")


class Archive:
    """Writes a cpio archive in the format that the kernel unpacks."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.names = set()

    def add(self, name, mode, content=b""):
        """Adds a file, folder or link (whose content is its target), and its parent folders."""
        name = merged(name)
        if name in self.names or not name:
            return
        self.add(os.path.dirname(name), stat.S_IFDIR | 0o755)
        self.names.add(name)
        self.entry(name, mode, content)

    def entry(self, name, mode, content):
        encoded = name.encode() + b"\0"
        fields = (len(self.names), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        for part in (head, content):
            self.file.write(part + b"\0" * (-len(part) % 4))

    def text(self, name, text, mode=0o644):
        self.add(name, stat.S_IFREG | mode, text.encode())

    def link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def copy(self, source, name):
        """Adds a file with its shared libraries, a link, or a folder with its contents."""
        mode = os.lstat(source).st_mode
        if stat.S_ISLNK(mode):
            self.link(name, os.readlink(source))
        elif stat.S_ISDIR(mode):
            self.add(name, mode)
            for below in sorted(os.listdir(source)):
                self.copy(os.path.join(source, below), os.path.join(name, below))
        elif stat.S_ISREG(mode):
            self.add(name, mode, Path(source).read_bytes())
            self.libraries(source)

    def libraries(self, program):
        """Adds the shared libraries of an ELF file, at the paths where it looks for them."""
        for library in shared_libraries(program):
            if merged(library) not in self.names:
                self.add(library, stat.S_IFREG | 0o755, Path(GUEST + library).read_bytes())
                self.libraries(GUEST + library)

    def close(self):
        self.names.add("TRAILER!!!")
        self.entry("TRAILER!!!", 0, b"")
        self.file.close()


def merged(name):
    """Returns a path without its leading slash; /bin and the like are mapped to below usr/."""
    name = os.path.normpath(name).strip("/.")
    first, slash, below = name.partition("/")
    return f"usr/{name}" if slash and below and first in MERGED else name


def shared_libraries(program):
    with open(program, "rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    return needed(program) if GUEST else loaded(program)


def loaded(program):
    """Returns the paths of the libraries that the host's linker finds."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True)
    missing = re.findall(r"(\S+) => not found", done.stdout)
    if missing:
        raise Unusable(f"{program} needs {', '.join(missing)}, which the build root does not have: "
                       f"build it in there, by tools/testing/buildroot exec")
    return re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, re.MULTILINE)


def needed(program):
    """Returns the linker and the libraries that a program for another architecture names."""
    done = subprocess.run(["readelf", "--wide", "--program-headers", "--dynamic", program],
                          capture_output=True, text=True, check=True)
    linker = re.findall(r"program interpreter: (/[^]]+)\]", done.stdout)
    found = [f"/usr{path}" for path in linker]
    for name in re.findall(r"\(NEEDED\).*\[([^]]+)\]", done.stdout):
        if name != os.path.basename(found[0] if found else ""):
            found.append(f"{LIBRARIES}/{name}")
    for path in found:
        if not os.path.exists(GUEST + path):
            raise Unusable(f"{program} needs {path}, which the guest does not have")
    return found


def make(path, modules, settings, command, copies):
    """Writes the archive PATH.

    MODULES is a folder with lib/modules. SETTINGS are the texts of files for the guest's init, by
    name. COPIES are pairs of a source and its path in the guest.
    """
    archive = Archive(path)
    for name in MERGED:
        archive.add(f"usr/{name}", stat.S_IFDIR | 0o755)
        archive.link(name, f"usr/{name}")
    for name in FOLDERS:
        archive.add(name, stat.S_IFDIR | (0o1777 if name == "tmp" else 0o755))
    # The kernel executes it before anything is mounted.
    archive.text("init", (HERE / "init").read_text(), 0o755)
    for name, text in FILES.items():
        archive.text(name, text)
    for name, text in settings.items():
        archive.text(f"vm/{name}", text)
    archive.text("vm/command", f"exec {shlex.join(command)}\n")
    for source, name in copies:
        archive.copy(source, name)
    add_programs(archive)
    archive.copy(os.path.join(modules, "lib/modules"), "lib/modules")
    if "modprobe.conf" in settings:
        archive.link("etc/modprobe.d/vm.conf", "/vm/modprobe.conf")
    archive.close()


def add_programs(archive):
    archive.copy(f"{GUEST}/usr/bin/busybox", "usr/bin/busybox")
    if APPLETS.exists():
        for path in APPLETS.read_text().split():
            archive.link(f"usr/bin/{os.path.basename(path)}", "busybox")
        # The kernel looks for it there.
        archive.link("usr/sbin/modprobe", "../bin/busybox")
        return
    # busybox's shell would run its own applets for modprobe and others, regardless of PATH.
    archive.copy(f"{GUEST}/usr/bin/dash", "usr/bin/sh")
    archive.copy(f"{GUEST}/usr/bin/kmod", "usr/bin/kmod")
    for name in KMOD:
        archive.link(f"usr/sbin/{name}", "../bin/kmod")
    # It is of the same version as the guest's.
    applets = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout
    for name in applets.split():
        if name not in KMOD and name != "busybox":
            archive.link(f"usr/bin/{name}", "busybox")
