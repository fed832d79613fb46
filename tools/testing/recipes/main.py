# SPDX-License-Identifier: GPL-2.0
"""Runs the commands of the recipes in the documentation, as they are printed there."""

import argparse
import itertools
import pathlib
import subprocess
import sys

import page

REPO = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(REPO / "tools/testing/suite"))

from results import tell  # noqa: E402

PAGES = REPO / "Documentation/recipes"
FOLDER = REPO / "build/recipes"
HERE = REPO / "tools/testing/recipes"
EXAMPLES = "build/cargo/release/examples"

# What the guest must start before the commands of a page.
SERVICES = {"libvirt": "start_libvirt"}

# A line before the output of each block.
MARK = "=== block"


def ports(*devices):
    """Yields options that put each device behind its own root port, at 01:00.0, 02:00.0 ..."""
    for number, device in enumerate(devices, 1):
        yield from ("--device", f"pcie-root-port,id=port{number},chassis={number},bus=pcie.0,addr={3 + number}")
        yield from ("--device", f"{device},bus=port{number},mac=52:54:00:00:00:{number:02}")


# A controller on a network with a DHCP server.
NETWORK = ("--clients", "--mem", "1G", "--load", "e1000e",
           "--qemu-arg=-netdev", "--qemu-arg", "user,id=wire,restrict=on",
           *ports("e1000e,netdev=wire"))

# The machine on which the commands of a page for the guest run, as options of vm/run.
MACHINES = {
    "qemu": NETWORK,
    "dpdk": ("--clients", "--mem", "1G", "--load", "e1000e", "--load", "igb",
             *(word for wire in (0, 1)
               for word in ("--qemu-arg=-netdev", "--qemu-arg", f"hubport,hubid=0,id=wire{wire}")),
             *ports("igb,netdev=wire0", "e1000e,netdev=wire1")),
    "driver": (),
    "libvirt": NETWORK,
    "mdev": ("--mdev", "rust", "--copy", "build/counter/mdev_counter.ko", "--copy", f"{EXAMPLES}/counter"),
}


def run_on_host(recipe, blocks):
    """Runs blocks on the host, in one shell; returns their outputs and the exit status."""
    return run(recipe, "host", ["bash", "-c", script(blocks)])


def run_in_guest(recipe, blocks):
    """Runs blocks in a guest, in one shell; returns their outputs and the exit status."""
    commands = FOLDER / f"{recipe}.sh"
    commands.write_text(script(blocks))
    return run(recipe, "guest", [
        "tools/testing/vm/run", "--timeout", "1200", "--log", FOLDER / f"{recipe}.kernel.log", *MACHINES[recipe],
        "--copy", "build/cargo/release/vfioctl", "--copy", f"{HERE}/prepare.guest:/prepare",
        "--copy", f"{commands}:/commands", "--", "sh", "-c", f". /prepare; {SERVICES.get(recipe, ':')} && . /commands"])


def script(blocks):
    """Returns a script that runs blocks and ends with the first command that fails."""
    lines = ["exec 2>&1", "set -e"]
    for block in blocks:
        lines += [f"printf '\\n{MARK}\\n'", block.commands.rstrip()]
    return "\n".join([*lines, f"printf '\\n{MARK}\\n'", ""])


def run(recipe, where, command):
    """Runs a command that runs a script; returns the outputs of its blocks and the exit status."""
    done = subprocess.run(command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace")
    text = done.stdout.replace("\r", "").replace("\0", "")
    with open(FOLDER / f"{recipe}.{where}.log", "a") as log:
        log.write(text)
    # The last part is what follows the last mark of a script that came to its end.
    return text.split(f"\n{MARK}\n"), done.returncode


def judge(recipe, blocks, outputs, status):
    """Prints the results of blocks; returns whether all passed."""
    before, *printed = outputs
    good = []
    for number, block in enumerate(blocks):
        name = f"{recipe}: {block.name}"
        if number >= len(printed):
            good.append(tell(name, False, ["it did not run:", *before.splitlines()[-20:]]))
        elif number == len(printed) - 1:
            good.append(tell(name, False, [f"it ended with status {status}:", *printed[number].splitlines()[-40:]]))
        else:
            found = block.differences(printed[number])
            good.append(tell(name, not found, found))
    if status and all(good):
        good.append(tell(f"{recipe}: the machine ends", False, [f"status {status}", *printed[-1].splitlines()[-40:]]))
    return all(good)


def follow(recipe):
    """Runs the commands of a page; returns whether all passed."""
    good = []
    for where, group in itertools.groupby(page.blocks(source(recipe)), lambda block: block.where):
        blocks = [*group]
        runner = run_on_host if where == "host" else run_in_guest
        good.append(judge(recipe, blocks, *runner(recipe, blocks)))
        # What follows depends on it.
        if not good[-1]:
            break
    return all(good)


def pages():
    """Returns the names of all recipes."""
    return sorted(path.stem for path in PAGES.glob("*.rst") if path.stem != "index")


def source(recipe):
    """Returns the text of a page."""
    return (PAGES / f"{recipe}.rst").read_text()


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/recipes/run", description=__doc__)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--script", action="store_true")
    parser.add_argument("--skip", action="append", default=[], choices=[*MACHINES], metavar="RECIPE")
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    options = parser.parse_args()
    if options.list or options.script:
        for recipe in options.recipes or pages():
            found = page.blocks(source(recipe))
            if options.list:
                print(*(f"# {recipe}, {block.where}\n{block.commands}" for block in found), sep="\n")
            else:
                print(script([block for block in found if block.where == "guest"]))
        return 0
    recipes = options.recipes or [recipe for recipe in MACHINES if recipe not in options.skip]
    if unknown := {*recipes} - {*MACHINES}:
        parser.error(f"these are not run here: {', '.join(unknown)}; there are {', '.join(MACHINES)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        for old in FOLDER.glob(f"{recipe}.*"):
            old.unlink()
    passed = [follow(recipe) for recipe in recipes]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
