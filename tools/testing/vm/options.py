# SPDX-License-Identifier: GPL-2.0
"""The command line of vm/run."""

import argparse
import shlex

DESCRIPTION = """\
Boots a guest in QEMU, runs COMMAND in it as root, and exits with its status. COMMAND's output
and errors come out here as they are made; the kernel's log goes to --log.
"""

EPILOG = """\
devices:
  A device which names no bus of its own sits on pcie.0 at slot 3, the next one at 4, and so on:
  the first is 0000:00:03.0, whichever the IOMMU. The string is what QEMU's -device takes.

modules:
  Ours are taken from build/KERNEL and put under updates/ as `make modules_install` does, beside the
  kernel's own; depmod's order then decides, as on a real machine. vfio, vfio_iommu_type1 and
  vfio-pci are loaded (unless --stack none), then those of --load. Without interrupt remapping
  (--iommu amd and virtio) vfio_iommu_type1 gets allow_unsafe_interrupts=1.

files:
  Paths are those of the host below the project, the cache, /tmp and the current folder, and those of
  the build root below /usr, /etc and so on; any other file of the host is found too, to be read.

clients:
  With --clients the guest has other people's programs that use VFIO, as Debian ships them: dpdk-testpmd,
  qemu-system-x86_64, mdevctl and strace. `clients PROGRAM...` runs one of them. It sees its own root, which
  can't be written to, with the guest's /dev, /proc, /sys, /tmp and /run, and all of the guest below /guest.

hot-plug:
  With --qmp the guest's /dev/qmp is a QMP monitor of the machine it runs in: COMMAND can add and
  remove devices (device_add, device_del). It is one session for as long as the guest runs, and one
  process at a time can have it open. Ports that can be plugged into are to be given by --device.

exit status:
  that of COMMAND, but
    2  this program was asked for what can't be done, or the guest could not be set up
    3  the guest's kernel reported a defect (oops, WARN, KASAN, lockdep, UBSAN, kmemleak, stall),
       whatever COMMAND said, or died; the report is printed
  124  the time was up and the guest was killed

example:
  tools/testing/vm/run --device edu --bind 0000:00:03.0 -- sh -c 'ls /dev/vfio; lsmod'
"""

# Where a guest has the clients root.
CLIENTS = "/clients"


def parse(argv):
    """Returns the options; ends the program with status 2 on a bad command line."""
    parser = argparse.ArgumentParser(
        prog="tools/testing/vm/run",
        usage="tools/testing/vm/run [options] -- COMMAND [ARG...]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    rust_or_c = ("rust", "c")
    add("--kernel", choices=("stock", "test", "debug"), default="stock", help="default: stock")
    add("--stack", choices=("rust", "c", "none"), default="rust",
        help="whose VFIO modules are loaded: ours (default), the kernel's, none")
    add("--core", choices=rust_or_c, help="whose vfio.ko, if it differs from --stack")
    add("--type1", choices=rust_or_c, help="whose vfio_iommu_type1.ko")
    add("--mdev", choices=rust_or_c, help="whose mdev.ko; it is then loaded too")
    add("--iommu", choices=("intel", "amd", "virtio", "none"), default="intel", help="default: intel")
    add("--smp", type=int, default=None, metavar="N", help="processors (default: 2)")
    add("--mem", default="2G", metavar="SIZE", help="memory (default: 2G)")
    add("--icount", action="store_true",
        help="deterministic: one processor, and a guest nanosecond is one instruction")
    add("--device", action="append", default=[], metavar="QEMU-STRING", help="a device; repeatable")
    add("--qemu-arg", action="append", default=[], metavar="ARG",
        help="an argument for QEMU; repeatable; with a leading dash: --qemu-arg=-drive")
    add("--bind", action="append", default=[], metavar="BDF",
        help="bind this PCI device to vfio-pci, and wait for its group; repeatable")
    add("--load", action="append", default=[], metavar="'MODULE [PARAM=V...]'",
        help="load a module, by name or by the path of a .ko file; repeatable")
    add("--copy", action="append", default=[], metavar="SRC[:DST]",
        help="copy a file or folder into the guest; an ELF file brings its shared libraries; "
             "repeatable; DST is /usr/bin/NAME for an executable file, else /root/NAME")
    add("--share", action="append", default=[], metavar="HOSTDIR:GUESTDIR",
        help="mount a folder in the guest, read-only; repeatable")
    add("--clients", action="store_true", help="have DPDK, QEMU, mdevctl and strace in the guest")
    add("--tcg", action="store_true",
        help="emulate the processor, QEMU's largest one of AMD's, even where KVM works")
    add("--qmp", action="store_true", help="COMMAND drives its own machine through /dev/qmp")
    add("--append", action="append", default=[], metavar="CMDLINE", help="more for the kernel's command line")
    add("--timeout", type=float, default=600, metavar="S", help="seconds until the guest is killed (default: 600)")
    add("--log", metavar="FILE", help="write the kernel's log to FILE")
    add("--clients-root", help=argparse.SUPPRESS)
    add("--image", required=True, help=argparse.SUPPRESS)
    add("--modules", required=True, help=argparse.SUPPRESS)
    add("command", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(join_dashed(argv))

    if not options.command:
        parser.error("there is no COMMAND: put it after --")
    if options.icount and options.smp not in (None, 1):
        parser.error("--icount has one processor; leave out --smp")
    options.smp = 1 if options.icount else options.smp or 2
    options.core = options.core or mine(options.stack)
    options.type1 = options.type1 or mine(options.stack)
    options.load = [shlex.split(load) for load in options.load]
    if not all(options.load):
        parser.error("--load: which module?")
    if options.clients:
        options.share.append(f"{options.clients_root}:{CLIENTS}")
    for share in options.share:
        if ":/" not in share:
            parser.error(f"--share {share}: it is HOSTDIR:GUESTDIR")
    return options


def mine(stack):
    """Without a stack nothing is loaded, but a module that is asked for by name is ours."""
    return "c" if stack == "c" else "rust"


def join_dashed(argv):
    """argparse takes `--qemu-arg -drive` for two options; it means one."""
    joined = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return joined + [word, *words]
        if word in ("--qemu-arg", "--append"):
            word += "=" + next(words, "")
        joined.append(word)
    return joined
