// SPDX-License-Identifier: GPL-2.0

//! Makes copies of the address space with one fault each, which the models have to find.

use std::{
    env,
    fmt::Write,
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

/// The backend's source.
const SOURCE: &str = "../../../vfio_iommu_type1";

/// What a fault may be in, and what its copy needs: a file or all files in a folder.
const COPIED: &[(&str, &str)] = &[
    (SOURCE, "space.rs"),
    (SOURCE, "space"),
    ("src", "check.rs"),
    ("src", "scenarios.rs"),
    ("src", "type1.rs"),
    ("src", "type1"),
];

/// A fault.
struct Mutant {
    name: &'static str,
    /// What is replaced, by what, in which file. It is there once.
    changes: &'static [(&'static str, &'static str, &'static str)],
    /// The scenario that finds it.
    scenario: &'static str,
    /// What that says.
    message: &'static str,
}

const MUTANTS: &[Mutant] = &[
    // The queue.
    Mutant {
        name: "nobody_waits",
        changes: &[("space/queue.rs", "other.conflicts(own)", "false && other.conflicts(own)")],
        scenario: "others_go_alone",
        message: "two hold the same addresses",
    },
    Mutant {
        name: "only_the_first_request_is_waited_for",
        changes: &[("space/queue.rs", "earlier.iter_mut().rev()", "earlier.iter_mut().take(0)")],
        scenario: "nobody_overtakes",
        message: "a request was overtaken",
    },
    Mutant {
        name: "later_requests_are_the_first",
        changes: &[("space/queue.rs", "self.first.is_none() && self.later.is_empty()", "self.first.is_none()")],
        scenario: "nobody_overtakes",
        message: "a request was overtaken",
    },
    Mutant {
        name: "nobody_is_told_to_wake_others",
        changes: &[("space/queue.rs", "blocker.awaited = true;", "")],
        scenario: "others_go_alone",
        message: "deadlock",
    },
    Mutant {
        name: "nobody_wakes_those_without_memory",
        changes: &[("space/queue.rs", "earliest.awaited = true;", "")],
        scenario: "without_memory",
        message: "deadlock",
    },
    Mutant {
        name: "sharers_share_with_anybody",
        changes: &[(
            "space/queue.rs",
            "self.mode == Mode::Exclusive || other.mode",
            "self.mode == Mode::Exclusive && other.mode",
        )],
        scenario: "readers_and_unmap",
        message: "two threads at address",
    },
    Mutant {
        name: "ranges_do_not_matter",
        changes: &[("space/queue.rs", "self.range.overlaps(other.range)", "true")],
        scenario: "disjoint_requests_go_together",
        message: "disjoint requests wait for each other",
    },
    // The lock.
    Mutant {
        name: "one_is_woken",
        changes: &[("space.rs", "self.waiting.wake(", "self.waiting.wake_one(")],
        scenario: "unmap_all_and_others_in_their_own_ranges",
        message: "deadlock",
    },
    Mutant {
        name: "the_turn_is_looked_at_once",
        changes: &[(
            "space.rs",
            "while let Some(blocker) = inner.queue.blocker_of(ticket)",
            "if let Some(blocker) = inner.queue.blocker_of(ticket)",
        )],
        scenario: "chain",
        message: "not what comes of one after another",
    },
    Mutant {
        name: "sharers_are_alone",
        changes: &[("space.rs", "Mode::Shared", "Mode::Exclusive")],
        scenario: "sharers_go_together",
        message: "sharers wait for each other",
    },
    Mutant {
        name: "requests_that_fail_stay",
        changes: &[("space.rs", "self.leave(inner, ticket, removed);", "drop((inner, removed));")],
        scenario: "maps_at_the_limit",
        message: "requests are left in the queue",
    },
    Mutant {
        name: "killed_requests_stay",
        changes: &[(
            "space.rs",
            "self.leave(again, ticket, Removed::default());",
            "drop(again);",
        )],
        scenario: "a_killed_request_leaves",
        message: "deadlock",
    },
    Mutant {
        name: "what_is_gone_counts",
        changes: &[("space.rs", "inner.dmas.uncount(removed);", "")],
        scenario: "readers_and_unmap",
        message: "mappings are left",
    },
    Mutant {
        name: "larger_mappings_are_overlooked",
        changes: &[(
            "space.rs",
            "if held.range.contains(held.dmas.whole(range))",
            "if true",
        )],
        scenario: "pin_in_a_mapping_that_grows",
        message: "a mapping is locked in part",
    },
    Mutant {
        name: "larger_mappings_are_not_locked",
        changes: &[(
            "space.rs",
            "|_| Range::ALL,\n",
            "|_| range,\n",
        )],
        scenario: "pin_in_a_mapping_that_grows",
        message: "a mapping is locked in part",
    },
    // The requests, as they were or might be.
    Mutant {
        name: "emulated_devices_are_looked_for_too_early",
        changes: &[
            (
                "type1/unmap.rs",
                "let locked = if",
                "if ask.vaddr && self.space.look().layout().emulated { return Err(EBUSY); }\nlet locked = if",
            ),
            ("type1/unmap.rs", "if ask.vaddr && held.layout.emulated", "if false"),
        ],
        scenario: "invalidate_and_attach_emulated",
        message: "not what comes of one after another",
    },
    Mutant {
        name: "drivers_are_asked_with_addresses_locked",
        changes: &[("type1/unmap.rs", "drop(guard);", "self.notify_dma_unmap(dma);\ndrop(guard);")],
        scenario: "unmap_pin_and_attach",
        message: "deadlock",
    },
    Mutant {
        name: "a_failed_map_is_forgotten_too_late",
        changes: &[(
            "space/guard.rs",
            "drop(dma);\n        drop(guard);",
            "drop(guard);\n        drop(dma);",
        )],
        scenario: "maps_at_the_limit",
        message: "two threads at address",
    },
    Mutant {
        name: "what_is_unmapped_is_forgotten_too_late",
        changes: &[
            ("type1/unmap.rs", "drop(first);", ""),
            (
                "type1/unmap.rs",
                "dirty.unwrap_or(found.size)",
                "drop(guard);\ndrop(first);\ndirty.unwrap_or(found.size)",
            ),
        ],
        scenario: "unmap_all_twice_and_map",
        message: "two threads at address",
    },
];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(CONFIG_KUNIT, MODULE)");
    println!("cargo::rustc-cfg=CONFIG_KUNIT");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut modules = String::new();
    for mutant in MUTANTS {
        let folder = out.join(mutant.name);
        let test = match mutant.make(&folder) {
            Ok(()) => format!(
                "crate::mutants::must_fail(module_path!(), {:?}, scenarios::{})",
                mutant.message, mutant.scenario
            ),
            Err(missing) => format!("panic!({missing:?})"),
        };
        write!(
            modules,
            "#[path = {folder:?}]\n\
             mod {} {{ pub(crate) mod space; mod check; mod scenarios; mod type1;\n\
             #[test] fn is_found() {{ {test}; }} }}\n",
            mutant.name
        )
        .expect("there is memory");
    }
    fs::write(out.join("mutants.rs"), modules).expect("can't write");
}

impl Mutant {
    /// Copies everything to `to`, and makes the changes.
    fn make(&self, to: &Path) -> Result<(), String> {
        let mut left = self.changes.to_vec();
        let mut change = |name: &str, mut text: String| {
            left.retain(|(file, from, by)| {
                let here = *file == name && text.matches(from).count() == 1;
                if here {
                    text = text.replacen(from, by, 1);
                }
                !here
            });
            // The source's own tests are for the source.
            let text = text.replace("cfg(CONFIG_KUNIT)", "cfg(any())");
            let path = to.join(name);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("no folder");
            fs::write(path, text).expect("can't write");
        };
        for (folder, name) in COPIED {
            let path = Path::new(folder).join(name);
            println!("cargo::rerun-if-changed={}", path.display());
            if path.is_file() {
                change(name, read(&path));
                continue;
            }
            for entry in fs::read_dir(&path).expect("no such folder") {
                let path = entry.expect("can't list the folder").path();
                let file = path.file_name().expect("it has a name").to_string_lossy();
                change(&format!("{name}/{file}"), read(&path));
            }
        }
        match left.first() {
            Some((file, from, _)) => Err(format!("not once in {file}, adapt build.rs: {from}")),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("can't read the source")
}
