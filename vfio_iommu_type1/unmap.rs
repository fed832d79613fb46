// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_UNMAP_DMA`.

use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use iommu_group::ranges::Range;

use crate::{
    abi::UnmapDma,
    container::{
        Container,
        Guard, //
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
        let size = core::mem::size_of::<UnmapDma>();
        let mut user: UnmapDma = UserSlice::new(arg, size).reader().read()?;
        if (user.argsz as usize) < size {
            return Err(EINVAL);
        }
        let request = UnmapRequest::new(user.flags, user.iova, user.size)?;
        user.size = self.unmap(&request)?;
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
    /// Those of [`UnmapRequest::range`]; `EINVAL` for a part of a map, or if an address is to be
    /// withdrawn twice.
    fn unmap(&self, request: &UnmapRequest) -> Result<u64> {
        let mut state = self.lock();
        self.wait_settled(&mut state);
        let range = request.range(state.page_size())?;
        self.wait_idle(&mut state, range);
        if self.v2 && !request.all {
            check_whole(&state, range)?;
        }
        if request.vaddr {
            return withdraw_addresses(&mut state, range, self.v2);
        }

        let mut bytes = 0;
        let mut count = 0;
        let v2 = self.v2;
        state.maps.for_each_in_mut(range, |found, map| {
            if !v2 && found.start < range.start {
                return false;
            }
            map.doomed = true;
            count += 1;
            bytes += found.last - found.start + 1;
            true
        });
        state.busy += count;
        self.remove_doomed(state, range);
        Ok(bytes)
    }

    /// Removes the maps in `range` that were chosen for it.
    fn remove_doomed<'a>(&'a self, mut state: Guard<'a>, range: Range) {
        loop {
            let mut found = None;
            state.maps.for_each_in_mut(range, |range, map| {
                if map.doomed {
                    found = self.claim(range, map);
                }
                found.is_none()
            });
            let Some((claim, body)) = found else {
                return;
            };
            drop(state);
            // First the pages, then the entry: until the IOMMU has forgotten the addresses nobody
            // may map there.
            drop(body);
            drop(claim);
            state = self.lock();
        }
    }
}

/// Checks that `range` has no part of a map, but whole ones.
fn check_whole(state: &Guard<'_>, range: Range) -> Result {
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
