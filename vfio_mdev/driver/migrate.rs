// SPDX-License-Identifier: GPL-2.0

//! Moving what a device is from one device to another.
//!
//! A program moves the device through the states of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`, and reads
//! the data from a file, or writes them to one. All of that is the bus's work, and so is refusing data
//! that are not of such a device. The driver only knows three kinds of [`Activity`], and its state as bytes.
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
use crate::abi::instance::Instance;

/// What a device does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// All that it is told to.
    #[default]
    Running,
    /// Not what reaches other devices: the program is about to stop them one after the other.
    Quiescent,
    /// Nothing: it reaches no memory, signals no interrupt, and changes only what a program accesses.
    Stopped,
}

/// A device whose state can be moved to another one of its type. [`Device::MIGRATION`] says so to the bus.
pub trait Migrate: Device {
    /// The version of the state's format. A device takes no state of another version.
    const VERSION: u32;

    /// How many bytes the state has. Always the same for a device.
    fn state_size(&self) -> usize;

    /// Changes what the device does by itself. What it does meanwhile has ended when this returns, if it
    /// may go on no longer; what it is told to do from now on has to wait, or to be ignored.
    ///
    /// A device is [`Running`](Activity::Running) when it is made. After [`Device::reset`], also that which
    /// follows the last close, this is called if it was not, to make it so.
    fn set_activity(this: &Instance<Self>, activity: Activity);

    /// Writes the state, that of a stopped device, to a buffer of [`state_size`](Migrate::state_size)
    /// zeroes.
    ///
    /// # Errors
    ///
    /// What the change to `STOP_COPY` then fails with.
    fn save(this: &Instance<Self>, state: &mut [u8]) -> Result;

    /// Gives a stopped device the state, of [`state_size`](Migrate::state_size) bytes. They arrived as they
    /// were sent, but it may have been anybody who sent them: check all that the device relies on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it isn't the state of such a device. What fails changes nothing.
    fn load(this: &Instance<Self>, state: &[u8]) -> Result;
}

/// How the bus moves devices: the value of [`Device::MIGRATION`].
pub struct Migration<D: Device> {
    pub(crate) version: u32,
    pub(crate) state_size: fn(&D) -> usize,
    pub(crate) set_activity: fn(&Instance<D>, Activity),
    pub(crate) save: fn(&Instance<D>, &mut [u8]) -> Result,
    pub(crate) load: fn(&Instance<D>, &[u8]) -> Result,
}

impl<D: Migrate> Migration<D> {
    /// As the device says by [`Migrate`].
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
