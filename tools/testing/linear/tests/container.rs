// SPDX-License-Identifier: GPL-2.0

//! Handwritten histories: which of them a container can explain.

#![allow(missing_docs, reason = "a test")]

use linear::{
    checker::{
        Verdict,
        check, //
    },
    defects::Rules,
    history::Entry,
    model::{
        Container,
        Machine,
        State, //
    },
    op::{
        Answer,
        Bitmap,
        Call,
        Group,
        Op,
        PAGE,
        dirty,
        map,
        unmap, //
    },
    shrink::shrink,
};
use vfio_client::Errno;

const MEMORY: u64 = 64 << 30;
const HALF: u64 = 1 << 63;

fn container(rules: Rules) -> Container {
    Container {
        machine: Machine {
            ranges: vec![(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)],
            page_sizes: 0x4020_1000,
            coherent: 1,
            memory: (MEMORY, MEMORY + 16 * PAGE),
            limits: [None, Some(4)],
        },
        rules,
    }
}

/// A history under construction.
struct History {
    entries: Vec<Entry>,
    time: u64,
}

impl History {
    /// Starts with a container of version 2 that has a group without an IOMMU, whose device is
    /// open.
    fn emulated() -> Self {
        Self::with(&[Op::Join(Group::Emulated), version(3), Op::Open])
    }

    fn physical() -> Self {
        Self::with(&[Op::Join(Group::Physical), version(3)])
    }

    fn with(ops: &[Op]) -> Self {
        let mut history = Self {
            entries: Vec::new(),
            time: 0,
        };
        for op in ops {
            history = history.then(*op, ok(&[]));
        }
        history
    }

    /// Appends a request after all others.
    fn then(self, op: Op, answer: Answer) -> Self {
        self.at_once(&[(op, answer)])
    }

    /// Appends concurrent requests after all others.
    fn at_once(mut self, requests: &[(Op, Answer)]) -> Self {
        let end = self.time + 2 * requests.len() as u64;
        for (nth, (op, answer)) in requests.iter().enumerate() {
            let call = Call {
                process: 0,
                thread: nth as u8,
                op: *op,
            };
            let nth = nth as u64;
            let entry = Entry::new(call, self.time + nth, end - nth, answer.clone());
            self.entries.push(entry);
        }
        self.time = end + 1;
        self
    }

    fn by_the_other_process(mut self) -> Self {
        if let Some(entry) = self.entries.last_mut() {
            entry.call.process = 1;
        }
        self
    }

    fn verdict(&self, rules: Rules) -> Verdict {
        check(&container(rules), &State::default(), &self.entries, 100_000)
    }

    #[track_caller]
    fn is_fine(&self, rules: Rules) {
        let verdict = self.verdict(rules);
        assert!(matches!(verdict, Verdict::Linearizable(_)), "{verdict:?}");
    }

    #[track_caller]
    fn is_wrong(&self, rules: Rules) {
        assert!(self.verdict(rules).is_violation());
    }
}

fn version(version: u32) -> Op {
    Op::SetIommu {
        version,
        limit: 65535,
    }
}

fn ok(numbers: &[u64]) -> Answer {
    Ok(numbers.to_vec())
}

fn map_pages(page: u64, count: u64) -> Op {
    map_at(page * PAGE, MEMORY, count * PAGE, map::READ | map::WRITE)
}

fn map_at(iova: u64, vaddr: u64, size: u64, flags: u32) -> Op {
    Op::Map {
        flags,
        vaddr,
        iova,
        size,
    }
}

fn unmap_pages(page: u64, count: u64) -> Op {
    Op::Unmap {
        flags: 0,
        iova: page * PAGE,
        size: count * PAGE,
        bitmap: None,
    }
}

fn unmap_flags(flags: u32) -> Op {
    Op::Unmap {
        flags,
        iova: 0,
        size: 0,
        bitmap: None,
    }
}

fn pin(page: u64) -> Op {
    Op::Pin {
        iova: page * PAGE,
        count: 1,
        prot: 1,
    }
}

fn report(page: u64, count: u64) -> Op {
    Op::Dirty {
        iova: page * PAGE,
        size: count * PAGE,
        bitmap: Bitmap::clear(PAGE, 8),
    }
}

fn info(avail: u64) -> (Op, Answer) {
    (Op::Info, ok(&[avail, !(PAGE - 1)]))
}

#[test]
fn one_of_two_maps_of_a_page_fails() {
    let exists = Err(Errno::EEXIST);
    let once = [(map_pages(1, 2), ok(&[])), (map_pages(2, 2), exists)];
    History::emulated().at_once(&once).is_fine(Rules::Strict);
    let twice = [(map_pages(1, 2), ok(&[])), (map_pages(2, 2), ok(&[]))];
    History::emulated().at_once(&twice).is_wrong(Rules::Strict);
    History::emulated().at_once(&twice).is_wrong(Rules::C);
}

#[test]
fn no_byte_is_unmapped_twice() {
    let history = || {
        let history = History::emulated().then(map_pages(1, 1), ok(&[]));
        history.then(map_pages(3, 1), ok(&[]))
    };
    let all = unmap_flags(unmap::ALL);
    let one = unmap_pages(1, 1);
    let apart = [(all, ok(&[PAGE])), (one, ok(&[PAGE]))];
    history().at_once(&apart).is_fine(Rules::Strict);
    let twice = [(all, ok(&[2 * PAGE])), (one, ok(&[PAGE]))];
    history().at_once(&twice).is_wrong(Rules::Strict);
    // A request that found no mapping reports it.
    let none = [(all, ok(&[2 * PAGE])), (one, ok(&[0]))];
    history().at_once(&none).is_fine(Rules::Strict);
}

#[test]
fn the_whole_address_space_is_no_bytes() {
    let nowhere = 0x7fff_ffff_f000;
    let half = |iova| map_at(iova, nowhere, HALF, map::READ);
    let history = History::emulated().then(half(0), ok(&[]));
    let history = history.then(half(HALF), ok(&[]));
    history
        .then(unmap_flags(unmap::ALL), ok(&[0]))
        .is_fine(Rules::Strict);
}

#[test]
fn a_map_that_is_under_way_may_count_or_not_but_one_that_fails_does_not() {
    for avail in [65534, 65535] {
        let both = [(map_pages(1, 1), ok(&[])), info(avail)];
        History::emulated().at_once(&both).is_fine(Rules::Strict);
    }
    let failed = map_at(PAGE, MEMORY + 1, PAGE, map::READ);
    let both = [(failed, Err(Errno::EINVAL)), info(65534)];
    History::emulated().at_once(&both).is_wrong(Rules::Strict);
}

#[test]
fn what_was_unmapped_is_not_read() {
    let read = Op::Read {
        iova: PAGE,
        count: 1,
    };
    let history = || History::emulated().then(map_pages(1, 1), ok(&[]));
    history().then(read, ok(&[0x100])).is_fine(Rules::Strict);
    let gone = || history().then(unmap_pages(1, 1), ok(&[PAGE]));
    gone().then(read, Err(Errno::EINVAL)).is_fine(Rules::Strict);
    gone().then(read, ok(&[0x100])).is_wrong(Rules::Strict);
}

#[test]
fn an_unmap_of_pinned_pages_is_atomic_but_in_c() {
    // While the driver unpins page 3, page 1 is mapped again: C unmaps it twice.
    let history = |size| {
        let history = History::emulated().then(map_pages(1, 1), ok(&[]));
        let history = history.then(map_pages(3, 1), ok(&[]));
        let history = history.then(pin(3), ok(&[1]));
        history.at_once(&[
            (unmap_flags(unmap::ALL), ok(&[size])),
            (map_pages(1, 1), ok(&[])),
        ])
    };
    history(2 * PAGE).is_fine(Rules::Strict);
    history(2 * PAGE).is_fine(Rules::C);
    history(3 * PAGE).is_wrong(Rules::Strict);
    history(3 * PAGE).is_fine(Rules::C);
    history(4 * PAGE).is_wrong(Rules::C);
}

#[test]
fn dirty_bits_are_neither_lost_nor_made_up() {
    let write = Op::Write {
        iova: 3 * PAGE,
        count: 1,
    };
    let history = |bits| {
        let history = History::emulated().then(Op::Track(dirty::START), ok(&[]));
        let history = history.then(map_pages(3, 2), ok(&[]));
        let history = history.then(write, ok(&[]));
        history.then(report(1, 8), ok(&[bits]))
    };
    history(0b100).is_fine(Rules::Strict);
    history(0).is_wrong(Rules::Strict);
    history(0).is_wrong(Rules::C);
    history(0b1100).is_wrong(Rules::Strict);
    // Bits that C shifted out of the mapping appear in a later report.
    history(0b100)
        .then(report(2, 8), ok(&[0]))
        .is_fine(Rules::Strict);
    history(0b100)
        .then(report(2, 8), ok(&[0b1000]))
        .is_wrong(Rules::Strict);
    history(0b100)
        .then(report(2, 8), ok(&[0b1000]))
        .is_fine(Rules::C);
}

#[test]
fn pages_are_charged_to_who_maps_them() {
    let history = History::physical()
        .then(map_pages(1, 3), ok(&[]))
        .by_the_other_process();
    let history = history
        .then(Op::Locked(1), ok(&[3]))
        .then(Op::Locked(0), ok(&[0]));
    let too_much = (map_pages(8, 2), Err(Errno::ENOMEM));
    let history = history.then(too_much.0, too_much.1).by_the_other_process();
    history.is_fine(Rules::Strict);
    let history = history.then(unmap_flags(unmap::VADDR | unmap::ALL), ok(&[3 * PAGE]));
    let history = history.then(map_at(PAGE, MEMORY, 3 * PAGE, map::VADDR), ok(&[]));
    let history = history
        .then(Op::Locked(0), ok(&[3]))
        .then(Op::Locked(1), ok(&[0]));
    history.is_fine(Rules::Strict);
}

#[test]
fn all_pages_are_dirty_when_an_iommu_goes() {
    let history = History::emulated().then(Op::Join(Group::Physical), ok(&[]));
    let history = history.then(map_pages(1, 2), ok(&[]));
    let history = history.then(Op::Track(dirty::START), ok(&[]));
    let history = history.then(Op::Leave(Group::Physical), ok(&[]));
    let history = history.then(report(1, 8), ok(&[0b11]));
    history.then(report(1, 8), ok(&[0])).is_fine(Rules::Strict);
}

#[test]
fn what_is_left_of_a_history_is_short() {
    let mut history = History::emulated();
    for page in 10..20 {
        history = history.then(map_pages(page, 1), ok(&[]));
        history = history.then(Op::Extension(10), ok(&[0]));
    }
    history = history.at_once(&[(map_pages(1, 1), ok(&[])), (map_pages(1, 2), ok(&[]))]);
    history = history.then(Op::Extension(10), ok(&[0]));
    let core = shrink(
        &container(Rules::Strict),
        &State::default(),
        &history.entries,
    );
    let ops: Vec<_> = core.needed.iter().map(|entry| entry.call.op).collect();
    // Without a backend no mapping is possible.
    let setup = [Op::Join(Group::Emulated), version(3)];
    let expected: Vec<_> = setup
        .into_iter()
        .chain([map_pages(1, 1), map_pages(1, 2)])
        .collect();
    let is_needed = |op: &&Op| !setup.contains(op);
    assert_eq!(
        ops.iter().filter(is_needed).collect::<Vec<_>>(),
        expected.iter().filter(is_needed).collect::<Vec<_>>()
    );
    let observers = core
        .others
        .iter()
        .filter(|e| matches!(e.call.op, Op::Extension(_)));
    assert_eq!(observers.count(), 0);
}
