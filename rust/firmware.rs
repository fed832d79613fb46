// SPDX-License-Identifier: GPL-2.0

//! Nodes of firmware: what `kernel::device::property` can't find, and nodes of our own.
//!
//! C header: [`include/linux/property.h`](srctree/include/linux/property.h)

use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    device::{
        property::FwNode,
        Device, //
    },
    error::from_err_ptr,
    ffi::c_void,
    prelude::*,
    sync::aref::ARef, //
};

use crate::bindings;

/// The C structure of a node.
fn raw(node: &FwNode) -> *mut bindings::fwnode_handle {
    // CAST: `FwNode` is a transparent wrapper of the C structure.
    core::ptr::from_ref(node).cast_mut().cast()
}

/// The node above `node`.
pub fn parent(node: &FwNode) -> Option<ARef<FwNode>> {
    // SAFETY: The node is valid.
    let parent = NonNull::new(unsafe { bindings::fwnode_get_parent(raw(node)) })?;
    // SAFETY: The function returned a counted reference, which is ours now.
    Some(unsafe { ARef::from_raw(parent.cast()) })
}

/// The node that property `name` of `node` refers to.
pub fn reference(node: &FwNode, name: &CStr) -> Option<ARef<FwNode>> {
    // SAFETY: The node and the name are valid.
    let found = unsafe { bindings::fwnode_find_reference(raw(node), name.as_char_ptr(), 0) };
    let found = NonNull::new(from_err_ptr(found).ok()?)?;
    // SAFETY: The function returned a counted reference, which is ours now.
    Some(unsafe { ARef::from_raw(found.cast()) })
}

/// The node of a processor that is there.
pub fn of_cpu(cpu: u32) -> Option<ARef<FwNode>> {
    // SAFETY: Any number may be asked for.
    let dev = unsafe { bindings::get_cpu_device(cpu) };
    if dev.is_null() {
        return None;
    }
    // SAFETY: Devices of processors are static.
    let dev: &Device = unsafe { Device::from_raw(dev) };
    dev.fwnode().map(ARef::from)
}

/// The physical address of memory `index` of the platform device that has this node.
pub fn platform_memory(node: &FwNode, index: u32) -> Option<u64> {
    // SAFETY: The bus is static; the function compares with the node's address.
    let dev = unsafe {
        bindings::bus_find_device(
            &raw const bindings::platform_bus_type,
            core::ptr::null_mut(),
            raw(node).cast(),
            Some(bindings::device_match_fwnode),
        )
    };
    // SAFETY: The function returned a counted reference, which is ours now.
    let dev = unsafe { ARef::<Device>::from_raw(NonNull::new(dev)?.cast()) };
    // SAFETY: A device on the platform bus is the `dev` of a `platform_device`.
    let platform = unsafe {
        kernel::container_of!(
            core::ptr::from_ref(&*dev)
                .cast_mut()
                .cast::<bindings::device>(),
            bindings::platform_device,
            dev
        )
    };
    // SAFETY: The device is valid.
    let resource =
        unsafe { bindings::platform_get_resource(platform, bindings::IORESOURCE_MEM, index) };
    // SAFETY: It is null, or a resource of the device, which is held.
    unsafe { resource.as_ref() }.map(|resource| resource.start)
}

/// What a property of a [`SoftwareNode`] says.
pub enum Value<'a> {
    /// Numbers.
    Numbers(&'a [u32]),
    /// Another node.
    Node(&'a FwNode),
}

/// A node that no firmware has: it is removed when this is dropped.
///
/// It may refer to nodes that live as long as `'a`.
///
/// # Invariants
///
/// The pointer is a software node that was made by `fwnode_create_software_node()`.
pub struct SoftwareNode<'a>(NonNull<bindings::fwnode_handle>, PhantomData<&'a FwNode>);

impl<'a> SoftwareNode<'a> {
    /// Makes a node with these properties, below another one if `parent` is given.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what sysfs says.
    pub fn new(
        properties: &[(&CStr, Value<'a>)],
        parent: Option<&'a SoftwareNode<'_>>,
    ) -> Result<Self> {
        let mut references = KVec::with_capacity(properties.len(), GFP_KERNEL)?;
        for (_, value) in properties {
            let mut reference = bindings::software_node_ref_args::default();
            if let Value::Node(node) = value {
                reference.fwnode = raw(node);
            }
            references.push(reference, GFP_KERNEL)?;
        }
        let mut entries = KVec::with_capacity(properties.len() + 1, GFP_KERNEL)?;
        for ((name, value), reference) in Iterator::zip(properties.iter(), &references) {
            let (type_, pointer, length): (_, *const c_void, _) = match value {
                Value::Numbers(list) => (
                    bindings::dev_prop_type_DEV_PROP_U32,
                    list.as_ptr().cast(),
                    size_of_val(*list),
                ),
                Value::Node(_) => (
                    bindings::dev_prop_type_DEV_PROP_REF,
                    core::ptr::from_ref(reference).cast(),
                    size_of_val(reference),
                ),
            };
            let entry = bindings::property_entry {
                name: name.as_char_ptr(),
                length,
                type_,
                __bindgen_anon_1: bindings::property_entry__bindgen_ty_1 { pointer },
                ..Default::default()
            };
            entries.push(entry, GFP_KERNEL)?;
        }
        entries.push(bindings::property_entry::default(), GFP_KERNEL)?;
        let parent = parent.map_or(core::ptr::null_mut(), |parent| raw(parent));
        // SAFETY: The entries end with an empty one and are valid; the function copies them, with
        // names and values. The nodes that they refer to live as long as `'a`, as does the parent.
        let node = unsafe { bindings::fwnode_create_software_node(entries.as_ptr(), parent) };
        // INVARIANT: The function returned a node.
        let node = NonNull::new(from_err_ptr(node)?).ok_or(ENOMEM)?;
        Ok(Self(node, PhantomData))
    }
}

impl Deref for SoftwareNode<'_> {
    type Target = FwNode;

    fn deref(&self) -> &FwNode {
        // SAFETY: The node is valid by the type invariant; the layouts agree.
        unsafe { self.0.cast().as_ref() }
    }
}

impl Drop for SoftwareNode<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and this is the only place that removes it.
        unsafe { bindings::fwnode_remove_software_node(self.0.as_ptr()) };
    }
}
