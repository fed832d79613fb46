// SPDX-License-Identifier: GPL-2.0

//! The requests of VFIO: what their structures look like.

use std::ffi::c_ulong;

/// What the argument of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A number.
    Number,
    /// The address of the number of a descriptor.
    Descriptor,
    /// The address of a text that ends with a zero.
    Text,
    /// The address of a structure which begins with its size.
    Structure,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What its argument is.
    pub argument: Argument,
    /// Whether it returns a descriptor.
    pub returns_descriptor: bool,
    /// How many bytes the kernel looks at; programs leave what they like in the rest.
    input: usize,
    /// Which eight bytes are an address in the program's memory.
    address: Option<usize>,
    /// From which byte on there are numbers of descriptors.
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

/// By their numbers, from `_IO(';', 100)` on. Some mean one thing to a device, another one to a container.
const KINDS: [Kind; 18] = [
    number("GET_API_VERSION"),
    number("CHECK_EXTENSION"),
    number("SET_IOMMU"),
    question("GROUP_GET_STATUS", 4),
    Kind {
        argument: Argument::Descriptor,
        ..structure("GROUP_SET_CONTAINER")
    },
    number("GROUP_UNSET_CONTAINER"),
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
    number("DEVICE_RESET"),
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

/// The request of a number, if it is one of VFIO.
pub fn kind(request: c_ulong) -> Option<&'static Kind> {
    const FIRST: usize = 0x3b00 + 100;
    KINDS.get(usize::try_from(request).ok()?.checked_sub(FIRST)?)
}

impl Kind {
    /// What the kernel gets to see of the argument, in words.
    pub fn show_input(&self, bytes: &[u8]) -> String {
        self.show(&bytes[..self.input.min(bytes.len())])
    }

    /// The argument in words.
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
            // No descriptor is -1, on both.
            if word != [0xff; 4] {
                word.fill(0xdd);
            }
        }
        let hex = |byte: &u8| format!("{byte:02x}");
        bytes.iter().map(hex).collect::<Vec<_>>().concat()
    }
}
