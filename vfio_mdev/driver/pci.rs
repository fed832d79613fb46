// SPDX-License-Identifier: GPL-2.0

//! The regions and interrupt types of mediated PCI devices.

use super::Index;

/// A region of a PCI device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// The range of a base address register, 0 to 5.
    Bar(u8),
    /// The expansion ROM.
    Rom,
    /// Configuration space.
    Config,
    /// The VGA ranges.
    Vga,
}

impl Index for Region {
    const COUNT: u32 = 9;

    fn from_index(index: u32) -> Option<Self> {
        Some(match index {
            0..=5 => Self::Bar(index as u8),
            6 => Self::Rom,
            7 => Self::Config,
            8 => Self::Vga,
            _ => return None,
        })
    }

    fn index(self) -> u32 {
        match self {
            Self::Bar(bar) => bar.into(),
            Self::Rom => 6,
            Self::Config => 7,
            Self::Vga => 8,
        }
    }
}

/// An interrupt type of a PCI device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irq {
    /// An interrupt pin.
    Intx,
    /// MSI.
    Msi,
    /// MSI-X.
    Msix,
    /// Reports an error of the device.
    Error,
    /// Asks userspace to release the device.
    Request,
}

impl Index for Irq {
    const COUNT: u32 = 5;

    fn from_index(index: u32) -> Option<Self> {
        [
            Self::Intx,
            Self::Msi,
            Self::Msix,
            Self::Error,
            Self::Request,
        ]
        .get(index as usize)
        .copied()
    }

    fn index(self) -> u32 {
        self as u32
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_pci)]
mod tests {
    use super::*;
    use kernel_ext::bindings;

    #[test]
    fn numbers_are_those_of_userspace() {
        for (region, index) in [
            (Region::Bar(0), bindings::VFIO_PCI_BAR0_REGION_INDEX),
            (Region::Bar(5), bindings::VFIO_PCI_BAR5_REGION_INDEX),
            (Region::Rom, bindings::VFIO_PCI_ROM_REGION_INDEX),
            (Region::Config, bindings::VFIO_PCI_CONFIG_REGION_INDEX),
            (Region::Vga, bindings::VFIO_PCI_VGA_REGION_INDEX),
        ] {
            assert_eq!(region.index(), index);
        }
        for (irq, index) in [
            (Irq::Intx, bindings::VFIO_PCI_INTX_IRQ_INDEX),
            (Irq::Msi, bindings::VFIO_PCI_MSI_IRQ_INDEX),
            (Irq::Msix, bindings::VFIO_PCI_MSIX_IRQ_INDEX),
            (Irq::Error, bindings::VFIO_PCI_ERR_IRQ_INDEX),
            (Irq::Request, bindings::VFIO_PCI_REQ_IRQ_INDEX),
        ] {
            assert_eq!(irq.index(), index);
        }
        assert_eq!(Region::COUNT, bindings::VFIO_PCI_NUM_REGIONS);
        assert_eq!(Irq::COUNT, bindings::VFIO_PCI_NUM_IRQS);
    }

    #[test]
    fn there_and_back() {
        for index in 0..12 {
            let region = Region::from_index(index).map(Index::index);
            assert_eq!(region, (index < Region::COUNT).then_some(index));
            let irq = Irq::from_index(index).map(Index::index);
            assert_eq!(irq, (index < Irq::COUNT).then_some(index));
        }
    }
}
