// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_UNMAP_DMA`.

use core::mem::size_of;

use kernel::{
    pr_warn_once,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use iommu_group::ranges::Range;

use crate::{
    abi::{
        Bitmap,
        UnmapDma, //
    },
    container::{
        Container,
        Guard, //
    },
    dirty::UserBitmap,
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
        if (user.argsz as usize) < size {
            return Err(EINVAL);
        }
        let request = UnmapRequest::new(user.flags, user.iova, user.size)?;
        let mut bitmap = None;
        if request.dirty {
            if (user.argsz as usize) < size + size_of::<Bitmap>() {
                return Err(EINVAL);
            }
            bitmap = Some(UserBitmap::read(arg.wrapping_byte_add(size), user.size)?);
        }
        user.size = self.unmap(&request, bitmap.as_ref())?;
        UserSlice::new(arg, size).writer().write(&user)?;
        Ok(0)
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
    fn unmap(&self, request: &UnmapRequest, bitmap: Option<&UserBitmap>) -> Result<u64> {
        let mut state = self.lock();
        self.wait_settled(&mut state);
        if request.vaddr && !state.emulated.is_empty() {
            return Err(EBUSY);
        }
        let page_size = state.page_size();
        let range = request.range(page_size)?;
        if bitmap.is_some_and(|bitmap| !state.tracks_dirty || bitmap.page_size != page_size) {
            return Err(EINVAL);
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
                pr_warn_once!("a driver doesn't give pages back that are being unmapped\n");
                return Err(EBUSY);
            }
            asked += 1;
            drop(state);
            self.notify(pinned);
            state = self.lock();
        }

        let mut bytes = 0;
        let mut count = 0;
        state.maps.for_each_in_mut(range, |found, map| {
            if !self.takes(range, found) {
                return false;
            }
            map.doomed = true;
            count += 1;
            bytes += found.last - found.start + 1;
            true
        });
        state.busy += count;
        self.remove_doomed(state, range, bitmap)?;
        Ok(bytes)
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
            if map.body.as_ref().is_some_and(|body| body.pins().is_some()) {
                pinned = Some(found);
            }
            pinned.is_none()
        });
        pinned
    }

    /// Removes the maps in `range` that were chosen for it, having told which of their pages are dirty.
    fn remove_doomed<'a>(
        &'a self,
        mut state: Guard<'a>,
        range: Range,
        bitmap: Option<&UserBitmap>,
    ) -> Result {
        loop {
            let mut found = None;
            state.maps.for_each_in_mut(range, |range, map| {
                if map.doomed {
                    found = self.claim(range, map);
                }
                found.is_none()
            });
            let Some((claim, body)) = found else {
                return Ok(());
            };
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
            // First the pages, then the entry: until the IOMMU has forgotten the addresses nobody
            // may map there.
            drop(body);
            drop(claim);
            state = self.lock();
        }
    }

    /// Leaves the maps in `range` alone that were chosen for removal. The first one is claimed.
    fn spare(&self, range: Range) {
        let mut state = self.lock();
        let mut spared = 0;
        state.maps.for_each_in_mut(range, |_, map| {
            spared += usize::from(map.doomed && map.body.is_some());
            map.doomed = false;
            true
        });
        state.busy -= spared;
    }
}

/// How often drivers are asked to give pages back.
const MAX_ASKED: usize = 10;

/// Checks that `range` has no part of a map, but whole ones.
pub(crate) fn check_whole(state: &Guard<'_>, range: Range) -> Result {
    for end in [range.start, range.last] {
        let point = Range {
            start: end,
            last: end,
        };
        if let Some((found, _)) = state.maps.first_in(point) {
            if !range.contains(found) {
                return Err(EINVAL);
            }
        }
    }
    Ok(())
}

/// Marks the maps in `range` as having no valid address in the program's memory, all or none of them.
/// Returns how many bytes they are.
fn withdraw_addresses(state: &mut Guard<'_>, range: Range, v2: bool) -> Result<u64> {
    let mut bytes = 0;
    let mut count = 0;
    let mut twice = false;
    let chosen = |found: Range| v2 || found.start >= range.start;
    state.maps.for_each_in(range, |found, map| {
        if !chosen(found) {
            return false;
        }
        twice = map.vaddr_invalid;
        bytes += found.last - found.start + 1;
        count += 1;
        !twice
    });
    if twice {
        return Err(EINVAL);
    }
    state.maps.for_each_in_mut(range, |found, map| {
        map.vaddr_invalid = chosen(found);
        map.vaddr_invalid
    });
    state.vaddr_invalid += count;
    Ok(bytes)
}
