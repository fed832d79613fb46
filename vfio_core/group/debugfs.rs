// SPDX-License-Identifier: GPL-2.0

//! `vfio/groups/N` in debugfs: shows a group's devices and its holder without opening the group.

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

/// Creates the file `name` for `group` in `folder`. Dropping the result removes the file.
pub(super) fn show(
    folder: &Dir,
    name: &CStr,
    group: Arc<Group>,
) -> Result<Pin<KBox<File<Contents>>>> {
    KBox::pin_init(
        folder.read_only_file(name, Ok::<_, Error>(Contents(group))),
        GFP_KERNEL,
    )
}
