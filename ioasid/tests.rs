// SPDX-License-Identifier: GPL-2.0

//! Tests of complete spaces.

mod fake;
mod handles;
mod ids;
mod listeners;
mod races;
mod random;
mod scenario;
mod sets;
mod sources;
mod spids;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use kernel_ext::gfp::Gfp;

use crate::{
    key::Key,
    life::Right,
    range::IdRange,
    set_id::SetId,
    space::{
        Memory,
        Space, //
    }, //
};

/// Creates a space of the ids from 1 to `capacity - 1`, without PASIDs of the kernel.
fn space(capacity: u32) -> Result<Pin<KBox<Space>>> {
    space_from(1, capacity)
}

/// Creates a space of the ids from `floor` to `capacity - 1`.
fn space_from(floor: u32, capacity: u32) -> Result<Pin<KBox<Space>>> {
    let space = Space::new(&Memory::shared()?, floor, capacity, None);
    KBox::pin_init(space, GFP_KERNEL)
}

/// Creates a reference-counted space.
fn shared_space(capacity: u32) -> Result<Arc<Space>> {
    let space = Space::new(&Memory::shared()?, 1, capacity, None);
    Arc::pin_init(space, GFP_KERNEL)
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
