// SPDX-License-Identifier: GPL-2.0

//! The expected behaviour of a container, by the sequential model of `tools/testing/linear`.
//!
//! Some facts are unknown: whether memory can be pinned, and how many pages a failed write by a
//! driver has dirtied. So there are two states, one with the pages that are certainly dirty and one
//! with the pages that may be dirty. They are equal otherwise.

use crate::{
    machine::{
        DISK,
        EDU,
        PIN, //
    },
    memory::{
        BITMAP,
        BITMAP_LEN, //
    },
    request::{
        Argument,
        Request, //
    },
    trace::{
        Outcome,
        runs, //
    },
};
use linear::{
    defects::Rules,
    model::{
        Container,
        Dma,
        Machine,
        Outcome as Expected,
        State, //
    },
    op::{
        Bitmap,
        Call,
        Group,
        Op,
        PAGE,
        map,
        unmap, //
    },
};
use vfio_client::{
    Bytes,
    Errno,
    chain,
    request,
    structures::{
        self,
        DirtyPages,
        DirtyRange,
        DmaMap,
        DmaUnmap,
        Type1Info, //
    },
    uapi::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, //
};

/// The first address above user space.
const USER_END: u64 = 0x7fff_ffff_f000;
/// The flag of DIRTY_PAGES that gets the bitmap.
const GET_BITMAP: u32 = 4;

/// The expected state of a container.
#[derive(Debug, Default)]
pub struct Twins {
    /// The state with the pages that are certainly dirty.
    certain: State,
    /// The state with the pages that may be dirty.
    possible: State,
    /// Whether an unknown part of the mappings may be gone.
    pub doubtful: bool,
}

/// Returns the model's group for a group of the machine.
fn group_of(nth: usize) -> Option<Group> {
    match nth {
        EDU => Some(Group::Physical),
        DISK => Some(Group::Second),
        PIN => Some(Group::Emulated),
        _ => None,
    }
}

/// Returns a model for the modules of a stack. The model has memory at all addresses.
pub fn model(rules: Rules) -> Container {
    Container {
        machine: Machine {
            ranges: vec![(0, u64::MAX)],
            page_sizes: 0,
            coherent: 0,
            memory: (0, u64::MAX),
            limits: [None, None],
        },
        rules,
    }
}

/// Returns the model's operation for a request, or the error of a request that fails earlier.
fn parse(request: &Request, v2: bool) -> Option<Result<Op, Errno>> {
    let Argument::Bytes(bytes) = &request.argument else {
        return None;
    };
    Some(match request.nr {
        request::IOMMU_MAP_DMA => parse_map(bytes),
        request::IOMMU_UNMAP_DMA => parse_unmap(bytes),
        request::IOMMU_DIRTY_PAGES if !v2 => Err(Errno::EACCES),
        request::IOMMU_DIRTY_PAGES => parse_dirty(bytes),
        _ => return None,
    })
}

/// Checks the size of a structure.
fn check(bytes: &Bytes, size: usize) -> Result<(), Errno> {
    if bytes.len() < size {
        return Err(Errno::EFAULT);
    }
    if (bytes.get_u32(0) as usize) < size {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn parse_map(bytes: &Bytes) -> Result<Op, Errno> {
    check(bytes, size_of::<DmaMap>())?;
    let map: DmaMap = bytes.get(0);
    Ok(Op::Map {
        flags: map.flags,
        vaddr: map.vaddr,
        iova: map.iova,
        size: map.size,
    })
}

fn parse_unmap(bytes: &Bytes) -> Result<Op, Errno> {
    check(bytes, size_of::<DmaUnmap>())?;
    let DmaUnmap {
        flags, iova, size, ..
    } = bytes.get(0);
    let wants_bitmap = flags & unmap::DIRTY != 0;
    // If other flags are set too, the kernel rejects the request before it reads the bitmap.
    let bitmap = match wants_bitmap && flags == unmap::DIRTY {
        true => Some(parse_bitmap(bytes)?),
        false => None,
    };
    Ok(Op::Unmap {
        flags,
        iova,
        size,
        bitmap,
    })
}

fn parse_dirty(bytes: &Bytes) -> Result<Op, Errno> {
    check(bytes, size_of::<DirtyPages>())?;
    let DirtyPages { argsz, flags } = bytes.get(0);
    if flags != GET_BITMAP {
        return Ok(Op::Track(flags));
    }
    if (argsz as usize) < BITMAP_END {
        return Err(Errno::EINVAL);
    }
    check(bytes, BITMAP_END)?;
    let DirtyRange { iova, size, .. } = bytes.get(size_of::<DirtyPages>());
    if size == 0 {
        return Err(Errno::EINVAL);
    }
    iova.checked_add(size - 1).ok_or(Errno::EOVERFLOW)?;
    let bitmap = parse_bitmap(bytes)?;
    Ok(Op::Dirty { iova, size, bitmap })
}

/// The end of the bitmap, which is at the same place in both structures that have one.
const BITMAP_END: usize = size_of::<DmaUnmap>() + size_of::<structures::Bitmap>();
const _: () = assert!(BITMAP_END == size_of::<DirtyPages>() + size_of::<DirtyRange>());

fn parse_bitmap(bytes: &Bytes) -> Result<Bitmap, Errno> {
    if (bytes.get_u32(0) as usize) < BITMAP_END {
        return Err(Errno::EINVAL);
    }
    check(bytes, BITMAP_END)?;
    let structures::Bitmap { pgsize, size, data } = bytes.get(size_of::<DmaUnmap>());
    if data.checked_add(size).is_none_or(|end| end > USER_END) {
        return Err(Errno::EINVAL);
    }
    let place = data.checked_sub(BITMAP).unwrap_or(u64::MAX);
    Ok(Bitmap {
        pgsize,
        size,
        room: (BITMAP_LEN as u64).saturating_sub(place),
        fill: 0,
    })
}

impl Twins {
    fn both(&mut self) -> [&mut State; 2] {
        [&mut self.certain, &mut self.possible]
    }

    /// Returns the mappings, sorted by address.
    pub fn dmas(&self) -> &[Dma] {
        self.certain.type1.as_ref().map_or(&[], |type1| &type1.dmas)
    }

    /// Returns whether dirty pages are tracked.
    pub fn tracks(&self) -> bool {
        self.certain
            .type1
            .as_ref()
            .is_some_and(|type1| type1.tracks)
    }

    /// Records that a group joined the container.
    pub fn join(&mut self, nth: usize) {
        if let Some(group) = group_of(nth) {
            self.both().map(|state| state.enter(group));
        }
    }

    /// Records that a group left the container.
    pub fn leave(&mut self, model: &Container, nth: usize) {
        if let Some(group) = group_of(nth) {
            self.apply(model, false, Op::Leave(group));
        }
    }

    /// Records that a backend was set.
    pub fn set_iommu(&mut self, model: &Container, version: u64, limit: u32) {
        let version = version as u32;
        self.apply(model, false, Op::SetIommu { version, limit });
    }

    fn apply(&mut self, model: &Container, foreign: bool, op: Op) -> [Expected; 2] {
        let call = Call {
            process: foreign.into(),
            thread: 0,
            op,
        };
        self.both().map(|state| model.apply(state, &call))
    }

    /// Records that a driver pinned pages, or failed to.
    pub fn pin(&mut self, iova: u64, count: u64, is_ok: bool) {
        if is_ok {
            self.both().map(|state| state.pin(iova, count * PAGE));
        } else {
            // The pages before the one that failed stay marked.
            self.possible.mark(iova, count * PAGE);
        }
    }

    /// Records that a driver unpinned some pages.
    pub fn unpin(&mut self, iova: u64, size: u64) {
        self.both().map(|state| state.unpin(iova, size));
    }

    /// Records that a driver wrote, or failed to.
    pub fn write(&mut self, iova: u64, len: u64, is_ok: bool) {
        if is_ok {
            self.certain.mark(iova, len);
        }
        self.possible.mark(iova, len);
    }

    /// Checks the result of a request and updates the state. Returns unexpected results and a
    /// description of the bitmap page as fields.
    pub fn judge(
        &mut self,
        model: &Container,
        foreign: bool,
        request: &Request,
        outcome: &Outcome,
        fill: Option<u8>,
    ) -> Vec<(&'static str, String)> {
        let Some(type1) = &self.certain.type1 else {
            return Vec::new();
        };
        if request.nr == request::IOMMU_GET_INFO {
            return self.judge_info(outcome).into_iter().collect();
        }
        let op = match parse(request, type1.v2) {
            None => return Vec::new(),
            Some(Err(errno)) => {
                let expected = [Expected::Is(Err(errno)), Expected::Is(Err(errno))];
                return self.compare(&expected, &[], outcome, fill, None);
            }
            Some(Ok(op)) => with_fill(op, fill.unwrap_or(0)),
        };
        let before = (self.certain.clone(), self.possible.clone());
        let expected = self.apply(model, foreign, op);
        let possible = self.possible_failures(&op);
        let fields = self.compare(&expected, &possible, outcome, fill, Some(&op));
        if !outcome.is_ok() && !expected[0].is_err() {
            (self.certain, self.possible) = before;
        }
        fields
    }

    /// Returns the errors that the model cannot predict.
    fn possible_failures(&self, op: &Op) -> Vec<Errno> {
        let has_iommu = self.certain.joined[Group::Physical as usize]
            || self.certain.joined[Group::Second as usize];
        match op {
            Op::Map { flags, .. } if flags & map::VADDR != 0 => vec![Errno::ENOMEM],
            Op::Map { .. } if has_iommu => vec![Errno::EINVAL, Errno::EFAULT, Errno::ENOMEM],
            _ => Vec::new(),
        }
    }

    fn judge_info(&self, outcome: &Outcome) -> Option<(&'static str, String)> {
        let type1 = self
            .certain
            .type1
            .as_ref()
            .filter(|_| outcome.is_ok() && !self.doubtful)?;
        let info: Type1Info = Bytes::new().raw(&outcome.bytes).get(0);
        let caps = chain(&outcome.bytes, info.cap_offset);
        let cap = caps
            .iter()
            .find(|cap| u32::from(cap.id) == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)?;
        let avail = cap.body.get_u32(0);
        (avail != type1.avail).then(|| ("unexpected", format!("dma_avail:{}", type1.avail)))
    }

    fn compare(
        &self,
        expected: &[Expected; 2],
        possible: &[Errno],
        outcome: &Outcome,
        fill: Option<u8>,
        op: Option<&Op>,
    ) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        let answer = outcome.result.map(|_| Vec::new());
        let fits = match (&expected[0], outcome.result) {
            _ if self.doubtful => true,
            (Expected::Is(Ok(numbers)), Ok(_)) => {
                let unmap: DmaUnmap = Bytes::new().raw(&outcome.bytes).get(0);
                !matches!(op, Some(Op::Unmap { .. })) || numbers[0] == unmap.size
            }
            (Expected::Is(Ok(_)), Err(errno)) => possible.contains(&errno),
            (expected, _) => expected.allows(&answer),
        };
        if !fits {
            fields.push(("unexpected", format!("{:?}", expected[0]).replace(' ', "")));
        }
        if let (Some(page), Some(fill)) = (&outcome.page, fill) {
            fields.push((
                "bitmap",
                self.describe_page(expected, outcome, page, fill, op),
            ));
        }
        fields
    }

    /// Describes the bitmap page: either that it is as expected, or its bytes with the bits that
    /// must be set and the bits that may be set.
    fn describe_page(
        &self,
        expected: &[Expected; 2],
        outcome: &Outcome,
        page: &[u8],
        fill: u8,
        op: Option<&Op>,
    ) -> String {
        // The interface does not specify how much of a bitmap is written when its end cannot be
        // written.
        if outcome.result == Err(Errno::EFAULT) || self.doubtful {
            return "open".to_owned();
        }
        let [least, most] = expected.each_ref().map(|expected| match (expected, op) {
            (Expected::Is(Ok(numbers)), Some(op)) => with_words(op, numbers, fill),
            _ => vec![fill; BITMAP_LEN],
        });
        let fits = page
            .iter()
            .zip(&least)
            .zip(&most)
            .all(|((byte, least), most)| byte & least == *least && byte & !most == 0);
        if fits {
            return "expected".to_owned();
        }
        format!("{},least:{},most:{}", runs(page), runs(&least), runs(&most))
    }
}

/// Returns the operation with the initial content of its bitmap.
fn with_fill(mut op: Op, byte: u8) -> Op {
    match &mut op {
        Op::Unmap {
            bitmap: Some(bitmap),
            ..
        }
        | Op::Dirty { bitmap, .. } => bitmap.fill = byte,
        _ => (),
    }
    op
}

/// Returns the bitmap page with the words that a request returned.
fn with_words(op: &Op, numbers: &[u64], fill: u8) -> Vec<u8> {
    let mut page = vec![fill; BITMAP_LEN];
    let (bitmap, words) = match op {
        Op::Unmap { bitmap, .. } => (*bitmap, &numbers[1..]),
        Op::Dirty { bitmap, .. } => (Some(*bitmap), numbers),
        _ => (None, numbers),
    };
    let Some(bitmap) = bitmap.filter(|bitmap| bitmap.room > 0) else {
        return page;
    };
    let start = BITMAP_LEN - bitmap.room as usize;
    for (place, word) in page[start..].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    page
}
