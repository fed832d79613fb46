// SPDX-License-Identifier: GPL-2.0

//! Mediated devices of the kernel's samples.

use anyhow::{
    Context,
    Result, //
};
use std::fs;

pub use vfio_client::mdev::{
    Mdev,
    Open,
    create,
    store,
    type_folder, //
};

/// The UUIDs of devices. Cases do not run concurrently.
pub const UUIDS: [&str; 3] = [
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a01",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a02",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a03",
];

/// Creates an `mtty` and opens it in a new container.
pub fn open_mtty() -> Result<(Mdev, Open)> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    // The caller's variables are dropped last to first: removing an open device would wait
    // forever.
    Ok((mdev, open))
}

/// Reads an attribute of a type.
pub fn type_attribute(name: &str, attribute: &str) -> Result<String> {
    let path = type_folder(name).join(attribute);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}
