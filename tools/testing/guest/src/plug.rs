// SPDX-License-Identifier: GPL-2.0

//! Slots for plugging in and removing devices while the machine runs.
//!
//! The machine of the set `hotplug` has two such slots: a root port whose `edu` is alone in its
//! group, and a conventional PCI bridge. All devices behind the bridge share the group of the
//! bridge.

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

/// The port, with a device of its own.
const PORT: &str = "0000:00:06.0";
/// The device in the port.
pub const HOT: &str = "0000:01:00.0";
/// The conventional PCI bridge.
pub const BRIDGE: &str = "0000:02:00.0";
/// The device behind the bridge that is always present.
pub const FIRST: &str = "0000:03:01.0";
/// The device behind the bridge that is plugged in and removed.
pub const SECOND: &str = "0000:03:02.0";

/// The time limit for the kernel's reaction to a button, a new device or a missing device. The
/// kernel waits five seconds for a second press, and one second for the power.
pub const LIMIT: Duration = Duration::from_secs(40);

/// The model name of all these devices in QEMU.
const EDU: &str = "edu";

/// Waits until `condition` is true.
pub fn until(what: &str, limit: Duration, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let done = wait::until(limit, condition)?;
    ensure!(done, "waited {} s for {what}", limit.as_secs());
    Ok(())
}

/// Returns whether the kernel has a device.
pub fn present(bdf: &str) -> bool {
    pci::sysfs(bdf).exists()
}

/// Returns whether the device node of a group exists.
pub fn node(group: u32) -> bool {
    Path::new(&format!("/dev/vfio/{group}")).exists()
}

/// Waits until the kernel has removed a device.
pub fn wait_absent(bdf: &str) -> Result<()> {
    until(&format!("{bdf} to go"), LIMIT, || Ok(!present(bdf)))
}

fn arguments(bus: &str, slot: u32) -> String {
    format!(r#""bus": "{bus}", "addr": "{slot:#x}", "dma_mask": 18446744073709551615"#)
}

/// The slot behind the bridge. It is emptied when dropped.
#[derive(Debug)]
pub struct Second(Qmp);

impl Second {
    const ID: &str = "second";

    /// Makes the group of the bridge viable.
    ///
    /// The driver of the bridge uses DMA of the host. While it is bound, no process can use the
    /// group. The driver is not needed here, since the bus is rescanned explicitly.
    pub fn place() -> Result<Self> {
        if pci::driver(BRIDGE).is_some() {
            pci::unbind(BRIDGE)?;
        }
        Ok(Self(Qmp::open()?))
    }

    /// Plugs in the device and makes the kernel detect it.
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
        // This fails if there is no device.
        if self.0.delete(Self::ID).is_ok() {
            let _ = self.0.wait_gone(Self::ID, LIMIT);
        }
    }
}

/// The port. When dropped, it contains a device bound to `vfio-pci` again.
#[derive(Debug)]
pub struct Port(Qmp);

impl Port {
    const ID: &str = "hot";

    /// Checks that the port has a device, bound to `vfio-pci`.
    pub fn with_device() -> Result<Self> {
        let driver = pci::driver(HOT);
        ensure!(
            driver.as_deref() == Some("vfio-pci"),
            "{HOT} must be bound to vfio-pci, but its driver is {driver:?}"
        );
        Ok(Self(Qmp::open()?))
    }

    /// Presses the attention button: asks the kernel to release the device.
    pub fn press_button(&mut self) -> Result<()> {
        self.0.delete(Self::ID)
    }

    /// Pulls the device out. It is gone before the kernel is notified.
    ///
    /// The machine removes a device when the port turns off its power. This function turns the
    /// power off and on again without the kernel's knowledge, with the interrupts of the port
    /// disabled.
    pub fn pull(&mut self) -> Result<()> {
        let control = SlotControl::find()?;
        let now = control.read()?;
        control.write((now | SlotControl::OFF) & !SlotControl::INTERRUPTS)?;
        control.write(now)?;
        self.0.wait_gone(Self::ID, LIMIT)
    }

    /// Returns whether the device has left the machine.
    pub fn is_empty(&mut self) -> Result<bool> {
        self.0.is_gone(Self::ID)
    }

    /// Waits until the device has left the machine.
    pub fn wait_empty(&mut self) -> Result<()> {
        self.0.wait_gone(Self::ID, LIMIT)
    }

    /// Plugs in a new device and binds it to `vfio-pci`.
    pub fn plug(&mut self) -> Result<()> {
        // The kernel turns the power off shortly after the old device is gone. A device plugged in
        // before that would be lost.
        let control = SlotControl::find()?;
        until("the port to be off", LIMIT, || {
            Ok(control.read()? & SlotControl::OFF == SlotControl::OFF)
        })?;
        self.0.add(EDU, Self::ID, &arguments("hotport", 0))?;
        until("the new device", LIMIT, || Ok(present(HOT)))?;
        // A device is visible shortly before a driver can bind to it.
        until("a driver for the new device", LIMIT, || {
            let _ = pci::bind(HOT, "vfio-pci");
            Ok(pci::driver(HOT).is_some() && node(pci::group_of(HOT)?))
        })?;
        ensure!(
            pci::wait_bound(HOT, "vfio-pci")?,
            "vfio-pci does not take {HOT}"
        );
        Ok(())
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

/// The slot control register of the port: power, indicators and interrupts.
#[derive(Debug)]
struct SlotControl {
    config: fs::File,
    offset: u64,
}

impl SlotControl {
    const INTERRUPTS: u16 = 1 << 5;
    /// Power off and indicator off.
    const OFF: u16 = (1 << 10) | (3 << 8);

    /// Finds the register in the PCI Express capability.
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
        ensure!(at != 0, "{PORT} is not a PCIe port");
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
