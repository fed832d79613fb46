// SPDX-License-Identifier: GPL-2.0

//! What firmware says about devices: a device tree, or software nodes where there is none.

use kernel::{
    device::{
        property::FwNode,
        Device, //
    },
    prelude::*, //
};

/// The LIODNs of `dev`.
///
/// # Errors
///
/// `ENODEV` if it has none, `ENOMEM`.
pub(crate) fn liodns_of(dev: &Device) -> Result<KVec<u32>> {
    liodns(dev.fwnode().ok_or(ENODEV)?)
}

/// The LIODNs of a firmware node.
pub(crate) fn liodns(node: &FwNode) -> Result<KVec<u32>> {
    let name = c"fsl,liodn";
    let count = node.property_count_elem::<u32>(name).map_err(|_| ENODEV)?;
    let liodns = node.property_read_array_vec::<u32>(name, count)?;
    liodns
        .optional()
        .filter(|liodns| !liodns.is_empty())
        .ok_or(ENODEV)
}
