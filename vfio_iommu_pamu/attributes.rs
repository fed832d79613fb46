// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_PAMU_GET_ATTR`, `VFIO_IOMMU_PAMU_SET_ATTR` and `VFIO_IOMMU_PAMU_GET_WINDOW`.

use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings,
    iommu::Access,
    task::Capability,
    uapi, //
};

use crate::{
    container::{
        Container,
        ContainerState,
        Stash, //
    },
    firmware,
    memory::PinnedBlock,
    request::{
        read_without_flags,
        Attribute,
        StashTarget,
        Value, //
    },
    windows::{
        Target,
        Window, //
    }, //
};

impl Container {
    /// Handles `VFIO_IOMMU_PAMU_GET_ATTR`.
    ///
    /// # Errors
    ///
    /// Those of [`Attribute::read`], `EFAULT`.
    pub(crate) fn ioctl_get_attribute(&self, arg: UserPtr) -> Result<isize> {
        let attribute = Attribute::read(arg)?;
        let state = self.lock();
        let value = match attribute {
            Attribute::Geometry => Value::Geometry(state.space.aperture()),
            Attribute::Windows => Value::Windows(state.space.window_count()),
            Attribute::Stash => {
                Value::Stash(state.stash.map_or_else(StashTarget::default, |s| s.target))
            }
            Attribute::Msi => Value::Msi(state.space.policy()),
        };
        drop(state);
        value.write(arg)?;
        Ok(0)
    }

    /// Handles `VFIO_IOMMU_PAMU_SET_ATTR`.
    ///
    /// # Errors
    ///
    /// Those of [`Value::read`]; `EBUSY` if mappings would be lost; `EINVAL` if the attributes are
    /// set in the wrong order; `ENOSPC` if the tables have no room for that many windows; `ENOMEM`.
    /// An error changes nothing.
    pub(crate) fn ioctl_set_attribute(&self, arg: UserPtr) -> Result<isize> {
        let value = Value::read(arg)?;
        let mut state = self.lock();
        match value {
            Value::Geometry(aperture) => {
                state.space.set_aperture(aperture)?;
                state.devices.unconfigure();
            }
            Value::Windows(count) => set_windows(&mut state, count)?,
            Value::Stash(target) => set_stash(&mut state, target)?,
            Value::Msi(policy) => state.space.set_policy(policy)?,
        }
        Ok(0)
    }

    /// Handles `VFIO_IOMMU_PAMU_GET_WINDOW`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` for a short argument, for flags, or for a window that doesn't exist.
    pub(crate) fn ioctl_window(&self, arg: UserPtr) -> Result<isize> {
        let mut user: bindings::vfio_pamu_window = read_without_flags(arg)?;
        let number = user.window;
        let privileged = Capability::SysAdmin.held();
        let state = self.lock();
        let (layout, content) = state.space.window(number)?;
        let report = match content {
            Some(content) => self.describe(content, privileged),
            None => Report::FREE,
        };
        user.iova = layout.start_of(number);
        drop(state);

        user.flags = report.flags;
        user.bank = report.bank;
        user.size = report.size;
        user.paddr = report.phys;
        uapi::write(arg, &user)?;
        Ok(0)
    }

    /// Returns the description of a window's content.
    fn describe(&self, content: &Window<PinnedBlock>, privileged: bool) -> Report {
        let mut flags = 0;
        if content.prot.contains(Access::Read) {
            flags |= bindings::VFIO_PAMU_WINDOW_READ;
        }
        if content.prot.contains(Access::Write) {
            flags |= bindings::VFIO_PAMU_WINDOW_WRITE;
        }
        if content.is_implicit() {
            flags |= bindings::VFIO_PAMU_WINDOW_IMPLICIT;
        }
        let (bank, phys) = match &content.target {
            Target::Memory(memory) => {
                flags |= bindings::VFIO_PAMU_WINDOW_MEMORY;
                (NO_BANK, memory.phys())
            }
            Target::Bank { bank, .. } => {
                flags |= bindings::VFIO_PAMU_WINDOW_MSI;
                let found = self.system.banks().get(*bank as usize);
                let phys = found.map_or(0, |bank| bank.page());
                (*bank, phys)
            }
        };
        Report {
            flags,
            bank,
            size: 1 << content.order,
            phys: if privileged { phys } else { 0 },
        }
    }
}

/// The bank number that means "no bank".
const NO_BANK: u32 = u32::MAX;

/// The output fields of `struct vfio_pamu_window`.
struct Report {
    flags: u32,
    bank: u32,
    size: u64,
    phys: u64,
}

impl Report {
    /// The report for a free window.
    const FREE: Self = Self {
        flags: 0,
        bank: NO_BANK,
        size: 0,
        phys: 0,
    };
}

/// Divides the aperture into windows, for all LIODNs or for none.
fn set_windows(state: &mut ContainerState, count: u32) -> Result {
    let attributes = state.attributes();
    let ContainerState { space, devices, .. } = state;
    let new = space.new_windows(count)?;
    let aperture = new.layout().aperture();
    let prepared = devices.prepare(count)?;
    new.set();
    devices.configure(aperture, prepared, attributes);
    Ok(())
}

/// Sets the cache that device writes are stashed in.
fn set_stash(state: &mut ContainerState, target: StashTarget) -> Result {
    if state.space.layout().is_none() {
        return Err(EINVAL);
    }
    let id = firmware::stash_of(target.cpu, target.cache)?;
    state.devices.set_stash(id);
    state.stash = Some(Stash { target, id });
    Ok(())
}
