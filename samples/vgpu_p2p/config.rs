// SPDX-License-Identifier: GPL-2.0

//! The device's configuration space, with the layout of a PCI device. Writes to it have no other
//! effect.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

use vfio_mdev::Access;

/// The size of the configuration space in bytes.
pub(crate) const SIZE: u64 = 256;

const COMMAND: usize = 0x04;
const BAR0: usize = 0x10;
const BAR2: usize = 0x18;
const INTERRUPT_LINE: usize = 0x3c;
const MSI: usize = 0x50;

/// The nonzero content after a reset: offset and bytes.
const INITIAL: [(usize, &[u8]); 6] = [
    // Vendor 0x1b36, device 0x0fff; status: has capabilities.
    (0x00, &[0x36, 0x1b, 0xff, 0x0f]),
    (0x06, &[0x10, 0x00]),
    // Revision 1, a processing accelerator.
    (0x08, &[0x01, 0x00, 0x00, 0x12]),
    // Subsystem: as above.
    (0x2c, &[0x36, 0x1b, 0xff, 0x0f]),
    (0x34, &[MSI as u8]),
    // MSI, the last capability; one vector, addresses of 64 bits.
    (MSI, &[0x05, 0x00, 0x80, 0x00]),
];

/// The configuration space of a device.
#[pin_data]
pub(crate) struct ConfigSpace {
    /// The mask of writable bits.
    writable: [u8; SIZE as usize],
    #[pin]
    bytes: SpinLock<[u8; SIZE as usize]>,
}

impl ConfigSpace {
    /// Creates the configuration space of a device. `bar0` and `bar2` are the sizes of BARs 0 and 2
    /// in bytes, which must be powers of two.
    pub(crate) fn new(bar0: u32, bar2: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            writable: writable(bar0, bar2),
            bytes <- new_spinlock!(initial(), "vgpu_p2p::ConfigSpace"),
        })
    }

    /// Reads up to four bytes.
    pub(crate) fn read(&self, at: Access) -> u32 {
        let mut value = [0; 4];
        value[..at.len()].copy_from_slice(&self.bytes.lock()[at.range()]);
        u32::from_le_bytes(value)
    }

    /// Writes the writable bits.
    pub(crate) fn write(&self, at: Access, value: u32) {
        let mut bytes = self.bytes.lock();
        for (at, new) in at.range().zip(value.to_le_bytes()) {
            bytes[at] = bytes[at] & !self.writable[at] | new & self.writable[at];
        }
    }

    /// Copies the whole space to `to`.
    pub(crate) fn save(&self, to: &mut [u8]) {
        to.copy_from_slice(&*self.bytes.lock());
    }

    /// Checks another device's configuration space and returns it. Its read-only bits must be equal
    /// to those of this device.
    ///
    /// # Errors
    ///
    /// `EINVAL` otherwise.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<[u8; SIZE as usize]> {
        let bytes: [u8; SIZE as usize] = bytes.try_into().map_err(|_| EINVAL)?;
        let fixed = initial();
        let fits = |at: usize| (bytes[at] ^ fixed[at]) & !self.writable[at] == 0;
        (0..bytes.len()).all(fits).then_some(bytes).ok_or(EINVAL)
    }

    /// Replaces the content with another device's space, which was [checked](ConfigSpace::check).
    pub(crate) fn load(&self, bytes: [u8; SIZE as usize]) {
        *self.bytes.lock() = bytes;
    }

    /// Restores the initial content.
    pub(crate) fn reset(&self) {
        *self.bytes.lock() = initial();
    }
}

fn initial() -> [u8; SIZE as usize] {
    let mut bytes = [0; SIZE as usize];
    for (at, content) in INITIAL {
        bytes[at..at + content.len()].copy_from_slice(content);
    }
    bytes
}

fn writable(bar0: u32, bar2: u32) -> [u8; SIZE as usize] {
    let mut bits = [0; SIZE as usize];
    // Memory, bus master, INTx disable.
    bits[COMMAND..COMMAND + 2].copy_from_slice(&[0x06, 0x04]);
    bits[BAR0..BAR0 + 4].copy_from_slice(&(!(bar0 - 1)).to_le_bytes());
    bits[BAR2..BAR2 + 4].copy_from_slice(&(!(bar2 - 1)).to_le_bytes());
    bits[INTERRUPT_LINE] = 0xff;
    // Enable; address and data.
    bits[MSI + 2] = 0x01;
    bits[MSI + 4..MSI + 14].fill(0xff);
    bits[MSI + 4] = 0xfc;
    bits
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vgpu_p2p_config)]
mod tests {
    use super::*;
    use kernel::sync::Arc;
    use vfio_mdev::Width;

    fn long(offset: usize) -> Access {
        Access {
            offset: offset as u64,
            width: Width::Long,
        }
    }

    fn space() -> Result<Arc<ConfigSpace>> {
        Arc::pin_init(ConfigSpace::new(0x1000, 0x10000), GFP_KERNEL)
    }

    #[test]
    fn bars_tell_their_size() -> Result {
        let space = space()?;
        for (bar, size) in [(BAR0, 0x1000), (BAR2, 0x10000), (0x14, 0)] {
            space.write(long(bar), u32::MAX);
            assert_eq!(space.read(long(bar)), 0_u32.wrapping_sub(size));
        }
        Ok(())
    }

    #[test]
    fn identity_stays() -> Result {
        let space = space()?;
        for offset in [0x00, 0x08, 0x2c] {
            let before = space.read(long(offset));
            space.write(long(offset), !before);
            assert_eq!(space.read(long(offset)), before);
        }
        Ok(())
    }

    #[test]
    fn becomes_like_another() -> Result {
        let (one, other) = (space()?, space()?);
        one.write(long(COMMAND), 0x406);
        one.write(long(BAR2), 0xfe00_0000);
        let mut bytes = [0; SIZE as usize];
        one.save(&mut bytes);
        other.load(other.check(&bytes)?);
        assert_eq!(other.read(long(COMMAND)), 0x0010_0406);
        assert_eq!(other.read(long(BAR2)), 0xfe00_0000);
        for at in [0x00, 0x08, BAR0, 0x14, 0x34, MSI, 0xff] {
            let mut wrong = bytes;
            wrong[at] ^= 0x01;
            assert_eq!(other.check(&wrong), Err(EINVAL));
        }
        assert!(other.check(&bytes[1..]).is_err());
        Ok(())
    }

    #[test]
    fn reset_forgets() -> Result {
        let space = space()?;
        space.write(long(COMMAND), 0x406);
        assert_eq!(space.read(long(COMMAND)), 0x0010_0406);
        space.reset();
        assert_eq!(space.read(long(COMMAND)), 0x0010_0000);
        Ok(())
    }
}
