// SPDX-License-Identifier: GPL-2.0

//! Requests at the same time, in the shapes that matter.

use std::sync::{
    atomic::{
        AtomicUsize,
        Ordering, //
    },
    Arc, //
};

use kernel::prelude::*;

use kernel_ext::{
    iova::Range,
    keyed_wait::kill, //
};

use loom::thread;

use super::{
    check::{
        explore,
        Explored,
        Model,
        PREEMPTIONS, //
    },
    space::{
        Pages,
        Space, //
        SpaceTypes,
    },
    type1::{
        Layout,
        Request::{
            self,
            *, //
        },
        World, //
    },
};

const fn r(start: u64, last: u64) -> Range {
    Range { start, last }
}

/// A container with a group behind an IOMMU, which keeps track of dirty pages.
const IOMMU: World = World {
    layout: Layout {
        translated: true,
        emulated: false,
        dirty_page_tracking: true,
    },
    limit: 3,
    v2: true,
    stubborn: false,
    before: &[Map(r(0, 1)), Map(r(2, 2))],
};

/// The same, while the program gives it new addresses.
const UPDATING: World = World {
    before: &[Map(r(0, 1)), Map(r(2, 2)), Invalidate(r(2, 2))],
    ..IOMMU
};

/// The same with the rules of `VFIO_TYPE1_IOMMU`.
const V1: World = World { v2: false, ..IOMMU };

/// A container with a group of emulated devices only.
const EMULATED: World = World {
    layout: Layout {
        translated: false,
        emulated: true,
        dirty_page_tracking: true,
    },
    before: &[Map(r(0, 1)), Map(r(2, 2)), Pin(r(2, 2))],
    ..IOMMU
};

/// A container with both, which keeps no track of dirty pages.
const BOTH: World = World {
    layout: Layout {
        translated: true,
        emulated: true,
        dirty_page_tracking: false,
    },
    ..EMULATED
};

/// How pairs of requests begin.
const WORLDS: [(&str, World); 5] = [
    ("iommu", IOMMU),
    ("updating", UPDATING),
    ("v1", V1),
    ("emulated", EMULATED),
    ("both", BOTH),
];

/// A driver which keeps what it has pinned.
const STUBBORN: World = World {
    stubborn: true,
    ..EMULATED
};

/// Two requests at the same time, in each world.
pub(crate) fn pair(a: Request, b: Request) {
    for (name, world) in WORLDS {
        let model = Model {
            world,
            threads: vec![vec![a], vec![b]],
            preemptions: PREEMPTIONS,
        };
        let explored = model.check();
        println!("{name}: {explored}");
        assert_eq!(explored.seen, explored.possible, "an order was not tried");
    }
}

fn check(world: World, threads: &[&[Request]]) -> Explored {
    let model = Model {
        world,
        threads: threads.iter().map(|requests| requests.to_vec()).collect(),
        preemptions: PREEMPTIONS,
    };
    let explored = model.check();
    println!("{explored}");
    explored
}

/// What three threads ask for at the same time.
const THREES: [Request; 12] = [
    Map(r(3, 3)),
    Unmap(r(0, 2)),
    UnmapAll,
    UnmapDirty(r(0, 3)),
    Invalidate(r(0, 1)),
    Report(r(0, 2)),
    StopTracking,
    Attach,
    AttachEmulated,
    DetachEmulated,
    Pin(r(1, 1)),
    Read(r(1, 2)),
];

/// All threes of requests at the same time.
fn threes(world: World) {
    let (mut models, mut interleavings) = (0, 0);
    for (nth, a) in THREES.iter().enumerate() {
        for (more, b) in THREES[nth..].iter().enumerate() {
            for c in &THREES[nth + more..] {
                let model = Model {
                    world,
                    threads: vec![vec![*a], vec![*b], vec![*c]],
                    preemptions: 2,
                };
                interleavings += model.check().interleavings;
                models += 1;
            }
        }
    }
    println!("{interleavings} interleavings, in {models} models");
}

/// Behind an IOMMU.
pub(crate) fn threes_behind_an_iommu() {
    threes(IOMMU);
}

/// With an emulated device.
pub(crate) fn threes_with_an_emulated_device() {
    threes(EMULATED);
}

/// D3: who unmaps everything takes mappings that others unmap themselves.
pub(crate) fn unmap_all_and_others_in_their_own_ranges() {
    let before = const { &[Map(r(0, 0)), Map(r(1, 1))] };
    let world = World {
        before,
        limit: 9,
        ..IOMMU
    };
    let own = |at| [Map(r(at, at)), Unmap(r(at, at))];
    check(world, &[&[UnmapAll], &own(2), &own(3)]);
}

/// D3, with a mapping that comes and stays.
pub(crate) fn unmap_all_twice_and_map() {
    check(IOMMU, &[&[UnmapAll], &[UnmapAll], &[Map(r(1, 3))]]);
}

/// D2: others map across the border of a report.
pub(crate) fn report_and_maps_across_its_border() {
    let before = const { &[Map(r(2, 2)), Pin(r(2, 2))] };
    let world = World { before, ..EMULATED };
    check(
        world,
        &[
            &[Report(r(1, 2))],
            &[Map(r(0, 1)), Unmap(r(0, 1))],
            &[Write(r(2, 2)), Map(r(3, 3))],
        ],
    );
}

/// D2, the other way to tell.
pub(crate) fn unmap_with_bitmap_and_maps_across_its_border() {
    let before = const { &[Map(r(2, 2)), Write(r(2, 2))] };
    let world = World { before, ..EMULATED };
    check(
        world,
        &[
            &[UnmapDirty(r(1, 2))],
            &[Map(r(0, 1)), Unmap(r(0, 1))],
            &[Write(r(2, 2))],
        ],
    );
}

/// D5: drivers are asked about each mapping, not so and so often for all of them.
pub(crate) fn unmap_all_of_what_is_pinned() {
    let before = const {
        &[
            Map(r(0, 0)),
            Map(r(1, 1)),
            Map(r(2, 2)),
            Map(r(3, 3)),
            Pin(r(0, 0)),
            Pin(r(1, 1)),
            Pin(r(2, 2)),
            Pin(r(3, 3)),
        ]
    };
    let world = World {
        before,
        limit: 9,
        ..EMULATED
    };
    check(world, &[&[UnmapAll], &[Unpin(r(2, 2))]]);
}

/// A driver keeps its pages.
pub(crate) fn unmap_of_what_a_driver_keeps() {
    check(STUBBORN, &[&[UnmapAll], &[Unpin(r(2, 2))], &[Map(r(3, 3))]]);
}

/// A device at work has always some page pinned, now of one mapping, now of another.
pub(crate) fn unmap_while_a_device_is_at_work() {
    let busy = [Pin(r(0, 0)), Unpin(r(2, 2)), Pin(r(2, 2))];
    check(STUBBORN, &[&[UnmapAll], &busy]);
}

/// While mappings are unmapped one by one, there comes one that is only in part in the range.
pub(crate) fn unmap_of_what_is_replaced() {
    let busy = [Unpin(r(2, 2)), Unmap(r(2, 2)), Map(r(2, 3))];
    check(STUBBORN, &[&[Unmap(r(0, 2))], &busy]);
}

/// D9: an emulated device comes while an address is invalidated.
pub(crate) fn invalidate_and_attach_emulated() {
    let busy = [Unmap(r(2, 2)), Map(r(2, 3))];
    check(IOMMU, &[&[Invalidate(r(0, 1))], &[AttachEmulated], &busy]);
}

/// D9: and one uses the address.
pub(crate) fn invalidate_and_pin() {
    check(
        IOMMU,
        &[
            &[Invalidate(r(0, 1)), ChangeVaddr(r(0, 1))],
            &[Pin(r(1, 2))],
            &[Unmap(r(2, 2))],
        ],
    );
}

/// A driver pins with its own lock held, which it takes when it is asked to give pages back.
pub(crate) fn unmap_pin_and_attach() {
    check(EMULATED, &[&[Unmap(r(2, 2))], &[Pin(r(1, 2))], &[Attach]]);
}

/// The same, and the IOMMU goes.
pub(crate) fn unmap_pin_and_detach() {
    check(
        BOTH,
        &[&[UnmapAll], &[Pin(r(1, 1)), Unpin(r(1, 1))], &[Detach]],
    );
}

/// A mapping that is larger than what was asked for comes while a driver waits, and locks all of it
/// then.
pub(crate) fn pin_in_a_mapping_that_grows() {
    let world = World {
        before: &[],
        ..EMULATED
    };
    check(world, &[&[Pin(r(1, 1))], &[Map(r(0, 2))], &[Map(r(3, 3))]]);
}

/// One more mapping than there may be, and others where it was to be.
pub(crate) fn maps_at_the_limit() {
    let before = const { &[Map(r(0, 0)), Map(r(1, 1))] };
    let world = World { before, ..IOMMU };
    let again = [Unmap(r(0, 0)), Map(r(2, 2))];
    check(world, &[&[Map(r(2, 2))], &[Map(r(3, 3))], &again]);
}

/// Readers share, and nothing goes while they do.
pub(crate) fn readers_and_unmap() {
    check(
        IOMMU,
        &[
            &[Read(r(0, 1))],
            &[Read(r(1, 2))],
            &[Unmap(r(0, 1)), Map(r(0, 0))],
        ],
    );
}

/// Requests for which there is no memory in the queue wait for the others, and come to their turn.
pub(crate) fn without_memory() {
    with_short_memory(|| {
        check(
            IOMMU,
            &[&[Unmap(r(0, 1))], &[Map(r(3, 3))], &[Report(r(2, 2))]],
        );
        check(IOMMU, &[&[Read(r(0, 0))], &[UnmapAll], &[Attach]]);
    });
}

/// Four threads, each with a range that overlaps its neighbours'.
pub(crate) fn chain() {
    let before = const { &[Map(r(0, 0)), Map(r(1, 1)), Map(r(2, 2)), Map(r(3, 3))] };
    let world = World {
        before,
        limit: 9,
        ..IOMMU
    };
    check(
        world,
        &[&[Unmap(r(0, 1))], &[Unmap(r(1, 2))], &[Unmap(r(2, 3))]],
    );
}

/// A space with nothing in it, in which requests note when they had their turn.
struct Log;

impl SpaceTypes for Log {
    type Layout = ();
    type MutexData = Vec<char>;
    type Pages = NoPages;
}

struct NoPages;

impl Pages for NoPages {
    fn start(&self) -> u64 {
        0
    }

    fn join(&mut self, next: Self) -> Result<(), Self> {
        Err(next)
    }
}

fn log() -> Arc<Space<Log>> {
    Arc::new(Space::new((), Vec::new()).make())
}

fn enter(space: &Arc<Space<Log>>, name: char, range: Range) -> thread::JoinHandle<()> {
    let space = space.clone();
    thread::spawn(move || {
        let entered = space.lock(range, |held| {
            held.mutex_data.push(name);
            Ok::<_, Error>(())
        });
        drop(entered);
    })
}

/// A request doesn't overtake an earlier one that it overlaps, even if nobody holds what it wants.
pub(crate) fn nobody_overtakes() {
    let applies = Arc::new(AtomicUsize::new(0));
    let count = applies.clone();
    let interleavings = explore(PREEMPTIONS, move || {
        let space = log();
        let held = space.lock(r(0, 1), |_| Ok::<_, Error>(()));
        let a = enter(&space, 'a', r(1, 2));
        let a_waits = space.look().requests() == 2;
        let b = enter(&space, 'b', r(2, 3));
        drop(held);
        a.join().expect("a thread has panicked");
        b.join().expect("a thread has panicked");
        let mut look = space.look();
        let order: String = look.mutex_data().iter().collect();
        if a_waits {
            count.fetch_add(1, Ordering::Relaxed);
            assert_eq!(order, "ab", "a request was overtaken");
        }
    });
    let applies = applies.load(Ordering::Relaxed);
    println!("{interleavings} interleavings, in {applies} of which the order was known");
    assert_ne!(applies, 0, "the order was never known");
}

/// A killed request leaves the queue, and those behind it come to their turn: with memory for the
/// queue and without.
pub(crate) fn a_killed_request_leaves() {
    for short in [false, true] {
        let left = Arc::new(AtomicUsize::new(0));
        let count = left.clone();
        let try_all = || {
            explore(PREEMPTIONS, move || {
                let space = log();
                let a = enter(&space, 'a', r(0, 1));
                let c = enter(&space, 'c', r(2, 3));
                kill();
                let entered = space.lock(r(1, 2), |held| {
                    held.mutex_data.push('b');
                    Ok::<_, Error>(())
                });
                let killed = entered.map(drop).err();
                // What must not fail waits all the same.
                drop(space.lock_all());
                a.join().expect("a thread has panicked");
                c.join().expect("a thread has panicked");
                let mut look = space.look();
                assert_eq!(look.requests(), 0, "requests are left in the queue");
                let has_b = look.mutex_data().contains(&'b');
                assert_eq!(look.mutex_data().len(), 2 + usize::from(has_b));
                assert_eq!(killed, (!has_b).then_some(EINTR));
                count.fetch_add(usize::from(!has_b), Ordering::Relaxed);
            })
        };
        let interleavings = if short {
            with_short_memory(try_all)
        } else {
            try_all()
        };
        let left = left.load(Ordering::Relaxed);
        println!("{interleavings} interleavings, in {left} of which it left");
        assert!(left != 0 && left != interleavings);
    }
}

/// The most that hold their ranges at the same time in some interleaving.
fn together(a: impl Fn(&Space<Log>, &dyn Fn()) + Send + Sync + 'static) -> usize {
    let most = Arc::new(AtomicUsize::new(0));
    let found = most.clone();
    let a = Arc::new(a);
    let interleavings = explore(PREEMPTIONS, move || {
        let space = log();
        let inside = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (space, inside) = (space.clone(), inside.clone());
                let (found, a) = (found.clone(), a.clone());
                thread::spawn(move || {
                    a(&space, &|| {
                        let now = inside.fetch_add(1, Ordering::Relaxed) + 1;
                        found.fetch_max(now, Ordering::Relaxed);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::Relaxed);
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("a thread has panicked");
        }
    });
    let most = most.load(Ordering::Relaxed);
    println!("{interleavings} interleavings, {most} together at most");
    most
}

/// Sharers hold the same addresses at the same time.
pub(crate) fn sharers_go_together() {
    let most = together(|space, work| {
        let guard = space.share(r(0, 3), |_| Ok::<_, Error>(()));
        work();
        drop(guard);
    });
    assert_eq!(most, 2, "sharers wait for each other");
}

/// Others don't.
pub(crate) fn others_go_alone() {
    let most = together(|space, work| {
        let guard = space.lock(r(0, 3), |_| Ok::<_, Error>(()));
        work();
        drop(guard);
    });
    assert_eq!(most, 1, "two hold the same addresses");
}

/// Those who lock disjoint addresses hold them at the same time.
pub(crate) fn disjoint_requests_go_together() {
    let turn = AtomicUsize::new(0);
    let most = together(move |space, work| {
        let at = turn.fetch_add(1, Ordering::Relaxed) as u64 % 2;
        let guard = space.lock(r(at, at), |_| Ok::<_, Error>(()));
        work();
        drop(guard);
    });
    assert_eq!(most, 2, "disjoint requests wait for each other");
}
