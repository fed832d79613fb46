// SPDX-License-Identifier: GPL-2.0

//! `vfio/groups/N` in debugfs: shows a group's devices and its holder without opening the group.

use core::{
    convert::Infallible,
    mem::MaybeUninit, //
};

use kernel::{
    debugfs::{
        Dir,
        File,
        Writer, //
    },
    fmt,
    prelude::*,
    sync::Arc, //
};

use super::Group;

/// The content of a group's file.
pub(super) struct Contents(Arc<Group>);

impl Writer for Contents {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_snapshot(f)
    }
}

/// Creates the file `name` for `group` in `folder`, and uses `slot` for it. Dropping the result
/// removes the file and waits for its readers.
pub(super) fn show(
    slot: KBox<MaybeUninit<File<Contents>>>,
    folder: &Dir,
    name: &CStr,
    group: Arc<Group>,
) -> Pin<KBox<File<Contents>>> {
    let contents = Ok::<_, Infallible>(Contents(group));
    let Ok(file) = slot.write_pin_init(folder.read_only_file(name, contents));
    file
}
