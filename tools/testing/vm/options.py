# SPDX-License-Identifier: GPL-2.0
"""The command line of vm/run."""

import argparse
import shlex

import qemu

DESCRIPTION = """\
Boots a guest in QEMU, runs COMMAND in it as root, and exits with its exit status. The standard
output and errors of COMMAND are passed on as they are written; the kernel's log is written to
--log.
"""

EPILOG = """\
devices:
  A PCI device without bus= and addr= gets a slot on pcie.0, on pci.0 with a kernel for powerpc: the
  first one slot 3, the next one slot 4, and so on. The first is 0000:00:03.0, whichever IOMMU the
  guest has. The string is the argument of QEMU's -device.

  With --iommu pamu, there is a second PCI bus, pci.1, with a LIODN of its own. The options of QEMU
  -global fsl-pamu.PROPERTY=VALUE change the PAMUs: see tools/testing/qemu/hw/ppc/fsl_pamu.c.

modules:
  Our modules are taken from build/KERNEL and put below updates/, as `make modules_install` does,
  beside the kernel's own; depmod's order selects between them, as on a real machine. vfio,
  vfio_iommu_type1 (if the kernel has it) and vfio-pci are loaded (unless --stack none), then those of
  --load. Without
  interrupt remapping (--iommu amd and virtio), vfio_iommu_type1 is loaded with
  allow_unsafe_interrupts=1.

files:
  Paths below the project, the cache, /tmp and the current folder are those of the host. Paths below
  /usr, /etc and so on are those of the build root. Any other file of the host can be read, but not
  written.

clients:
  With --clients, the guest has VFIO clients of Debian: dpdk-testpmd, qemu-system-x86_64, virsh,
  mdevctl and strace. `clients PROGRAM...` runs one of them in its own root, which is read-only, with the
  guest's /dev, /proc, /sys, /tmp and /run, and the guest's root below /guest.

hot-plug:
  With --qmp, /dev/qmp in the guest is a QMP monitor of its own machine: COMMAND can add and remove
  devices (device_add, device_del). There is one QMP session while the guest runs, and only one
  process at a time can open it. Add ports for hot-plug with --device.

exit status:
  that of COMMAND, except
    2  the request cannot be fulfilled, or the guest could not be set up
    3  the guest's kernel died or reported a defect (oops, WARN, KASAN, lockdep, UBSAN, kmemleak,
       stall), whatever the exit status of COMMAND; the report is printed
  124  the guest was killed after the timeout

example:
  tools/testing/vm/run --device edu --bind 0000:00:03.0 -- sh -c 'ls /dev/vfio; lsmod'
"""

# The path of the clients root in a guest.
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
    add("--kernel", default="stock",
        help="stock (default) or another kernel that `tools/testing/buildroot --help` lists")
    add("--stack", choices=("rust", "c", "none"), default="rust",
        help="VFIO modules to load: rust (default), c (the kernel's), none")
    add("--core", choices=rust_or_c, help="vfio.ko to load (default: as --stack)")
    add("--type1", choices=rust_or_c, help="vfio_iommu_type1.ko to load (default: as --stack)")
    add("--mdev", choices=rust_or_c, help="mdev.ko to load (default: none is loaded)")
    add("--iommu", choices=("intel", "amd", "smmu", qemu.INCOHERENT, "virtio", "pamu", "none"),
        help=f"default: intel; smmu, that is SMMUv3, with a kernel for arm64; {qemu.INCOHERENT} is one that "
             "is not coherent with the caches; pamu with a kernel for powerpc")
    add("--smp", type=int, default=None, metavar="N", help="number of processors (default: 2)")
    add("--mem", default="2G", metavar="SIZE", help="size of the memory (default: 2G)")
    add("--icount", action="store_true",
        help="run deterministically: one processor, one instruction per guest nanosecond")
    add("--device", action="append", default=[], metavar="QEMU-STRING", help="add a device; can be repeated")
    add("--qemu-arg", action="append", default=[], metavar="ARG",
        help="add an argument for QEMU; can be repeated; with a leading dash: --qemu-arg=-drive")
    add("--bind", action="append", default=[], metavar="BDF",
        help="bind this PCI device to vfio-pci, and wait for the file of its group, or its own; can be repeated")
    add("--load", action="append", default=[], metavar="'MODULE [PARAM=V...]'",
        help="load a module, given by its name or by the path of a .ko file; can be repeated")
    add("--copy", action="append", default=[], metavar="SRC[:DST]",
        help="copy a file or folder into the guest, with the shared libraries of ELF files; "
             "can be repeated; DST defaults to /usr/bin/NAME for programs, else to /root/NAME")
    add("--share", action="append", default=[], metavar="HOSTDIR:GUESTDIR",
        help="mount a folder of the host in the guest, read-only; can be repeated")
    add("--clients", action="store_true", help="have DPDK, QEMU, libvirt, mdevctl and strace in the guest")
    add("--tcg", action="store_true",
        help="emulate the processor (QEMU's max, an AMD processor), even if KVM works")
    add("--qmp", action="store_true", help="make /dev/qmp a QMP monitor of the guest's machine")
    add("--append", action="append", default=[], metavar="CMDLINE", help="more for the kernel's command line")
    add("--timeout", type=float, default=600, metavar="S", help="seconds until the guest is killed (default: 600)")
    add("--known", action="append", default=[], metavar="TEXT",
        help="count no report of the kernel as a defect that has TEXT in its first line; can be repeated")
    add("--log", metavar="FILE", help="write the kernel's log to FILE")
    add("--clients-root", help=argparse.SUPPRESS)
    add("--arch", required=True, help=argparse.SUPPRESS)
    add("--image", required=True, help=argparse.SUPPRESS)
    add("--modules", required=True, help=argparse.SUPPRESS)
    add("command", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(join_dashed(argv))

    if not options.command:
        parser.error("there is no COMMAND: put it after --")
    if options.icount and options.smp not in (None, 1):
        parser.error("--icount has one processor; leave out --smp")
    machine = qemu.MACHINES[options.arch]
    options.iommu = options.iommu or machine.default_iommu
    if options.iommu not in machine.iommus:
        parser.error(f"--iommu {options.iommu}: with this kernel it is one of {', '.join(machine.iommus)}")
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
    """Returns the default of --core and --type1: with --stack none, modules of --load are ours."""
    return "c" if stack == "c" else "rust"


def join_dashed(argv):
    """Joins `--qemu-arg -drive` with `=`: argparse would take it for two options."""
    joined = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return joined + [word, *words]
        if word in ("--qemu-arg", "--append"):
            word += "=" + next(words, "")
        joined.append(word)
    return joined
