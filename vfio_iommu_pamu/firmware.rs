// SPDX-License-Identifier: GPL-2.0

//! Reads firmware properties of devices, from a device tree or from software nodes.

use kernel::{
    device::{
        property::FwNode,
        Device, //
    },
    prelude::*,
    sync::aref::ARef, //
};

pub(crate) use kernel_ext::firmware::is_pci;
use kernel_ext::firmware::{
    of_cpu,
    parent,
    pci_controller,
    reference, //
};

use crate::{
    msi::MsiBank,
    paace::StashId, //
};

/// Returns the LIODNs of `dev`. A PCI device has those of its controller.
///
/// # Errors
///
/// `ENODEV` if it has none, `ENOMEM`.
pub(crate) fn liodns_of(dev: &Device) -> Result<KVec<u32>> {
    let controller = pci_controller(dev);
    let master = controller.as_deref().unwrap_or(dev);
    liodns(master.fwnode().ok_or(ENODEV)?)
}

/// Returns the LIODNs of a node.
fn liodns(node: &FwNode) -> Result<KVec<u32>> {
    let name = c"fsl,liodn";
    let count = node.property_count_elem::<u32>(name).map_err(|_| ENODEV)?;
    let liodns = node.property_read_array_vec::<u32>(name, count)?.optional();
    liodns.filter(|liodns| !liodns.is_empty()).ok_or(ENODEV)
}

/// Returns the LIODNs of all nodes in the tree that contains `node`.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn all_liodns(node: &FwNode) -> Result<KVec<u32>> {
    let mut all = KVec::new();
    for_each(&root(node), &mut |node| {
        if let Ok(liodns) = liodns(node) {
            all.extend_from_slice(&liodns, GFP_KERNEL)?;
        }
        Ok(())
    })?;
    Ok(all)
}

/// Returns the MSI banks in the tree that contains the node of `dev`.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn banks(dev: &Device) -> Result<KVec<MsiBank>> {
    let mut banks = KVec::new();
    let Some(node) = dev.fwnode() else {
        return Ok(banks);
    };
    for_each(&root(node), &mut |node| {
        if let Some(bank) = MsiBank::of_node(node) {
            banks.push(bank, GFP_KERNEL)?;
        }
        Ok(())
    })?;
    Ok(banks)
}

/// Returns the root of the tree that contains `node`.
fn root(node: &FwNode) -> ARef<FwNode> {
    let mut root = ARef::from(node);
    while let Some(above) = parent(&root) {
        root = above;
    }
    root
}

/// Calls `f` for `node` and all nodes below it.
fn for_each(node: &FwNode, f: &mut dyn FnMut(&FwNode) -> Result) -> Result {
    f(node)?;
    for child in node.children() {
        for_each(&child, f)?;
    }
    Ok(())
}

/// Returns the stash identifier of the first, second or third level cache of processor `cpu`.
///
/// # Errors
///
/// `EINVAL` if the cache doesn't exist, or has no valid stash identifier.
pub(crate) fn stash_of(cpu: u32, level: u32) -> Result<StashId> {
    stash(of_cpu(cpu).ok_or(EINVAL)?, level)
}

/// Returns the stash identifier of a cache of the processor with this node. The processor's node is
/// also that of the first level cache; each node refers to that of the next level.
fn stash(mut node: ARef<FwNode>, level: u32) -> Result<StashId> {
    if !(1..=3).contains(&level) {
        return Err(EINVAL);
    }
    for _ in 1..level {
        node = reference(&node, c"next-level-cache").ok_or(EINVAL)?;
    }
    let id = node.property_read::<u32>(c"cache-stash-id").optional();
    let id = id
        .and_then(|id| u8::try_from(id).ok())
        .and_then(core::num::NonZero::new);
    id.map(StashId).ok_or(EINVAL)
}

#[kunit_tests(vfio_pamu_firmware)]
mod tests {
    use kernel_ext::firmware::{
        SoftwareNode,
        Value, //
    };

    use super::*;

    #[test]
    fn liodns_of_nodes() -> Result {
        let bus = SoftwareNode::new(&[], None)?;
        let one = SoftwareNode::new(&[(c"fsl,liodn", Value::Numbers(&[7]))], Some(&bus))?;
        let four = [1, 2, 0x4ff, 9];
        let more = SoftwareNode::new(&[(c"fsl,liodn", Value::Numbers(&four))], Some(&one))?;
        assert_eq!(liodns(&bus).err(), Some(ENODEV));
        assert_eq!(*liodns(&one)?, [7]);
        assert_eq!(*liodns(&more)?, four);
        // The result is the same from every node of the tree.
        for node in [&bus, &one, &more] {
            let all = all_liodns(node)?;
            assert_eq!(all.len(), 5);
            assert!([1, 2, 7, 9, 0x4ff].iter().all(|liodn| all.contains(liodn)));
        }
        Ok(())
    }

    #[test]
    fn stashes_of_caches() -> Result {
        let id = |number| (c"cache-stash-id", Value::Numbers(number));
        let third = SoftwareNode::new(&[id(&[31])], None)?;
        let next = || (c"next-level-cache", Value::Node(&third));
        let second = SoftwareNode::new(&[next()], None)?;
        let next = (c"next-level-cache", Value::Node(&second));
        let cpu = SoftwareNode::new(&[id(&[255]), next], None)?;
        let at = |level| stash(ARef::from(&*cpu), level).map(|id| id.0.get());
        assert_eq!(at(1), Ok(255));
        // A cache without an identifier, and levels that don't exist.
        assert_eq!(at(2), Err(EINVAL));
        assert_eq!(at(3), Ok(31));
        assert_eq!((at(0), at(4)), (Err(EINVAL), Err(EINVAL)));
        assert_eq!(stash(ARef::from(&*third), 2).err(), Some(EINVAL));
        for bad in [0, 256, u32::MAX] {
            let bad = [bad];
            let cpu = SoftwareNode::new(&[(c"cache-stash-id", Value::Numbers(&bad))], None)?;
            assert_eq!(stash(ARef::from(&*cpu), 1).err(), Some(EINVAL));
        }
        assert_eq!(stash_of(u32::MAX, 1).err(), Some(EINVAL));
        Ok(())
    }
}
