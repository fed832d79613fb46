// SPDX-License-Identifier: GPL-2.0

//! Migration of a device's state to another device.
//!
//! Userspace moves the device through the states of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`, and
//! reads the data from a file or writes them to one. The bus implements all of that, and rejects
//! data that are not from such a device. The driver only has to implement the three kinds of
//! [`Activity`], and to save and load its state as bytes.
//!
//! ```ignore
//! impl Device for Counter {
//!     const MIGRATION: Option<Migration<Self>> = Some(Migration::new());
//!     // ...
//! }
//!
//! impl Migrate for Counter {
//!     const VERSION: u32 = 1;
//!
//!     fn state_size(&self) -> usize {
//!         8
//!     }
//!
//!     fn set_activity(this: &Instance<Self>, activity: Activity) {
//!         *this.counts.lock() = activity != Activity::Stopped;
//!     }
//!
//!     fn save(this: &Instance<Self>, state: &mut [u8]) -> Result {
//!         state.copy_from_slice(&this.count.load(Relaxed).to_le_bytes());
//!         Ok(())
//!     }
//!
//!     fn load(this: &Instance<Self>, state: &[u8]) -> Result {
//!         let count = state.try_into().map_err(|_| EINVAL)?;
//!         this.count.store(u64::from_le_bytes(count), Relaxed);
//!         Ok(())
//!     }
//! }
//! ```

use kernel::prelude::*;

use super::Device;
use crate::instance::Instance;

/// What a device does on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// It does everything.
    #[default]
    Running,
    /// It must not access other devices, because userspace is about to stop the devices one after
    /// the other.
    Quiescent,
    /// It does nothing: it accesses no memory, signals no interrupt, and changes its state only on
    /// userspace accesses.
    Stopped,
}

/// A device whose state can be migrated to another device of its type. Drivers register the
/// implementation with [`Device::MIGRATION`].
pub trait Migrate: Device {
    /// The version of the state's format. A device accepts only this version.
    const VERSION: u32;

    /// Returns the size of the state in bytes. The result never changes for a device.
    fn state_size(&self) -> usize;

    /// Changes what the device does on its own. When this function returns, activity that is no
    /// longer allowed has ended. Requests from userspace for such activity are deferred or ignored
    /// from then on.
    ///
    /// A new device is [`Running`](Activity::Running). If the device has another activity at
    /// [`Device::reset`], including the reset after the last close, this function is called after
    /// the reset to set it to `Running`.
    fn set_activity(this: &Instance<Self>, activity: Activity);

    /// Saves the state of a stopped device to a zeroed buffer of
    /// [`state_size`](Migrate::state_size) bytes.
    ///
    /// # Errors
    ///
    /// The transition to `STOP_COPY` fails with the error.
    fn save(this: &Instance<Self>, state: &mut [u8]) -> Result;

    /// Loads the state of a stopped device from [`state_size`](Migrate::state_size) bytes. Their
    /// checksum is correct, but they can come from any sender: the driver must check everything
    /// that the device relies on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the bytes are not the state of such a device. Nothing changes on error.
    fn load(this: &Instance<Self>, state: &[u8]) -> Result;
}

/// The migration functions of a device, the value of [`Device::MIGRATION`].
pub struct Migration<D: Device> {
    pub(crate) version: u32,
    pub(crate) state_size: fn(&D) -> usize,
    pub(crate) set_activity: fn(&Instance<D>, Activity),
    pub(crate) save: fn(&Instance<D>, &mut [u8]) -> Result,
    pub(crate) load: fn(&Instance<D>, &[u8]) -> Result,
}

impl<D: Migrate> Migration<D> {
    /// Collects the functions of the device's [`Migrate`] implementation.
    #[expect(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            version: D::VERSION,
            state_size: D::state_size,
            set_activity: D::set_activity,
            save: D::save,
            load: D::load,
        }
    }
}
