// SPDX-License-Identifier: GPL-2.0

//! In the shape of the backend's attach.rs.

use kernel::prelude::*;

use kernel_ext::iova::Range;

use super::{
    super::space::WholeGuard,
    Answer,
    Container,
    Layout, //
};

impl Container {
    fn lock_to_attach(
        &self,
        is_here: impl FnOnce(&Layout) -> bool,
    ) -> Result<WholeGuard<'_, Self>> {
        self.space.lock_all_killable(|held| {
            Self::check_vaddrs_valid(held)?;
            if is_here(held.layout) {
                return Err(EINVAL);
            }
            Ok(())
        })
    }

    /// A group with an IOMMU comes, and everything is pinned and mapped; or fails, if `in_vain`, at
    /// the last mapping.
    ///
    /// # Errors
    ///
    /// `EBUSY` while an address is invalid, `EINVAL` if it is here, `EPERM` if a mapping can't be
    /// pinned.
    pub(super) fn attach(&self, in_vain: bool) -> Answer {
        let mut whole = self.lock_to_attach(|layout| layout.translated)?;
        let mut left = whole.with(|held| held.dmas().len());
        let replayed = whole.try_update(Range::ALL, |_, vaddr, pages| {
            left = left.saturating_sub(1);
            if in_vain && left == 0 {
                return Err(EPERM);
            }
            vaddr.ok_or(EBUSY)?;
            pages.pin_map();
            Ok(())
        });
        if left != 0 {
            self.machine
                .blame("a group is attached, but not all is mapped");
        }
        match replayed {
            Ok(()) => whole.layout(|layout| layout.translated = true),
            Err(e) => {
                whole.update(Range::ALL, |_, _, pages| pages.unmap());
                return Err(e);
            }
        }
        Ok(0)
    }

    /// A group of emulated devices comes.
    ///
    /// # Errors
    ///
    /// `EBUSY` while an address is invalid, `EINVAL` if it is here.
    pub(super) fn attach_emulated(&self) -> Answer {
        let mut whole = self.lock_to_attach(|layout| layout.emulated)?;
        whole.layout(|layout| layout.emulated = true);
        Ok(0)
    }

    /// The group with an IOMMU goes, and with the last one everything that is mapped.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is none.
    pub(super) fn detach(&self) -> Answer {
        let mut whole = self.space.lock_all();
        let layout = whole.layout(|layout| {
            let before = *layout;
            layout.translated = false;
            before
        });
        if !layout.translated {
            return Err(EINVAL);
        }
        if layout.emulated {
            whole.update(Range::ALL, |_, _, pages| pages.unmap());
        } else {
            remove_all(&mut whole);
        }
        let wrote_anywhere = whole.with(|held| !*held.mutex_data);
        if layout.dirty_page_tracking && wrote_anywhere {
            whole.update(Range::ALL, |_, _, pages| pages.add_dirty(pages.range()));
        }
        Ok(0)
    }

    /// The group of emulated devices goes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is none.
    pub(super) fn detach_emulated(&self) -> Answer {
        let mut whole = self.space.lock_all();
        let layout = whole.layout(|layout| {
            let before = *layout;
            layout.emulated = false;
            before
        });
        if !layout.emulated {
            return Err(EINVAL);
        }
        if !layout.translated {
            remove_all(&mut whole);
        }
        Ok(0)
    }

    /// All groups go.
    pub(super) fn detach_all(&self) {
        let mut whole = self.space.lock_all();
        whole.layout(|layout| (layout.translated, layout.emulated) = (false, false));
        remove_all(&mut whole);
    }
}

/// Removes every mapping.
fn remove_all(whole: &mut WholeGuard<'_, Container>) {
    let mut rest = Some(Range::ALL);
    while let Some(range) = rest {
        let (pages, others) = whole.with(|held| held.remove_some(range));
        drop(pages);
        rest = others;
    }
}
