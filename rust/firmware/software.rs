// SPDX-License-Identifier: GPL-2.0

//! Software nodes for tests.

use core::{
    marker::PhantomData,
    ops::Deref, //
};

use kernel::ffi::c_void;

use super::*;

/// The value of a property of a [`SoftwareNode`].
pub enum Value<'a> {
    /// An array of numbers.
    Numbers(&'a [u32]),
    /// A reference to another node.
    Node(&'a FwNode),
}

/// A software node. Dropping it removes the node.
///
/// It may refer to nodes that live as long as `'a`. A counted reference to it can outlive `'a`, and
/// then refers to nodes that no longer exist. This type is therefore only for tests, which drop all
/// references first.
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
