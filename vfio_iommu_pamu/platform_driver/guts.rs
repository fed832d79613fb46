// SPDX-License-Identifier: GPL-2.0

//! The global utilities of an SoC: the revision of the SoC, and which PAMUs are bypassed.

use kernel::{
    device::Core,
    io::mem::DevresIoMem,
    of,
    platform,
    prelude::*,
    sync::Arc, //
};

use crate::system::Registration;

use super::{
    abi::GUTS,
    swapped,
    RegisterSpace, //
};

/// The system version register.
const SVR: usize = 0xa4;

/// The PAMU bypass enable register. Bit 31 is for the first PAMU, bit 30 for the second, and so on.
const PAMUBYPENR: usize = 0x604;

/// The bit of the version that tells whether there is a security engine.
const SECURITY: u32 = 0x8_0000;

/// The versions with erratum A-004510.
const A_004510: [u32; 13] = [
    0x8210_0010,
    0x8210_0011,
    0x8210_0110,
    0x8210_0111,
    0x8211_0310,
    0x8211_0311,
    0x8201_0020,
    0x8200_0020,
    0x8221_0010,
    0x8221_0020,
    0x8220_0010,
    0x8205_0010,
    0x8204_0010,
];

/// The global utilities.
pub(crate) struct Guts<S = DevresIoMem>(S);

impl<S: RegisterSpace> Guts<S> {
    /// Returns the global utilities with these registers.
    pub(super) fn new(space: S) -> Self {
        Self(space)
    }

    /// Returns the registers.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) fn space(&self) -> &S {
        &self.0
    }

    /// Returns whether this revision has erratum A-004510.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the registers are gone.
    pub(super) fn has_a_004510(&self) -> Result<bool> {
        let version = self.0.read(SVR).map(swapped).ok_or(ENXIO)?;
        Ok(A_004510.contains(&(version & !SECURITY)))
    }

    /// Stops bypassing the first `count` PAMUs. Returns the former value of the register.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the registers are gone; `EIO` if a PAMU stays bypassed.
    fn stop_bypassing(&self, count: usize) -> Result<u32> {
        let mask = u32::MAX.checked_shr(count as u32).unwrap_or(0);
        let former = self.0.read(PAMUBYPENR).ok_or(ENXIO)?;
        self.0.write(PAMUBYPENR, swapped(swapped(former) & mask));
        let now = self.0.read(PAMUBYPENR).ok_or(ENXIO)?;
        if swapped(now) & !mask != 0 {
            self.0.write(PAMUBYPENR, former);
            return Err(EIO);
        }
        Ok(former)
    }
}

/// Registered PAMUs that are no longer bypassed. They are bypassed again when this is dropped, until
/// [`keep`](Self::keep) is called: the drivers of devices would not survive a failed probe.
pub(crate) struct InEffect<S: RegisterSpace = DevresIoMem> {
    guts: Arc<Guts<S>>,
    former: Option<u32>,
    // Dropped last, which blocks all DMA through the PAMUs.
    registration: Registration,
}

impl<S: RegisterSpace> InEffect<S> {
    /// Stops bypassing the first `count` PAMUs, which were registered.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENXIO` if a PAMU stays bypassed.
    pub(super) fn new(
        guts: Arc<Guts<S>>,
        count: usize,
        registration: Registration,
    ) -> Result<Self> {
        Ok(Self {
            former: Some(guts.stop_bypassing(count)?),
            guts,
            registration,
        })
    }

    /// Returns the registration.
    pub(super) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Leaves the PAMUs in effect: dropping the result blocks all DMA.
    pub(super) fn keep(mut self) -> Self {
        self.former = None;
        self
    }
}

impl<S: RegisterSpace> Drop for InEffect<S> {
    fn drop(&mut self) {
        // A program may control a device of a container.
        if let Some(former) = self.former.filter(|_| !self.registration.is_in_use()) {
            self.guts.0.write(PAMUBYPENR, former);
        }
    }
}

/// Returns the global utilities of this machine, if their driver is bound.
pub(super) fn get() -> Option<Arc<Guts>> {
    GUTS.lock().clone()
}

/// The driver of the global utilities.
pub(crate) struct Driver;

/// The registered global utilities. [`get`] finds them as long as this lives. There is only one
/// such value.
pub(crate) struct Registered(());

impl Registered {
    /// Registers `guts`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the machine has other ones.
    fn new(guts: Arc<Guts>) -> Result<Self> {
        let mut registered = GUTS.lock();
        if registered.is_some() {
            return Err(EBUSY);
        }
        *registered = Some(guts);
        Ok(Self(()))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let guts = GUTS.lock().take();
        drop(guts);
    }
}

kernel::of_device_table!(
    OF_TABLE,
    <Driver as platform::Driver>::IdInfo,
    [
        (of::DeviceId::new(c"fsl,qoriq-device-config-1.0"), ()),
        (of::DeviceId::new(c"fsl,qoriq-device-config-2.0"), ())
    ]
);

impl platform::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = Registered;
    const OF_ID_TABLE: Option<of::IdTable<Self::IdInfo>> = Some(&OF_TABLE);

    fn probe<'bound>(
        pdev: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        register(pdev)
    }
}

/// Maps the registers and makes them available to [`get`].
fn register(pdev: &platform::Device<Core<'_>>) -> Result<Registered> {
    let memory = pdev.io_request_by_index(0).ok_or(ENODEV)?.iomap()?;
    let guts = Arc::new(Guts::new(memory.into_devres()?), GFP_KERNEL)?;
    Registered::new(guts)
}
