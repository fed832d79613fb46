// SPDX-License-Identifier: GPL-2.0

//! The requests of VFIO and IOMMUFD, and the layout of their structures.

use std::ffi::c_ulong;

/// The argument of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// None: programs leave out the argument, and a register has an arbitrary value.
    None,
    /// A number.
    Number,
    /// The address of a descriptor number.
    Descriptor,
    /// The address of a NUL-terminated string.
    Text,
    /// The address of a structure that begins with its size.
    Structure,
}

/// An array that the kernel writes, apart from the structure.
#[derive(Clone, Copy, Debug)]
pub struct Array {
    /// The offset of the 32-bit number of elements. The program sets it to the number that it has
    /// room for, the kernel to the number that there are.
    pub count: usize,
    /// The size of an element.
    pub element: usize,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// The argument.
    pub argument: Argument,
    /// Whether it returns a descriptor.
    pub returns_descriptor: bool,
    /// The number of bytes that the kernel reads. Programs leave arbitrary data in the rest.
    input: usize,
    /// The offset of a 64-bit address in the program's memory.
    pub address: Option<usize>,
    /// What the kernel writes to that address.
    pub array: Option<Array>,
    /// The offset of the first descriptor number, and how many there are at most.
    descriptors: Option<(usize, usize)>,
}

const PLAIN: Kind = Kind {
    name: "",
    argument: Argument::Structure,
    returns_descriptor: false,
    input: usize::MAX,
    address: None,
    array: None,
    descriptors: None,
};

const fn plain(name: &'static str) -> Kind {
    Kind {
        name,
        argument: Argument::None,
        ..PLAIN
    }
}

const fn number(name: &'static str) -> Kind {
    Kind {
        name,
        argument: Argument::Number,
        ..PLAIN
    }
}

const fn structure(name: &'static str) -> Kind {
    Kind { name, ..PLAIN }
}

const fn question(name: &'static str, input: usize) -> Kind {
    Kind {
        name,
        input,
        ..PLAIN
    }
}

const fn with_address(name: &'static str, offset: usize) -> Kind {
    Kind {
        name,
        address: Some(offset),
        ..PLAIN
    }
}

const fn with_array(name: &'static str, address: usize, count: usize, element: usize) -> Kind {
    Kind {
        array: Some(Array { count, element }),
        ..with_address(name, address)
    }
}

const fn with_descriptor(name: &'static str, offset: usize) -> Kind {
    Kind {
        name,
        descriptors: Some((offset, 1)),
        ..PLAIN
    }
}

/// The requests of VFIO by number, starting at `_IO(';', 100)`. Some numbers have different
/// meanings for devices and containers.
const VFIO: [Kind; 22] = [
    plain("GET_API_VERSION"),
    number("CHECK_EXTENSION"),
    number("SET_IOMMU"),
    question("GROUP_GET_STATUS", 4),
    Kind {
        argument: Argument::Descriptor,
        ..structure("GROUP_SET_CONTAINER")
    },
    plain("GROUP_UNSET_CONTAINER"),
    Kind {
        argument: Argument::Text,
        returns_descriptor: true,
        ..structure("GROUP_GET_DEVICE_FD")
    },
    question("DEVICE_GET_INFO", 4),
    question("DEVICE_GET_REGION_INFO", 12),
    question("DEVICE_GET_IRQ_INFO", 12),
    Kind {
        descriptors: Some((20, usize::MAX)),
        ..structure("DEVICE_SET_IRQS")
    },
    plain("DEVICE_RESET"),
    question("IOMMU_GET_INFO_or_HOT_RESET_INFO", 4),
    with_address("IOMMU_MAP_DMA", 8),
    structure("IOMMU_UNMAP_DMA"),
    structure("request-115"),
    structure("request-116"),
    with_address("FEATURE_or_DIRTY_PAGES", 40),
    Kind {
        address: Some(16),
        ..with_descriptor("DEVICE_BIND_IOMMUFD", 8)
    },
    structure("DEVICE_ATTACH_IOMMUFD_PT"),
    structure("DEVICE_DETACH_IOMMUFD_PT"),
    structure("MIG_GET_PRECOPY_INFO"),
];

/// The requests of IOMMUFD by number, starting at `_IO(';', 0x80)`. Their structures begin with
/// the size, too.
const IOMMUFD: [Kind; 22] = [
    structure("IOMMU_DESTROY"),
    structure("IOMMU_IOAS_ALLOC"),
    with_address("IOMMU_IOAS_ALLOW_IOVAS", 16),
    structure("IOMMU_IOAS_COPY"),
    with_array("IOMMU_IOAS_IOVA_RANGES", 16, 8, 16),
    with_address("IOMMU_IOAS_MAP", 16),
    structure("IOMMU_IOAS_UNMAP"),
    structure("IOMMU_OPTION"),
    structure("IOMMU_VFIO_IOAS"),
    with_address("IOMMU_HWPT_ALLOC", 32),
    with_array("IOMMU_GET_HW_INFO", 16, 12, 1),
    structure("IOMMU_HWPT_SET_DIRTY_TRACKING"),
    with_address("IOMMU_HWPT_GET_DIRTY_BITMAP", 40),
    with_address("IOMMU_HWPT_INVALIDATE", 8),
    with_descriptor("IOMMU_FAULT_QUEUE_ALLOC", 12),
    with_descriptor("IOMMU_IOAS_MAP_FILE", 12),
    structure("IOMMU_VIOMMU_ALLOC"),
    structure("IOMMU_VDEVICE_ALLOC"),
    structure("IOMMU_IOAS_CHANGE_PROCESS"),
    with_descriptor("IOMMU_VEVENTQ_ALLOC", 24),
    structure("IOMMU_HW_QUEUE_ALLOC"),
    structure("IOMMU_IOAS_NOIOMMU_GET_PA"),
];

/// Returns the request for a number, if it is a request of VFIO or IOMMUFD.
pub fn kind(request: c_ulong) -> Option<&'static Kind> {
    const TYPE: usize = 0x3b00;
    let number = usize::try_from(request).ok()?.checked_sub(TYPE)?;
    match number {
        ..0x80 => VFIO.get(number.checked_sub(100)?),
        _ => IOMMUFD.get(number - 0x80),
    }
}

impl Kind {
    /// Formats the part of the argument that the kernel reads.
    pub fn show_input(&self, bytes: &[u8]) -> String {
        self.show(&bytes[..self.input.min(bytes.len())])
    }

    /// Formats the argument.
    pub fn show(&self, bytes: &[u8]) -> String {
        if self.argument == Argument::Text {
            return String::from_utf8_lossy(bytes).replace(' ', "_");
        }
        let mut bytes = bytes.to_vec();
        if let Some(address) = self.address.and_then(|at| bytes.get_mut(at..at + 8)) {
            address.fill(0xaa);
        }
        let (at, count) = self.descriptors.unwrap_or_default();
        for word in bytes
            .get_mut(at..)
            .unwrap_or_default()
            .chunks_mut(4)
            .take(count)
        {
            // Keeps -1, which means no descriptor.
            if word != [0xff; 4] {
                word.fill(0xdd);
            }
        }
        hex(&bytes)
    }
}

/// Formats bytes.
pub fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| format!("{byte:02x}");
    bytes.iter().map(digits).collect::<Vec<_>>().concat()
}
