# SPDX-License-Identifier: GPL-2.0
"""Runs sequences of requests in a guest, and says what came of them."""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[2]
sys.path.extend(str(REPO / "tools/testing" / folder) for folder in ("differential", "linear", "suite"))

import functions  # noqa: E402
import guests  # noqa: E402
import machine  # noqa: E402
from results import tell  # noqa: E402

FOLDER = REPO / "build" / "fuzz"
PROGRAM = REPO / "build/cargo/release/guest-fuzz"
PORT = "fuzz.events"
# How many defects are told.
MOST = 5


class Events(threading.Thread):
    """What the guest tells while it runs; see main.rs."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path = path
        self.running = None
        self.kept, self.found = [], []
        self.runs = 0
        self.reached = {}

    def run(self):
        with open(self.path, encoding="ascii", errors="replace") as lines:
            for line in lines:
                # A kernel that died may have told half a line.
                if line.endswith("\n"):
                    self.learn(*line.rstrip("\n").split(" ", 2))

    def learn(self, kind, first, rest=""):
        match kind:
            case "run":
                self.running = first
            case "keep":
                self.kept.append(first)
            case "found":
                self.found.append((first, rest))
            case "runs":
                self.runs = int(first)
            case "reached":
                function, points = rest.split()
                self.reached.setdefault(first, {})[function] = int(points)


def corpus_of(options):
    """The corpus: bytes mean other requests for device files."""
    return HERE / ("corpus.device-files" if options.device_files else "corpus")


def found_by(options):
    """What searches have found since."""
    return FOLDER / corpus_of(options).name


def guest(options, command, seconds, copies=(), events=None):
    """Runs the program in a guest; returns its status."""
    words = [REPO / "tools/testing/vm/run", "--kernel", options.kernel, "--stack", options.stack]
    words += ["--log", FOLDER / "kernel.log", "--timeout", seconds]
    with machine.disk() as disk:
        if options.device_files:
            words += guests.device_files(options.kernel)
        else:
            words += machine.options(options.kernel, disk.name)
        if events:
            words += ["--qemu-arg=-chardev", "--qemu-arg", f"file,id=events,path={events.path}"]
            words += ["--device", "virtio-serial-pci,id=fuzz,bus=pcie.0,addr=6.0"]
            words += ["--device", f"virtserialport,bus=fuzz.0,chardev=events,name={PORT}"]
        for path in (PROGRAM, *copies):
            words += ["--copy", path]
        words += [*options.vm, "--", "guest-fuzz", *(["--c"] if options.stack == "c" else [])]
        words += [*(["--device-files"] if options.device_files else []), *command]
        if not events:
            return subprocess.run([*map(str, words)], cwd=REPO).returncode
        events.start()
        status = subprocess.run([*map(str, words)], cwd=REPO).returncode
        # QEMU's end may have been killed before it opened the pipe.
        os.close(os.open(events.path, os.O_RDWR | os.O_NONBLOCK))
        events.join(10)
        return status


def with_events(options, command, seconds, copies=()):
    """The same for a program that tells what happens; returns that, too."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = pathlib.Path(folder) / "events"
        os.mkfifo(path)
        events = Events(path)
        status = guest(options, [*command, "--events", PORT], seconds, copies, events)
    return events, status


def read(path):
    """The sequences of a file."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def all_known(options):
    """The corpus with what searches have found since, in a file."""
    path = FOLDER / "known"
    lines = [*read(corpus_of(options)), *read(found_by(options))]
    path.write_text("".join(f"{line}\n" for line in dict.fromkeys(lines)))
    return path


def again(options, name, sequence):
    """Keeps a sequence in a file; returns how to run it once more."""
    path = FOLDER / name
    path.write_text(f"{sequence}\n")
    words = "" if options.stack == "rust" else f" --stack {options.stack}"
    words += " --device-files" if options.device_files else ""
    return f"    tools/testing/fuzz/run --kernel {options.kernel}{words} --show {path.relative_to(REPO)}"


def search(options):
    seed = options.seed if options.seed is not None else int(time.time())
    seconds = round(options.minutes * 60)
    count = len(read(corpus_of(options)))
    print(f"seed {seed}, {options.minutes:g} minutes, {count} sequences to begin with", flush=True)
    command = ["search", "/root/known", "--seconds", seconds, "--seed", seed]
    known = all_known(options)
    events, status = with_events(options, command, seconds + 900, [known])
    with found_by(options).open("a") as file:
        file.writelines(f"{line}\n" for line in events.kept if line not in read(known))
    found = [line for number, (sequence, words) in enumerate(events.found[:MOST], 1)
             for line in (words, again(options, f"found.{number}", sequence))]
    ended = ["it ended in", again(options, "last", events.running)] if events.running else []
    print(functions.report(REPO / "build" / options.kernel, events.reached))
    return all([
        tell(f"{events.runs} sequences were run to their ends", status == 0 and events.runs > 0, ended),
        tell("no answer was unexpected, and the kernel reported no defect", not events.found, found),
    ])


def minimize(options):
    known = all_known(options)
    count = len(read(known))
    events, status = with_events(options, ["minimize", "/root/known"], 600 + 5 * count, [known])
    if not tell(f"{count} sequences were run", status == 0):
        return False
    corpus = corpus_of(options)
    head = [line for line in corpus.read_text().splitlines() if line.startswith("#")] if corpus.exists() else []
    corpus.write_text("".join(f"{line}\n" for line in [*head, *events.kept]))
    found_by(options).unlink(missing_ok=True)
    print(functions.report(REPO / "build" / options.kernel, events.reached))
    print(f"{len(events.kept)} of them are the corpus now")
    return True


def replay(options):
    corpus = corpus_of(options)
    count = len(read(corpus))
    status = guest(options, ["replay", f"/root/{corpus.name}"], 600 + 5 * count, [corpus])
    return tell("all sequences of the corpus get the answers that the model expects", status == 0 and count > 0,
                [f"status {status}, {count} sequences"])


def show(options):
    path = FOLDER / "shown"
    path.write_text(pathlib.Path(options.input).read_text())
    return guest(options, ["show", "/root/shown"], 600, [path]) == 0


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/fuzz/run", description=__doc__)
    parser.add_argument("work", choices=("search", "minimize", "replay", "show"))
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--stack", choices=("c", "rust"), default="rust")
    parser.add_argument("--device-files", action="store_true")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--input")
    parser.add_argument("vm", nargs="*")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    return 0 if globals()[options.work](options) else 1


if __name__ == "__main__":
    sys.exit(main())
