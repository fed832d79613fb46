# SPDX-License-Identifier: GPL-2.0
"""Tests the packages on an installed Debian that runs."""

import argparse
import contextlib
import pathlib
import shlex
import shutil
import stat
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parents[3]
sys.path += [str(REPO / "tools/testing/suite"), str(REPO / "tools/testing/vm")]

import initramfs  # noqa: E402
import machine  # noqa: E402
from machine import Lost, Machine  # noqa: E402
from modules import Kernel  # noqa: E402
from results import tell  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = REPO / "build" / "installation"
BEGAN = time.monotonic()

MOUNT = "modprobe -a 9p 9pnet_virtio && mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000 share /mnt"
# For enrolling a key: the owner of the machine enters it twice.
PASSWORD = "enrolment"
DOWN = "\x1b[B"
# The small machine needs minutes of processor time, because the machine around it is emulated.
SMALL_SECONDS = 1800


def say(text):
    print(f"[{time.monotonic() - BEGAN:4.0f}s] {text}", flush=True)


class Test:
    """A part of the tests: a machine with a disk of its own, and the results."""

    def __init__(self, name, options, secure=False):
        self.name, self.passed = name, True
        self.folder = FOLDER / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.share = self.folder / "share"
        (self.share / "debs").mkdir(parents=True)
        for deb in (REPO / "build/deb").glob("*.deb"):
            shutil.copy(deb, self.share / "debs")
        shutil.copy(HERE / "guest", self.share)
        disk = self.folder / "disk"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", options.disk, disk], check=True)
        variables = "OVMF_VARS_4M.ms.fd" if secure else "OVMF_VARS_4M.fd"
        shutil.copy(f"{machine.FIRMWARE}/{variables}", self.folder / "variables")
        with open(self.folder / "other", "wb") as file:
            file.write(b"VFIO\n")
            file.truncate(16 << 20)
        self.machine = Machine(self.folder, disk, self.share, secure=secure)

    def boot(self):
        say(f"{self.name}: booting")
        self.machine.start()
        self.up()

    def up(self):
        """Waits until the machine takes commands, and shows it what the host shares."""
        self.machine.wait_until_up()
        status, output = self.machine.run(MOUNT)
        if status:
            raise Lost(f"the machine can't see the shared folder: {output}")
        say(f"{self.name}: it is up")

    def reboot(self):
        say(f"{self.name}: rebooting")
        self.machine.send("systemctl reboot")
        self.up()

    def part(self, name, seconds=machine.COMMAND_SECONDS, **environment):
        """Runs a part of the script in the machine, which prints its results."""
        say(f"{self.name}: {name}")
        words = "".join(f"{key}={shlex.quote(str(value))} " for key, value in environment.items())
        failed = []

        def show(line):
            print(line, flush=True)
            failed.extend([line] if line.startswith("not ok ") else [])

        status, _ = self.machine.run(f"{words}bash /mnt/guest {name}", show, seconds)
        if failed or status:
            self.passed = False
        if status and not failed:
            tell(f"{self.name}: {name}", False, [f"exit status {status}"])


def test_install(options):
    with running("install", options) as test:
        test.boot()
        test.part("before")
        test.part("install")
        test.reboot()
        test.part("installed")
        test.part("bind")
        test.part("upgrade")
        test.reboot()
        test.part("upgraded")
        test.part("remove")
        test.reboot()
        test.part("removed")


def enrol(console):
    """Does in the firmware's console what the owner of the machine does to enrol the imported key."""
    steps = (
        # It counts ten seconds down.
        (r"Press any key", " ", 2),
        (r"Enroll MOK", DOWN + "\r", 60),
        (r"View key 0", DOWN + "\r", 60),
        (r"Enroll the key", DOWN + "\r", 60),
        (r"Password:", PASSWORD + "\r", 60),
        (r"Reboot", "\r", 60),
    )
    for shown, keys, longest in steps:
        console.read_until(shown, machine.BOOT_SECONDS)
        say(f"secure-boot: the firmware shows {shown!r}")
        # It ignores keys that come before its menu is drawn.
        console.settle(2, longest)
        console.send(keys)


def test_secure_boot(options):
    with running("secure-boot", options, secure=True) as test:
        test.boot()
        test.part("secure_before")
        test.part("unsigned", PASSWORD=PASSWORD)
        say("secure-boot: rebooting, and enrolling the key")
        test.machine.console.forget()
        test.machine.send("systemctl reboot")
        enrol(test.machine.console)
        test.up()
        test.part("enrolled")
        test.reboot()
        test.part("trusted")


# Where the power is cut: the part that runs, the output that is waited for, the seconds from then, and words.
CUTS = (
    ("cut_install", r"^Unpacking vfio-rust-modules", 0, "cut off while unpacking"),
    ("cut_install", r"^Setting up vfio-rust-modules", 0, "cut off when setting up"),
    ("cut_install", r"^update-initramfs: Generating", 0, "cut off before the initramfs is made"),
    ("cut_install", r"^update-initramfs: Generating", 15, "cut off while the initramfs is made"),
    ("cut_install", r"^=== exit 0", 0, "cut off right after the installation"),
    ("cut_remove", r"^update-initramfs: Generating", 0, "cut off while being removed"),
)


def test_power_cut(options):
    with running("power-cut", options) as test:
        test.boot()
        for number, (part, shown, seconds, words) in enumerate(CUTS):
            say(f"power-cut: {words}")
            test.machine.send(f"bash /mnt/guest {part}")
            test.machine.agent.read_until(shown, machine.COMMAND_SECONDS)
            time.sleep(seconds)
            if "\n=== exit" in test.machine.agent.text:
                raise Lost(f"it came to its end before it was {words}")
            test.machine.cut_power()
            test.boot()
            test.part("after_cut", CUT=words)
            if CUTS[number + 1:] and CUTS[number + 1][0] == "cut_install":
                test.part("purge", CUT=words)


def test_libvirt(options):
    with running("libvirt", options) as test:
        for path, name in ((options.image, "kernel"), (REPO / "build/samples-stock-7.2/mtty.ko", "mtty.ko"),
                           (HERE / "small.xml", "small.xml")):
            shutil.copy(path, test.share / name)
        make_small_initramfs(test.share / "initramfs", options.modules)
        test.boot()
        test.part("libvirt")
        test.part("libvirt_used", SMALL_SECONDS + machine.COMMAND_SECONDS, SECONDS_LEFT=SMALL_SECONDS)


def make_small_initramfs(path, modules):
    """Makes the initramfs of the machine that libvirt starts."""
    kernel = Kernel(modules)
    archive = initramfs.Archive(path)
    # The shell's linker is in lib64.
    for name in initramfs.MERGED:
        archive.add(f"usr/{name}", stat.S_IFDIR | 0o755)
        archive.link(name, f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "tmp"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.text("init", (HERE / "small.init").read_text(), 0o755)
    initramfs.add_programs(archive)
    folder = f"lib/modules/{kernel.version}"
    for name in (*kernel.needs["nvme"], "nvme"):
        archive.add(f"{folder}/{kernel.path[name]}", stat.S_IFREG | 0o644, kernel.content(name))
    for name in ("modules.dep.bin", "modules.builtin.bin", "modules.order"):
        archive.copy(kernel.folder / name, f"{folder}/{name}")
    archive.close()


TESTS = {"install": test_install, "secure-boot": test_secure_boot, "power-cut": test_power_cut, "libvirt": test_libvirt}
failures = []


@contextlib.contextmanager
def running(name, options, **more):
    """Provides a test; afterwards its machine has ended, and what failed is told."""
    test = Test(name, options, **more)
    try:
        yield test
        test.machine.switch_off()
    except Lost as error:
        test.passed = tell(f"{name}: the machine answers", False, str(error).splitlines())
    finally:
        test.machine.cut_power()
        if not test.passed:
            failures.append(name)
        if not options.keep:
            for path in ("disk", "other", "variables"):
                (test.folder / path).unlink(missing_ok=True)
            shutil.rmtree(test.share, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/installation/run", description=__doc__)
    parser.add_argument("--disk", required=True)
    parser.add_argument("--image")
    parser.add_argument("--modules")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("parts", nargs="+", choices=TESTS, metavar="PART")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in options.parts:
        TESTS[name](options)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
