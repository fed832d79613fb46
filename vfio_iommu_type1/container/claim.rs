// SPDX-License-Identifier: GPL-2.0

//! The right to work on maps without the container's lock.

use kernel::prelude::*;

use iommu_group::ranges::Range;

use crate::maps::{
    Body,
    Map,
    Reservation, //
};

use super::{
    Container,
    Guard,
    State, //
};

impl Container {
    /// Enters a new map, to be published when its pages are there.
    pub(crate) fn claim_new(
        &self,
        state: &mut Guard<'_>,
        range: Range,
        map: Map,
        memory: Reservation,
    ) -> Claim<'_> {
        state.maps.insert(range.last, map, memory);
        state.available -= 1;
        state.busy += 1;
        Claim {
            container: self,
            range,
        }
    }

    /// Takes the pages out of a map that nobody else works on. The caller counts it as busy.
    pub(crate) fn claim(&self, range: Range, map: &mut Map) -> Option<(Claim<'_>, Body)> {
        let body = map.take_body()?;
        let claim = Claim {
            container: self,
            range,
        };
        Some((claim, body))
    }

    /// Waits until nobody works on any map, and keeps it so.
    pub(crate) fn exclusive(&self) -> Exclusive<'_> {
        let mut state = self.lock();
        self.wait_settled(&mut state);
        state.exclusive = true;
        while state.busy != 0 {
            self.wait(&mut state);
        }
        Exclusive(self)
    }
}

/// The right to work on the pages of a map, whose entry in the tree keeps its range meanwhile; or on
/// those of several maps that follow one another, to remove them.
///
/// Dropping it takes the entries out of the tree.
///
/// # Invariants
///
/// The container's tree has entries for all of `range` and no more, without pages, that are counted
/// as busy.
pub(crate) struct Claim<'a> {
    container: &'a Container,
    range: Range,
}

impl Claim<'_> {
    /// The addresses of the map.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Adds the entry at `range`, the next one in the tree, whose pages were taken out.
    pub(crate) fn extend(&mut self, range: Range) {
        // INVARIANT: The entry is without pages, and was counted as busy when it was chosen.
        self.range.last = range.last;
    }

    /// Gives the map its pages, and lets others come to it.
    pub(crate) fn publish(self, body: Body) {
        self.publish_with(|_| body);
    }

    /// As [`publish`](Self::publish), the pages being what `f` returns, which finds the state locked.
    pub(crate) fn publish_with(self, f: impl FnOnce(&State) -> Body) {
        let mut state = self.container.lock();
        let body = f(&state);
        if let Some(map) = state.maps.get_mut(self.range.last) {
            map.put_body(body);
        }
        state.busy -= 1;
        self.container.changed(state);
        core::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.container.lock();
        let (mut removed, mut withdrawn) = (0, 0);
        state.maps.remove_in(self.range, |map| {
            removed += 1;
            withdrawn += usize::from(map.is_withdrawn());
        });
        state.vaddr_invalid -= withdrawn;
        state.available += removed as u32;
        state.busy -= removed;
        self.container.changed(state);
    }
}

/// The right to change groups and domains, and every map.
///
/// # Invariants
///
/// No map is claimed, and `exclusive` is set for this value.
pub(crate) struct Exclusive<'a>(&'a Container);

impl Exclusive<'_> {
    /// Locks the state.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.0.lock()
    }

    /// Calls `f` for each map, without the lock, with the map's address in the program's memory.
    ///
    /// # Errors
    ///
    /// The first that `f` returned; then it wasn't called for the maps after that one.
    pub(crate) fn for_each_body(
        &self,
        mut f: impl FnMut(Range, usize, &mut Body) -> Result,
    ) -> Result {
        let mut left = Range::ALL;
        loop {
            let mut state = self.lock();
            let mut found = None;
            state.maps.for_each_in_mut(left, |range, map| {
                if let Some((claim, body)) = self.0.claim(range, map) {
                    found = Some((claim, body, map.vaddr()));
                }
                false
            });
            let Some((claim, mut body, vaddr)) = found else {
                return Ok(());
            };
            state.busy += 1;
            drop(state);
            let range = claim.range();
            let done = f(range, vaddr, &mut body);
            claim.publish(body);
            done?;
            match range.last.checked_add(1) {
                Some(start) => left.start = start,
                None => return Ok(()),
            }
        }
    }

    /// Removes every map.
    pub(crate) fn remove_all(&self) {
        let mut state = self.lock();
        let doomed = state.doom(Range::ALL, |_| true);
        // It doesn't fail, as nobody is told which pages are dirty.
        let _ = self.0.remove_doomed(state, Range::ALL, doomed.maps, None);
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        let mut state = self.lock();
        state.exclusive = false;
        self.0.changed(state);
    }
}
