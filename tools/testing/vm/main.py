# SPDX-License-Identifier: GPL-2.0
"""Boots a guest and runs a command in it; options.py documents the behaviour."""

import os
import re
import signal
import sys
import tempfile

import initramfs
import kvm
import modules
import options as command_line
import qemu
import report
from report import Unusable

# With the others, vfio_iommu_type1 refuses devices unless it is told to accept unsafe interrupts.
REMAPPING = ("intel", "smmu", qemu.INCOHERENT, "pamu", "none")
EMULATOR_CRASH = re.compile(r"Assertion .* failed")
# The maximum number of attempts to start a guest.
STARTS = 3


def host_path(path):
    """Returns the path of a host file within the build root."""
    path = os.path.abspath(path)
    for there in (path, "/host" + path):
        if os.path.lexists(there):
            return there
    raise Unusable(f"there is no {path}")


def copies(options):
    """Yields pairs of a source and its path in the guest."""
    for copy in options.copy:
        source, _, target = copy.partition(":")
        source = host_path(source)
        if not target:
            program = os.path.isfile(source) and os.access(source, os.X_OK)
            target = os.path.join("/usr/bin" if program else "/root", os.path.basename(source))
        yield source, target


def settings(options, loads):
    """Returns the texts of the files that the guest's init reads, by name."""
    lines = {
        "shares": [f"share{number} {share.rpartition(':')[2]}" for number, share in enumerate(options.share)],
        "modules": [" ".join(load) for load in loads],
        "bind": options.bind,
        "qmp": [f"vm.{qemu.QMP}"] if options.qmp else [],
    }
    if options.iommu not in REMAPPING:
        lines["modprobe.conf"] = ["options vfio_iommu_type1 allow_unsafe_interrupts=1"]
    return {name: "".join(f"{line}\n" for line in text) for name, text in lines.items()}


def boot(options, folder):
    """Makes the guest and runs it; returns the outcome."""
    loads = modules.stage(options, os.path.join(folder, "modules"), host_path)
    archive = os.path.join(folder, "initramfs")
    initramfs.make(archive, os.path.join(folder, "modules"), settings(options, loads),
                   options.command, list(copies(options)))
    shares = [host_path(share.rpartition(":")[0]) for share in options.share]
    arguments = qemu.command_line(options, archive, shares, kvm.works(options, folder))
    if options.iommu == qemu.INCOHERENT:
        arguments = qemu.incoherent(arguments, folder)
    bus = qemu.MACHINES[options.arch].bus
    return until_booted(lambda: qemu.run(arguments, options.timeout, open_log(options.log), options.qmp, bus))


def until_booted(start):
    """Starts a guest, and starts it again if it hung or QEMU crashed before its first process.

    On a busy host, QEMU can hang or crash while the processors come up, long before a VFIO module
    is loaded. A guest whose kernel reported a defect is not started again.
    """
    for _ in range(STARTS - 1):
        outcome = start()
        lost = not outcome.booted and (outcome.timed_out or EMULATOR_CRASH.search(outcome.complaint))
        if not lost or report.defects(outcome.log):
            return outcome
        print(last_words(outcome.log), file=sys.stderr)
        say(f"the guest did not boot, once more: {outcome.complaint.strip() or 'it hung'}")
    return start()


def open_log(path):
    if not path:
        return None
    try:
        return open(path, "wb", buffering=0)
    except OSError as error:
        raise Unusable(f"--log {path}: {error.strerror}; the project, the cache, /tmp and the current "
                       f"folder can be written to") from error


def say(text):
    print(f"vm/run: {text}", file=sys.stderr, flush=True)


def verdict(options, outcome):
    """Returns the exit status. Prints the reason if it is not that of COMMAND."""
    found = report.defects(outcome.log, options.known)
    leaks = outcome.messages("leak")
    if leaks:
        found.append(["kmemleak:", *leaks])
    for lines in found:
        print("\n".join(lines), file=sys.stderr)
    if outcome.timed_out:
        print(last_words(outcome.log), file=sys.stderr)
        when = f"after {options.timeout:g} s" if outcome.booted else "which did not boot"
        say(f"killed the guest {when} (the end of the kernel's log is above)")
    if found:
        say(f"the guest's kernel reported {len(found)} defect(s), above")
        return 3
    if outcome.timed_out:
        return 124
    for error in outcome.messages("error"):
        print(last_words(outcome.log), file=sys.stderr)
        say(f"{error} (the end of the kernel's log is above)")
        return 2
    status = outcome.messages("exit")
    if status:
        return int(status[0])
    if not outcome.log:
        say(f"QEMU did not start the guest: {outcome.complaint.strip()}")
        return 2
    print(last_words(outcome.log), file=sys.stderr)
    say(f"the guest ended without a status (the end of the kernel's log is above) {outcome.complaint.strip()}")
    return 3


def last_words(log):
    """Returns the end of the kernel's log, without the messages of the power-off."""
    lines = [line for line in log.splitlines() if not re.search(r"ACPI: PM: Prep|reboot: Power down", line)]
    return "\n".join(lines[-15:])


def main():
    options = command_line.parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # The folder is in the build root's own tmpfs, and goes away with it.
        with tempfile.TemporaryDirectory(dir="/run") as folder:
            return verdict(options, boot(options, folder))
    except Unusable as error:
        say(error)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
