// SPDX-License-Identifier: GPL-2.0

//! In the shape of the backend's map.rs.

use kernel::prelude::*;

use kernel_ext::iova::Range;

use super::{
    super::space::{
        HeldMut,
        Reservation,
        Vaddr, //
    },
    pages::DmaPages,
    Answer,
    Container, //
};

/// Where the program has the memory that it maps at `range`.
fn vaddr_of(range: Range, nth: usize) -> Vaddr {
    Vaddr::new((range.start as usize + 16 * nth) << kernel::page::PAGE_SHIFT)
}

impl Container {
    /// Maps.
    ///
    /// # Errors
    ///
    /// `EEXIST` if something is mapped there, `ENOSPC` if there are too many mappings.
    pub(super) fn map(&self, range: Range) -> Answer {
        let memory = Reservation::new(GFP_KERNEL_ACCOUNT)?;
        let begin = |held: &mut HeldMut<'_, Self>| {
            if held.dmas().len() >= self.limit {
                return Err(ENOSPC);
            }
            Ok(*held.layout)
        };
        let (vacant, layout) = self.space.lock_vacant(range, false, |_| Ok(()), begin)?;
        let mut pages = DmaPages::new(range, &self.machine);
        if layout.translated {
            pages.pin_map();
        }
        if layout.dirty_page_tracking {
            pages.reserve_dirty();
        }
        if !vacant.insert(vaddr_of(range, 0), pages, memory, self.limit) {
            return Err(ENOSPC);
        }
        Ok(0)
    }

    /// Gives a mapping whose address was invalidated another one.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is mapped there, `EINVAL` if that isn't exactly one mapping, or its
    /// address is valid.
    pub(super) fn change_vaddr(&self, range: Range) -> Answer {
        let (mut guard, ()) = self.space.lock(range, |held| {
            let found = held.dmas().first_in(range).ok_or(ENOENT)?;
            let mut valid = false;
            held.for_each_from(found.start, |_, dma| {
                valid = dma.vaddr().is_some();
                false
            });
            if valid || found != range {
                return Err(EINVAL);
            }
            Ok(())
        })?;
        guard.update(range, |found, _, _| self.machine.read(found));
        guard.with(|held| held.set_vaddr(range, Some(vaddr_of(range, 1))));
        Ok(0)
    }
}
