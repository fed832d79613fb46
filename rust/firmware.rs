// SPDX-License-Identifier: GPL-2.0

//! Firmware nodes: lookups that `kernel::device::property` lacks, and software nodes.
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

/// Returns the C structure of a node.
fn raw(node: &FwNode) -> *mut bindings::fwnode_handle {
    // CAST: `FwNode` is a transparent wrapper of the C structure.
    core::ptr::from_ref(node).cast_mut().cast()
}

/// Returns the parent of `node`.
pub fn parent(node: &FwNode) -> Option<ARef<FwNode>> {
    // SAFETY: The node is valid.
    let parent = NonNull::new(unsafe { bindings::fwnode_get_parent(raw(node)) })?;
    // SAFETY: The function returned a counted reference, which the result takes over.
    Some(unsafe { ARef::from_raw(parent.cast()) })
}

/// Returns the node that property `name` of `node` refers to.
pub fn reference(node: &FwNode, name: &CStr) -> Option<ARef<FwNode>> {
    // SAFETY: The node and the name are valid.
    let found = unsafe { bindings::fwnode_find_reference(raw(node), name.as_char_ptr(), 0) };
    let found = NonNull::new(from_err_ptr(found).ok()?)?;
    // SAFETY: The function returned a counted reference, which the result takes over.
    Some(unsafe { ARef::from_raw(found.cast()) })
}

/// Returns the node of a processor, if the processor is present.
pub fn of_cpu(cpu: u32) -> Option<ARef<FwNode>> {
    // SAFETY: The function accepts any number.
    let dev = unsafe { bindings::get_cpu_device(cpu) };
    if dev.is_null() {
        return None;
    }
    // SAFETY: Devices of processors are static.
    let dev: &Device = unsafe { Device::from_raw(dev) };
    dev.fwnode().map(ARef::from)
}

/// Returns the physical address of memory resource `index` of the platform device with this node.
pub fn platform_memory(node: &FwNode, index: u32) -> Option<u64> {
    // SAFETY: The bus is static, and the match function only compares the address of the node.
    let dev = unsafe {
        bindings::bus_find_device(
            &raw const bindings::platform_bus_type,
            core::ptr::null_mut(),
            raw(node).cast(),
            Some(bindings::device_match_fwnode),
        )
    };
    // SAFETY: The function returned a counted reference, which the result takes over.
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
    // SAFETY: The pointer is null, or a resource of the device, to which this function has a
    // reference.
    unsafe { resource.as_ref() }.map(|resource| resource.start)
}

/// The value of a property of a [`SoftwareNode`].
pub enum Value<'a> {
    /// An array of numbers.
    Numbers(&'a [u32]),
    /// A reference to another node.
    Node(&'a FwNode),
}

/// A software node. Dropping it removes the node.
///
/// It may refer to nodes that live as long as `'a`.
///
/// # Invariants
///
/// The pointer is a software node that was created by `fwnode_create_software_node()`.
pub struct SoftwareNode<'a>(NonNull<bindings::fwnode_handle>, PhantomData<&'a FwNode>);

impl<'a> SoftwareNode<'a> {
    /// Creates a node with these properties, as a child of `parent` if that is given.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or an error of sysfs.
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
        // SAFETY: The entries are valid and end with an empty one. The function copies them with
        // names and values. The nodes that they refer to live as long as `'a`, and so does the
        // parent.
        let node = unsafe { bindings::fwnode_create_software_node(entries.as_ptr(), parent) };
        // INVARIANT: The function returned a node.
        let node = NonNull::new(from_err_ptr(node)?).ok_or(ENOMEM)?;
        Ok(Self(node, PhantomData))
    }
}

impl Deref for SoftwareNode<'_> {
    type Target = FwNode;

    fn deref(&self) -> &FwNode {
        // SAFETY: By the type invariant the node is valid. Both types have the same layout.
        unsafe { self.0.cast().as_ref() }
    }
}

impl Drop for SoftwareNode<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the node isn't removed anywhere else.
        unsafe { bindings::fwnode_remove_software_node(self.0.as_ptr()) };
    }
}
