// SPDX-License-Identifier: GPL-2.0

//! The VFIO requests and the layout of their structures.

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
    address: Option<usize>,
    /// The offset of the first descriptor number.
    descriptors: Option<usize>,
}

const PLAIN: Kind = Kind {
    name: "",
    argument: Argument::Structure,
    returns_descriptor: false,
    input: usize::MAX,
    address: None,
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

/// The requests by number, starting at `_IO(';', 100)`. Some numbers have different meanings for
/// devices and containers.
const KINDS: [Kind; 18] = [
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
        descriptors: Some(20),
        ..structure("DEVICE_SET_IRQS")
    },
    plain("DEVICE_RESET"),
    question("IOMMU_GET_INFO_or_HOT_RESET_INFO", 4),
    Kind {
        address: Some(8),
        ..structure("IOMMU_MAP_DMA")
    },
    structure("IOMMU_UNMAP_DMA"),
    structure("request-115"),
    structure("request-116"),
    Kind {
        address: Some(40),
        ..structure("FEATURE_or_DIRTY_PAGES")
    },
];

/// Returns the request for a number, if it is a VFIO request.
pub fn kind(request: c_ulong) -> Option<&'static Kind> {
    const FIRST: usize = 0x3b00 + 100;
    KINDS.get(usize::try_from(request).ok()?.checked_sub(FIRST)?)
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
        for word in self
            .descriptors
            .and_then(|at| bytes.get_mut(at..))
            .unwrap_or_default()
            .chunks_mut(4)
        {
            // Keeps -1, which means no descriptor.
            if word != [0xff; 4] {
                word.fill(0xdd);
            }
        }
        let hex = |byte: &u8| format!("{byte:02x}");
        bytes.iter().map(hex).collect::<Vec<_>>().concat()
    }
}
