// SPDX-License-Identifier: GPL-2.0

//! The right to work on maps without the container's lock.

use kernel::prelude::*;

use iommu_group::ranges::Range;

use kernel_ext::iommu::Prot;

use crate::maps::{
    Body,
    Map,
    Reservation, //
};

use super::{
    Container,
    Guard, //
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
        let body = map.body.take()?;
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

/// The right to work on the pages of one map, whose entry in the tree keeps its range meanwhile.
///
/// Dropping it takes the entry out of the tree.
///
/// # Invariants
///
/// The container's tree has an entry for `range`, without pages, that is counted as busy.
pub(crate) struct Claim<'a> {
    container: &'a Container,
    range: Range,
}

impl Claim<'_> {
    /// The addresses of the map.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Gives the map its pages, and lets others come to it.
    pub(crate) fn publish(self, body: Body) {
        let mut state = self.container.lock();
        if let Some(map) = state.maps.get_mut(self.range.last) {
            map.body = Some(body);
        }
        state.busy -= 1;
        drop(state);
        self.container.changed.notify_all();
        core::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.container.lock();
        if let Some(map) = state.maps.remove(self.range.last) {
            state.vaddr_invalid -= usize::from(map.vaddr_invalid);
        }
        state.available += 1;
        state.busy -= 1;
        drop(state);
        self.container.changed.notify_all();
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

    /// Calls `f` for each map, without the lock.
    ///
    /// # Errors
    ///
    /// The first that `f` returned; then it wasn't called for the maps after that one.
    pub(crate) fn for_each_body(&self, mut f: impl FnMut(Work<'_>, &mut Body) -> Result) -> Result {
        let mut left = Range::ALL;
        loop {
            let mut state = self.lock();
            let mut found = None;
            state.maps.for_each_in_mut(left, |range, map| {
                if let Some((claim, body)) = self.0.claim(range, map) {
                    found = Some((claim, body, map.vaddr, map.prot));
                }
                false
            });
            let Some((claim, mut body, vaddr, prot)) = found else {
                return Ok(());
            };
            state.busy += 1;
            drop(state);
            let last = claim.range().last;
            let done = f(
                Work {
                    claim: &claim,
                    vaddr,
                    prot,
                },
                &mut body,
            );
            claim.publish(body);
            done?;
            match last.checked_add(1) {
                Some(start) => left.start = start,
                None => return Ok(()),
            }
        }
    }

    /// Removes every map.
    pub(crate) fn remove_all(&self) {
        loop {
            let mut state = self.lock();
            let mut found = None;
            state.maps.for_each_in_mut(Range::ALL, |range, map| {
                found = self.0.claim(range, map);
                false
            });
            let Some((claim, body)) = found else {
                return;
            };
            state.busy += 1;
            drop(state);
            drop(body);
            drop(claim);
        }
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.lock().exclusive = false;
        self.0.changed.notify_all();
    }
}

/// A map to work on: see [`Exclusive::for_each_body`].
pub(crate) struct Work<'a> {
    /// The claim on the map.
    pub(crate) claim: &'a Claim<'a>,
    /// Its address in the program's memory.
    pub(crate) vaddr: usize,
    /// What devices may do.
    pub(crate) prot: Prot,
}
