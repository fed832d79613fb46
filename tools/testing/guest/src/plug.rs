// SPDX-License-Identifier: GPL-2.0

//! Places where devices can be plugged in and pulled out, while the machine runs.
//!
//! The machine of the set `hotplug` has two: a root port, whose `edu` is alone in its group, and a
//! bridge to conventional PCI, behind which all devices share the group of the bridge.

use crate::qmp::Qmp;
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    time::Duration, //
};
use vfio_client::{
    pci,
    wait, //
};

/// The port with a device of its own.
const PORT: &str = "0000:00:06.0";
/// The device in the port.
pub const HOT: &str = "0000:01:00.0";
/// The bridge to conventional PCI.
pub const BRIDGE: &str = "0000:02:00.0";
/// The device behind the bridge that is always there.
pub const FIRST: &str = "0000:03:01.0";
/// The device behind the bridge that comes and goes.
pub const SECOND: &str = "0000:03:02.0";

/// What the kernel does about a button, a new device or a missing one is done by then: it waits
/// five seconds for a second press, and one for the power.
pub const LIMIT: Duration = Duration::from_secs(40);

/// The kind of all these devices, for the machine.
const EDU: &str = "edu";

/// Waits for something.
pub fn until(what: &str, limit: Duration, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let done = wait::until(limit, condition)?;
    ensure!(done, "waited {} s for {what}", limit.as_secs());
    Ok(())
}

/// Tells whether the kernel has a device.
pub fn present(bdf: &str) -> bool {
    pci::sysfs(bdf).exists()
}

/// Tells whether the device file of a group is there.
pub fn node(group: u32) -> bool {
    Path::new(&format!("/dev/vfio/{group}")).exists()
}

/// Waits until the kernel has let go of a device.
pub fn wait_absent(bdf: &str) -> Result<()> {
    until(&format!("{bdf} to go"), LIMIT, || Ok(!present(bdf)))
}

fn arguments(bus: &str, slot: u32) -> String {
    format!(r#""bus": "{bus}", "addr": "{slot:#x}", "dma_mask": 18446744073709551615"#)
}

/// The place behind the bridge; it is empty again when this is dropped.
#[derive(Debug)]
pub struct Second(Qmp);

impl Second {
    const ID: &str = "second";

    /// Makes the group of the bridge viable.
    ///
    /// The driver of the bridge is one that uses the DMA of the host: while it is bound, no program
    /// can have the group. Nothing here needs it, since the bus is told to look by itself.
    pub fn place() -> Result<Self> {
        if pci::driver(BRIDGE).is_some() {
            pci::unbind(BRIDGE)?;
        }
        Ok(Self(Qmp::open()?))
    }

    /// Plugs in the device and lets the kernel find it.
    pub fn plug(&mut self) -> Result<()> {
        self.0.add(EDU, Self::ID, &arguments("bridge", 2))?;
        pci::write_attribute(BRIDGE, "rescan", "1")?;
        ensure!(present(SECOND), "{SECOND} was not found");
        Ok(())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        if present(SECOND) {
            let _ = pci::write_attribute(SECOND, "remove", "1");
        }
        // It fails when there is none.
        if self.0.delete(Self::ID).is_ok() {
            let _ = self.0.wait_gone(Self::ID, LIMIT);
        }
    }
}

/// The port; a device is in it again, bound to `vfio-pci`, when this is dropped.
#[derive(Debug)]
pub struct Port(Qmp);

impl Port {
    const ID: &str = "hot";

    /// Finds the device in its place.
    pub fn with_device() -> Result<Self> {
        let driver = pci::driver(HOT);
        ensure!(
            driver.as_deref() == Some("vfio-pci"),
            "{HOT} must be bound to vfio-pci, but its driver is {driver:?}"
        );
        Ok(Self(Qmp::open()?))
    }

    /// Presses the button: the kernel is asked to let the device go.
    pub fn press_button(&mut self) -> Result<()> {
        self.0.delete(Self::ID)
    }

    /// Pulls the device out: it is gone before the kernel hears of it.
    ///
    /// The machine takes a device when the port cuts its power. This cuts it behind the kernel's
    /// back, and is done with it before the kernel looks.
    pub fn pull(&mut self) -> Result<()> {
        let control = SlotControl::find()?;
        let now = control.read()?;
        control.write((now | SlotControl::OFF) & !SlotControl::INTERRUPTS)?;
        control.write(now)?;
        self.0.wait_gone(Self::ID, LIMIT)
    }

    /// Tells whether the device has left the machine.
    pub fn is_empty(&mut self) -> Result<bool> {
        self.0.is_gone(Self::ID)
    }

    /// Waits until the device has left the machine.
    pub fn wait_empty(&mut self) -> Result<()> {
        self.0.wait_gone(Self::ID, LIMIT)
    }

    /// Plugs in a new device, and gives it to `vfio-pci`.
    pub fn plug(&mut self) -> Result<()> {
        // The kernel turns the power off a moment after the old device is gone; what is there by then
        // goes too.
        let control = SlotControl::find()?;
        until("the port to be off", LIMIT, || {
            Ok(control.read()? & SlotControl::OFF == SlotControl::OFF)
        })?;
        self.0.add(EDU, Self::ID, &arguments("hotport", 0))?;
        until("the new device", LIMIT, || Ok(present(HOT)))?;
        // The kernel shows a device a moment before it is ready for drivers.
        until("a driver for the new device", LIMIT, || {
            let _ = pci::bind(HOT, "vfio-pci");
            Ok(pci::driver(HOT).is_some() && node(pci::group_of(HOT)?))
        })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.0.is_gone(Self::ID).unwrap_or(false) {
            let _ = wait_absent(HOT).and_then(|()| self.plug());
        } else if pci::driver(HOT).is_none() {
            let _ = pci::bind(HOT, "vfio-pci");
        }
    }
}

/// The register of the port for power, light and interrupts.
#[derive(Debug)]
struct SlotControl {
    config: fs::File,
    offset: u64,
}

impl SlotControl {
    const INTERRUPTS: u16 = 1 << 5;
    /// No power, and no light.
    const OFF: u16 = (1 << 10) | (3 << 8);

    /// Finds it behind the PCI Express capability.
    fn find() -> Result<Self> {
        const FIRST_CAPABILITY: u64 = 0x34;
        const PCI_EXPRESS: u8 = 0x10;
        const SLOT_CONTROL: u64 = 0x18;

        let config = fs::File::options()
            .read(true)
            .write(true)
            .open(pci::sysfs(PORT).join("config"))
            .context(PORT)?;
        let byte = |at| -> Result<u8> {
            let mut byte = [0];
            config.read_exact_at(&mut byte, at)?;
            Ok(byte[0])
        };
        let mut at = u64::from(byte(FIRST_CAPABILITY)?);
        while at != 0 && byte(at)? != PCI_EXPRESS {
            at = byte(at + 1)?.into();
        }
        ensure!(at != 0, "{PORT} is no port");
        Ok(Self {
            config,
            offset: at + SLOT_CONTROL,
        })
    }

    fn read(&self) -> Result<u16> {
        let mut bytes = [0; 2];
        self.config.read_exact_at(&mut bytes, self.offset)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn write(&self, value: u16) -> Result<()> {
        Ok(self
            .config
            .write_all_at(&value.to_le_bytes(), self.offset)?)
    }
}
