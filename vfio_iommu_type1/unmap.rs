// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_UNMAP_DMA`.

use core::mem::size_of;

use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use iommu_group::ranges::Range;

use crate::{
    abi::{
        trace,
        Bitmap,
        UnmapDma, //
    },
    container::{
        Claim,
        Container,
        Guard,
        State, //
    },
    dirty::UserBitmap,
    maps::{
        Body,
        Map, //
    },
    refusal::{
        because,
        Granted,
        Refusal, //
    },
    request::UnmapRequest, //
};

impl Container {
    /// Handles the ioctl.
    ///
    /// # Errors
    ///
    /// `EFAULT` for a bad argument, `EINVAL` for a short one; else those of [`UnmapRequest`] and
    /// [`unmap`](Self::unmap).
    pub(crate) fn ioctl_unmap(&self, arg: UserPtr) -> Result<isize> {
        let size = size_of::<UnmapDma>();
        let mut user: UnmapDma = UserSlice::new(arg, size).reader().read()?;
        user.size = self
            .unmap_as_asked(&user, arg)
            .inspect_err(|refusal| trace::refused(c"unmap", user.iova, user.size, refusal))?;
        UserSlice::new(arg, size).writer().write(&user)?;
        Ok(0)
    }

    /// Does what the ioctl's argument `user`, read from `arg`, asks for. Returns how many bytes were
    /// unmapped.
    fn unmap_as_asked(&self, user: &UnmapDma, arg: UserPtr) -> Granted<u64> {
        let size = size_of::<UnmapDma>();
        if (user.argsz as usize) < size {
            return Err(Refusal::SHORT);
        }
        let request = UnmapRequest::new(user.flags, user.iova, user.size)?;
        if !request.dirty {
            return self.unmap(&request, None);
        }
        if (user.argsz as usize) < size + size_of::<Bitmap>() {
            return Err(Refusal::SHORT);
        }
        let bitmap = UserBitmap::read(arg.wrapping_byte_add(size), user.size)
            .map_err(because(c"no such bitmap of dirty pages"))?;
        self.unmap(&request, Some(&bitmap))
    }

    /// Unmaps, and returns how many bytes.
    ///
    /// The second version of the interface unmaps whole maps only, and fails if the range has parts
    /// of others. The first one leaves alone what begins before the range, and everything after it,
    /// and unmaps all of what begins in the range.
    ///
    /// # Errors
    ///
    /// `EBUSY` if an address is to be withdrawn and there are groups without an IOMMU, whose drivers
    /// need it, or if such a driver doesn't give pages back; those of [`UnmapRequest::range`]; `EINVAL`
    /// for a part of a map, if an address is to be withdrawn twice, or if there are no dirty pages of
    /// the size asked for; `EFAULT` for the bitmap, and then some may be unmapped.
    fn unmap(&self, request: &UnmapRequest, bitmap: Option<&UserBitmap>) -> Granted<u64> {
        let mut state = self.lock();
        self.wait_settled(&mut state);
        if request.vaddr && !state.emulated.is_empty() {
            return Err(Refusal::new(EBUSY, c"drivers need the address"));
        }
        let page_size = state.page_size();
        let range = request.range(page_size)?;
        if bitmap.is_some() && !state.tracks_dirty {
            return Err(Refusal::new(EINVAL, c"no track is kept of dirty pages"));
        }
        if bitmap.is_some_and(|bitmap| bitmap.page_size != page_size) {
            return Err(Refusal::new(EINVAL, c"dirty pages have another size"));
        }
        let mut asked = 0;
        loop {
            self.wait_idle(&mut state, range);
            if self.v2 && !request.all {
                check_whole(&state, range)?;
            }
            if request.vaddr {
                return withdraw_addresses(&mut state, range, self.v2);
            }
            let Some(pinned) = self.pinned_in(&state, range) else {
                break;
            };
            if asked == MAX_ASKED {
                drop(state);
                self.blame(pinned);
                return Err(Refusal::at(pinned, EBUSY, c"a driver keeps pages"));
            }
            asked += 1;
            drop(state);
            self.notify(pinned);
            state = self.lock();
        }

        let doomed = state.doom(range, |found| self.takes(range, found));
        self.remove_doomed(state, range, doomed.maps, bitmap)
            .map_err(because(c"can't write the bitmap of dirty pages"))?;
        Ok(doomed.bytes)
    }

    /// Whether unmapping `range` takes the map of `found`, of which it has at least a part.
    fn takes(&self, range: Range, found: Range) -> bool {
        self.v2 || found.start >= range.start
    }

    /// A map in `range` of which a driver has pinned pages.
    fn pinned_in(&self, state: &Guard<'_>, range: Range) -> Option<Range> {
        let mut pinned = None;
        if state.devices == 0 && state.emulated.is_empty() {
            return None;
        }
        state.maps.for_each_in(range, |found, map| {
            if !self.takes(range, found) {
                return false;
            }
            if map.body().is_some_and(|body| body.pins().is_some()) {
                pinned = Some(found);
            }
            pinned.is_none()
        });
        pinned
    }

    /// Removes the maps in `range` that were chosen for it, `left` of them, having told which of their
    /// pages are dirty.
    ///
    /// # Errors
    ///
    /// Those of [`UserBitmap::put`]; then the maps that are left stay.
    pub(crate) fn remove_doomed<'a>(
        &'a self,
        mut state: Guard<'a>,
        range: Range,
        mut left: usize,
        bitmap: Option<&UserBitmap>,
    ) -> Result {
        // What is told about the pages goes map by map.
        let most = if bitmap.is_some() { 1 } else { MAX_TOGETHER };
        while let Some(Doomed { claim, body, maps }) = self.claim_doomed(&mut state, range, most) {
            let all = state.writes_anywhere();
            drop(state);
            let told = bitmap.map_or(Ok(()), |bitmap| {
                bitmap.put(range.start, claim.range(), &body, all)
            });
            if told.is_err() {
                self.spare(range);
                claim.publish(body);
                return told;
            }
            // First the pages, then the entries: until the IOMMU has forgotten the addresses nobody
            // may map there.
            drop(body);
            drop(claim);
            left -= maps;
            if left == 0 {
                break;
            }
            state = self.lock();
        }
        Ok(())
    }

    /// Takes the pages out of the first map in `range` that was chosen for removal, and out of those
    /// after it which can go along, `most` maps at most.
    fn claim_doomed<'a>(
        &'a self,
        state: &mut Guard<'_>,
        range: Range,
        most: usize,
    ) -> Option<Doomed<'a>> {
        let mut found: Option<Doomed<'a>> = None;
        state.maps.for_each_in_mut(range, |range, map| {
            if !map.is_doomed() {
                return found.is_none();
            }
            let Some(first) = &mut found else {
                let claimed = self.claim(range, map);
                found = claimed.map(|(claim, body)| Doomed {
                    claim,
                    body,
                    maps: 1,
                });
                return most > 1;
            };
            first.maps < most && first.take_in(range, map)
        });
        found
    }

    /// Leaves the maps in `range` alone that were chosen for removal. The first one is claimed.
    fn spare(&self, range: Range) {
        let mut state = self.lock();
        let mut spared = 0;
        state.maps.for_each_in_mut(range, |_, map| {
            spared += usize::from(map.is_doomed() && map.body().is_some());
            map.set_doomed(false);
            true
        });
        state.busy -= spared;
    }
}

/// Maps that follow one another and go together.
struct Doomed<'a> {
    claim: Claim<'a>,
    /// The pages of all of them.
    body: Body,
    maps: usize,
}

impl Doomed<'_> {
    /// Takes in the map at `range`, the next one in the tree. Returns whether it can go along.
    fn take_in(&mut self, range: Range, map: &mut Map) -> bool {
        let Some(body) = map.take_body() else {
            return false;
        };
        match self.body.join(body) {
            Ok(()) => {
                self.claim.extend(range);
                self.maps += 1;
                true
            }
            Err(body) => {
                map.put_body(body);
                false
            }
        }
    }
}

/// How many maps of how many bytes an unmap has chosen.
pub(crate) struct Chosen {
    pub(crate) maps: usize,
    bytes: u64,
}

impl State {
    /// Chooses the maps in `range` for removal, up to the first one that `takes` refuses. Nobody works
    /// on them.
    pub(crate) fn doom(&mut self, range: Range, takes: impl Fn(Range) -> bool) -> Chosen {
        let mut chosen = Chosen { maps: 0, bytes: 0 };
        self.maps.for_each_in_mut(range, |found, map| {
            if !takes(found) {
                return false;
            }
            map.set_doomed(true);
            chosen.maps += 1;
            chosen.bytes += found.last - found.start + 1;
            true
        });
        self.busy += chosen.maps;
        chosen
    }
}

/// How many maps are unmapped by one request at most; meanwhile they are in nobody's way but the
/// lock is held to choose them.
const MAX_TOGETHER: usize = 512;

/// How often drivers are asked to give pages back.
const MAX_ASKED: usize = 10;

/// Checks that `range` has no part of a map, but whole ones.
pub(crate) fn check_whole(state: &Guard<'_>, range: Range) -> Granted {
    for end in [range.start, range.last] {
        let point = Range {
            start: end,
            last: end,
        };
        let cut = state.maps.first_in(point);
        if let Some(cut) = cut.filter(|found| !range.contains(*found)) {
            return Err(Refusal::at(cut, EINVAL, c"would cut a mapping"));
        }
    }
    Ok(())
}

/// Marks the maps in `range` as having no valid address in the program's memory, all or none of them.
/// Returns how many bytes they are.
fn withdraw_addresses(state: &mut Guard<'_>, range: Range, v2: bool) -> Granted<u64> {
    let mut bytes = 0;
    let mut count = 0;
    let mut twice = None;
    let chosen = |found: Range| v2 || found.start >= range.start;
    state.maps.for_each_in(range, |found, map| {
        if !chosen(found) {
            return false;
        }
        twice = map.is_withdrawn().then_some(found);
        bytes += found.last - found.start + 1;
        count += 1;
        twice.is_none()
    });
    if let Some(found) = twice {
        return Err(Refusal::at(found, EINVAL, c"its address is withdrawn"));
    }
    state.maps.for_each_in_mut(range, |found, map| {
        if chosen(found) {
            map.withdraw();
        }
        chosen(found)
    });
    state.vaddr_invalid += count;
    Ok(bytes)
}
