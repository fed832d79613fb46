// SPDX-License-Identifier: GPL-2.0

//! `vfio/groups/N` in debugfs: what a group consists of and who holds it, without opening it.

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

/// What the file of a group shows.
pub(super) struct Contents(Arc<Group>);

impl Writer for Contents {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_snapshot(f)
    }
}

/// Shows `group` as the file `name` in `folder` while the result lives.
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
