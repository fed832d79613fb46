// SPDX-License-Identifier: GPL-2.0

//! The plan of the requests of a round.
//!
//! A plan depends only on the seed, the number of the round and the rules: both processes create it
//! independently, and it is reproducible.

use crate::{
    defects::Rules,
    op::{
        ALL_GROUPS,
        Bitmap,
        Call,
        Group,
        Op,
        PAGE,
        RESULT,
        dirty,
        map,
        unmap, //
    },
};
use fastrand::Rng;

/// The address of the processes' memory.
pub const MEMORY: u64 = 64 << 30;
/// The number of pages of memory. Nothing is mapped after them.
pub const MEMORY_PAGES: u64 = 16;

/// The start of the window that most requests use.
pub const WINDOW: u64 = 0x10_0000;
/// The number of pages in the window.
pub const WINDOW_PAGES: u64 = 16;

/// The IOVA at which many single pages may be mapped.
pub const MANY: u64 = 0x80_0000;

/// The size of a mapping that C walks page by page, practically forever, when a group fails to
/// join.
const GIANT: u64 = 1 << 44;

/// Addresses at the limits of IOMMUs or of arithmetic.
const ENDS: [u64; 9] = [
    0,
    1 << 63,
    u64::MAX - (PAGE - 1),
    0xfee0_0000 - PAGE,
    0xfee0_0000,
    (1 << 39) - PAGE,
    1 << 39,
    (1 << 48) - PAGE,
    1 << 48,
];

/// An address at which a process has no memory.
const NOWHERE: u64 = 0x7fff_ffff_f000;

/// The default mapping limit of the module.
pub const USUAL_LIMIT: u32 = 65535;

/// More pins crash the kernel with C.
const MOST_PINS: usize = 9;

/// A thread.
#[derive(Clone, Debug)]
pub struct Thread<O = Op> {
    /// The process of the thread.
    pub process: u8,
    /// The requests, in order.
    pub ops: Vec<O>,
}

/// A round.
#[derive(Clone, Debug)]
pub struct Plan<O = Op> {
    /// The requests at the start, sent sequentially.
    pub prologue: Vec<O>,
    /// The requests that are sent concurrently.
    pub threads: Vec<Thread<O>>,
    /// The requests at the end, sent sequentially.
    pub epilogue: Vec<O>,
    /// The request by which a thread closes what it opened, after its last one. `None` if the
    /// threads' requests include it.
    pub closes: Option<O>,
}

/// The parameters of a round.
struct Chooser {
    rng: Rng,
    rules: Rules,
    v2: bool,
    /// The groups that join at the start.
    anchors: Vec<Group>,
    /// Whether these groups stay. Otherwise the backend goes away, which C does not survive.
    stay: bool,
    /// Whether drivers pin pages.
    pins: bool,
    pins_left: usize,
    /// Whether groups join and leave.
    groups: bool,
    /// Whether some sizes and addresses are unusual.
    odd: bool,
    /// The number of single pages mapped at the start, and the distance between them.
    many: Option<(u64, u64)>,
}

impl Plan {
    /// Creates the plan of a round.
    pub fn new(seed: u64, number: u64, rules: Rules) -> Self {
        let mut rng = Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.u64(..);
        let anchors = match rng.u32(0..10) {
            0..5 => vec![Group::Emulated],
            5..8 => vec![Group::Physical],
            _ => vec![Group::Emulated, Group::Physical],
        };
        let v2 = rng.u32(0..10) < 8;
        let (count, stride) = (rng.u64(12..80), PAGE * rng.u64(1..=2));
        let many = (rng.u32(0..8) == 0).then_some((count, stride));
        let mut chooser = Chooser {
            rules,
            v2,
            pins: v2 && rng.u32(0..10) < 6,
            pins_left: MOST_PINS,
            groups: rng.u32(0..10) < 4,
            stay: rules == Rules::C || rng.u32(0..6) > 0,
            odd: rng.u32(0..10) < 3,
            many,
            anchors,
            rng,
        };
        let prologue = chooser.prologue();
        let threads = chooser.threads();
        let epilogue = chooser.epilogue(number);
        Self {
            prologue,
            threads,
            epilogue,
            closes: Some(Op::Close),
        }
    }
}

impl<O: Copy> Plan<O> {
    /// Returns the request at a place of a thread. After its last request, a thread closes what it
    /// opened.
    pub fn call(&self, thread: usize, place: usize) -> Option<Call<O>> {
        let planned = self.threads.get(thread)?;
        Some(Call {
            process: planned.process,
            thread: thread as u8,
            op: planned.ops.get(place).copied().or(self.closes)?,
        })
    }

    /// Returns the number of concurrent requests.
    pub fn len(&self) -> usize {
        self.threads.iter().map(|thread| thread.ops.len()).sum()
    }

    /// Returns whether there are no concurrent requests.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Chooser {
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(0..choices.len())]
    }

    fn percent(&mut self, chance: u32) -> bool {
        self.rng.u32(0..100) < chance
    }

    fn prologue(&mut self) -> Vec<Op> {
        let mut ops: Vec<_> = self.anchors.iter().map(|group| Op::Join(*group)).collect();
        let few = self.rng.u32(0..6);
        let limit = if self.stay && self.percent(20) {
            few
        } else {
            USUAL_LIMIT
        };
        let version = if self.v2 { 3 } else { 1 };
        ops.push(Op::SetIommu { version, limit });
        if self.anchors.contains(&Group::Emulated) && self.percent(60) {
            ops.push(Op::Open);
        }
        if self.percent(45) {
            ops.push(Op::Track(dirty::START));
        }
        if let Some((count, stride)) = self.many {
            ops.push(Op::MapMany {
                iova: MANY,
                count,
                stride,
            });
            // A driver pins a page of half of these mappings.
            if self.pins && stride == PAGE {
                ops.push(Op::Pin {
                    iova: MANY,
                    count: count as u32 / 2,
                    prot: 1,
                });
            }
        }
        for _ in 0..self.rng.u32(0..5) {
            ops.push(self.map());
        }
        for _ in 0..self.rng.u32(0..4) {
            ops.extend(self.pin());
        }
        ops
    }

    fn threads(&mut self) -> Vec<Thread> {
        let count = self.rng.usize(3..=8);
        let most = self.rng.usize(4..=7);
        let thread = |nth| {
            let ops = self.rng.usize(3..=most);
            Thread {
                process: u8::from(nth % 3 == 2),
                ops: (0..ops).map(|_| self.op(nth)).collect(),
            }
        };
        (0..count).map(thread).collect()
    }

    /// Reads the remaining state, page by page, then removes everything.
    fn epilogue(&mut self, number: u64) -> Vec<Op> {
        let mut ops = vec![Op::Info, self.whole_window(), Op::Open, Op::Pinned];
        let pages = (0..WINDOW_PAGES).map(|page| WINDOW + page * PAGE);
        ops.extend(pages.map(|iova| Op::Read { iova, count: 1 }));
        ops.extend([Op::Locked(0), Op::Locked(1), Op::Listed]);
        // A DMA transfer takes a tenth of a second.
        if number % 64 == 5 && self.anchors.contains(&Group::Physical) {
            ops.push(Op::Map {
                flags: map::READ | map::WRITE,
                vaddr: MEMORY + (MEMORY_PAGES - 1) * PAGE,
                iova: RESULT,
                size: PAGE,
            });
            for _ in 0..4 {
                ops.push(Op::Dma(self.window_page()));
            }
        }
        ops.push(Op::Close);
        ops.push(Op::Unmap {
            flags: unmap::ALL,
            iova: 0,
            size: 0,
            bitmap: None,
        });
        ops.extend([Op::Info, Op::Locked(0), Op::Locked(1), Op::Close]);
        ops.extend(ALL_GROUPS.map(Op::Leave));
        ops.push(Op::Listed);
        ops
    }

    /// Chooses a request for a thread.
    fn op(&mut self, thread: usize) -> Op {
        // Two unmaps and a pin can deadlock C.
        let may_unmap = self.rules == Rules::Strict || !self.pins || thread == 0;
        loop {
            let op = match self.rng.u32(0..100) {
                0..30 => Some(self.map()),
                30..52 => may_unmap.then(|| self.unmap()),
                52..60 => Some(self.tracking()),
                60..66 => Some(self.get_bitmap()),
                66..71 => {
                    Some(self.pick(&[Op::Info, Op::Info, Op::Extension(10), Op::Extension(4)]))
                }
                71..79 => (self.groups || !self.stay).then(|| self.group()),
                79..83 => may_unmap.then(|| self.pick(&[Op::Open, Op::Open, Op::Close])),
                83..89 => self.pin(),
                89..92 => self.pins.then(|| Op::Unpin(self.window_page())),
                92..93 => Some(Op::Pinned),
                93..97 => Some(Op::Read {
                    iova: self.window_page(),
                    count: self.pick(&[1, 1, 2, 3]),
                }),
                _ => Some(Op::Write {
                    iova: self.window_page(),
                    count: self.pick(&[1, 2]),
                }),
            };
            if let Some(op) = op {
                return op;
            }
        }
    }

    fn window_page(&mut self) -> u64 {
        WINDOW + self.rng.u64(0..10) * PAGE
    }

    fn iova(&mut self) -> u64 {
        if let Some((count, stride)) = self.many {
            if self.percent(25) {
                return MANY + self.rng.u64(0..=count) * stride;
            }
        }
        if self.odd && self.percent(30) {
            return match self.percent(80) {
                true => self.pick(&ENDS),
                false => self.window_page() + 1,
            };
        }
        WINDOW + self.pick(&[0, 0, 1, 2, 2, 4, 4, 6, 8]) * PAGE
    }

    fn size(&mut self) -> u64 {
        if self.odd && self.percent(25) {
            let size = self.pick(&[0, 1, PAGE + 1, 1 << 20, GIANT, 1 << 63, u64::MAX]);
            // The other sizes are rejected anyway.
            let is_spared = self.rules == Rules::C && size >= GIANT && size != u64::MAX;
            return if is_spared { 1 << 20 } else { size };
        }
        self.pick(&[1, 1, 2, 2, 2, 4, 8]) * PAGE
    }

    fn map(&mut self) -> Op {
        let size = self.size();
        let prot = map::READ | map::WRITE;
        let flags = match self.rng.u32(0..100) {
            0..76 => prot,
            76..84 => map::READ,
            84..88 => map::WRITE,
            88..98 => map::VADDR,
            _ => self.rng.u32(0..9),
        };
        let vaddr = match self.rng.u32(0..100) {
            _ if size > MEMORY_PAGES * PAGE => NOWHERE,
            0..3 => NOWHERE,
            3..4 => MEMORY + 1,
            _ => MEMORY + self.rng.u64(0..8) * PAGE,
        };
        Op::Map {
            flags,
            vaddr,
            iova: self.iova(),
            size,
        }
    }

    fn unmap(&mut self) -> Op {
        let (mut iova, mut size) = (self.iova(), self.size());
        let mut flags = match self.rng.u32(0..100) {
            0..55 => 0,
            55..70 => unmap::ALL,
            70..82 => unmap::DIRTY,
            82..92 => unmap::VADDR,
            92..97 => unmap::VADDR | unmap::ALL,
            _ => self.rng.u32(0..9),
        };
        if flags & unmap::ALL != 0 && self.percent(95) {
            (iova, size) = (0, 0);
        } else if self.percent(25) {
            let wants_many = self.percent(60);
            (iova, size) = match self.many.filter(|_| wants_many) {
                Some((count, stride)) => (MANY, count * stride),
                None => (WINDOW, WINDOW_PAGES * PAGE),
            };
        }
        let wants_bitmap = flags & unmap::DIRTY != 0;
        // Without the flag, the structure would end in the middle of the bitmap's description.
        if wants_bitmap && self.percent(2) {
            flags |= unmap::ALL;
        }
        Op::Unmap {
            flags,
            iova,
            size,
            bitmap: wants_bitmap.then(|| self.bitmap()),
        }
    }

    fn tracking(&mut self) -> Op {
        Op::Track(match self.rng.u32(0..100) {
            0..65 => dirty::START,
            65..96 => dirty::STOP,
            _ => self.pick(&[3, 8]),
        })
    }

    /// Chooses a bitmap for at least 64 pages; the window has fewer.
    fn bitmap(&mut self) -> Bitmap {
        let pgsize = if self.percent(3) { 2 << 20 } else { PAGE };
        let size = self.pick(&[8, 8, 8, 8, 16, 32]);
        let mut bitmap = Bitmap::clear(pgsize, size);
        if self.percent(6) {
            bitmap.room = 0;
        }
        bitmap
    }

    fn get_bitmap(&mut self) -> Op {
        if self.percent(50) {
            return self.whole_window();
        }
        Op::Dirty {
            iova: self.iova(),
            size: self.size(),
            bitmap: self.bitmap(),
        }
    }

    fn whole_window(&mut self) -> Op {
        Op::Dirty {
            iova: WINDOW,
            size: WINDOW_PAGES * PAGE,
            bitmap: Bitmap::clear(PAGE, 8),
        }
    }

    fn group(&mut self) -> Op {
        let may_move = |group: &Group| !self.stay || !self.anchors.contains(group);
        let groups: Vec<_> = ALL_GROUPS.into_iter().filter(may_move).collect();
        let group = self.pick(&groups);
        match self.rng.u32(0..12) {
            0..5 => Op::Join(group),
            5..9 => Op::Leave(group),
            9 | 10 if !self.stay => Op::SetIommu {
                version: 3,
                limit: USUAL_LIMIT,
            },
            _ => Op::Status(group),
        }
    }

    fn pin(&mut self) -> Option<Op> {
        if !self.pins || self.pins_left == 0 {
            return None;
        }
        self.pins_left -= 1;
        Some(Op::Pin {
            iova: self.window_page(),
            count: self.pick(&[1, 1, 2, 3]),
            prot: self.pick(&[1, 1, 3, 2]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::MOST;

    #[test]
    fn a_plan_can_be_repeated_and_checked() {
        for number in 0..2000 {
            let plan = Plan::new(1, number, Rules::Strict);
            let again = Plan::new(1, number, Rules::Strict);
            assert_eq!(format!("{plan:?}"), format!("{again:?}"));
            // At its end, a thread closes what it opened.
            let opened = plan.threads.iter().flat_map(|thread| &thread.ops);
            let opened = opened.filter(|op| **op == Op::Open).count();
            let all = plan.prologue.len() + plan.len() + opened + plan.epilogue.len();
            assert!(all <= MOST, "{all} requests");
        }
    }

    #[test]
    fn c_is_spared() {
        for number in 0..2000 {
            let plan = Plan::new(2, number, Rules::C);
            let ops = || plan.threads.iter().flat_map(|thread| &thread.ops);
            let pins = ops().filter(|op| matches!(op, Op::Pin { .. })).count();
            assert!(pins <= MOST_PINS);
            let giant =
                |op: &Op| matches!(op, Op::Map { size, .. } if (GIANT..u64::MAX).contains(size));
            assert!(!ops().any(giant));
            let alone = |op: &&Op| matches!(op, Op::Unmap { .. } | Op::Open | Op::Close);
            let unmapping = plan
                .threads
                .iter()
                .filter(|t| t.ops.iter().any(|op| alone(&op)));
            assert!(pins == 0 || unmapping.count() <= 1);
        }
    }
}
