// SPDX-License-Identifier: GPL-2.0

//! Tests of complete spaces.

mod allocators;
mod fake_allocator;
pub(crate) mod guest;
mod guests;
mod handles;
mod ids;
mod notifiers;
mod races;
mod random;
mod sets;
mod spids;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    gfp::Gfp,
    id::{
        key::Key,
        range::IdRange,
        state::Right, //
    },
    notifier::{
        Event,
        Notifier,
        NotifierArgs,
        Scope, //
    },
    set::SetId,
    space::{
        KmemCaches,
        Space, //
    }, //
};

/// Creates a space of the ids from 1 to `capacity - 1`, without PASIDs of the kernel.
pub(crate) fn space(capacity: u32) -> Result<Arc<Space>> {
    space_from(1, capacity)
}

/// Creates a space of the ids from `floor` to `capacity - 1`.
fn space_from(floor: u32, capacity: u32) -> Result<Arc<Space>> {
    let space = Space::new(&KmemCaches::shared()?, floor, capacity, None);
    Arc::pin_init(space, GFP_KERNEL)
}

/// A notifier that calls a closure.
struct OnEvent<F>(F);

impl<F: Fn(Event, &NotifierArgs) + Send + Sync> Notifier for OnEvent<F> {
    fn notify(&self, event: Event, args: &NotifierArgs) {
        (self.0)(event, args);
    }
}

/// Registers a closure as a notifier.
fn on_event(
    space: &Space,
    scope: Scope,
    priority: i32,
    key: usize,
    f: impl Fn(Event, &NotifierArgs) + Send + Sync + 'static,
) -> Result {
    let notifier = Arc::new(OnEvent(f), GFP_KERNEL)?;
    space.notifiers.register(scope, priority, key, notifier)
}

/// Allocates any id in a set. It must be freed by its number.
fn alloc(space: &Space, set: SetId) -> Result<u32> {
    let key = space.alloc_in(set, IdRange::ALL, 0, Gfp::Kernel, Right::Anyone)?;
    Ok(key.id)
}

/// Returns the key of the id with this number, in any set.
fn any(id: u32) -> Key {
    Key::new(None, id)
}
