// SPDX-License-Identifier: GPL-2.0

//! A small virtual accelerator. Its devices can copy from each other's memory if they are peers.
//!
//! ```sh
//! modprobe -a mdev ioasid    # ioasid is optional: it gives each device a PASID
//! insmod build/native/vgpu_p2p.ko
//! cd /sys/class/mdev_bus/vgpu_p2p/mdev_supported_types
//! uuidgen >vgpu_p2p-p2p-1x/create
//! ```
//!
//! A device looks like a PCI device: BAR 0 contains the [`registers`], and BAR 2 is the device's
//! memory, which a program can map. An MSI signals the end of each command. A command copies
//! between that memory and the program's memory, or from the memory of another device. The other
//! device must be in the same peer-to-peer group, and so belongs to the same program:
//!
//! ```sh
//! cd /sys/bus/mdev/devices
//! cat $A/peer_to_peer_resource_uuid >$B/peer_to_peer_resource_uuid
//! ```
//!
//! `samples/user/vgpu_copy` is a program that does this. The state of a device can be
//! [migrated](state) to another device of its type, and a device reports the dirty pages of the
//! program's memory.

#![deny(unsafe_code)]

mod config;
mod engine;
mod links;
mod registers;
mod state;

use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};
use kernel_ext::{
    compat::parameter,
    pasid::Pasid, //
};
use vfio_mdev::{
    pci,
    Access,
    Device,
    DeviceApi,
    DeviceMemory,
    Instance,
    Members,
    Migration,
    Parent,
    Region,
    Type,
    Uuid,
    VirtualParent, //
};

use crate::{
    config::ConfigSpace,
    engine::Engine,
    links::{
        Link,
        Links, //
    }, //
};

kernel_ext::compat::module! {
    type: VgpuP2p,
    name: "vgpu_p2p",
    authors: ["The VFIO in Rust authors"],
    description: "Sample driver for mediated devices with peer-to-peer groups",
    license: "GPL v2",
    params: {
        cards: u32 {
            default: 1,
            description: "Number of parents: vgpu_p2p, vgpu_p2p.1, ... (default: 1)",
        },
    },
}

/// The module. Unloading it removes the parents, which remove their devices.
struct VgpuP2p {
    _cards: KVec<VirtualParent<Card>>,
}

impl kernel::Module for VgpuP2p {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let first = VirtualParent::new(Card::new()?)?;
        let mut cards = KVec::new();
        for number in 1..parameter(module_parameters::cards.value()) {
            let name = CString::try_from_fmt(fmt!("vgpu_p2p.{}", number))?;
            cards.push(first.beside(&name, Card::new()?)?, GFP_KERNEL)?;
        }
        cards.push(first, GFP_KERNEL)?;
        Ok(Self { _cards: cards })
    }
}

/// A parent of devices.
struct Card {
    /// The links between peers. Each group in use has one.
    links: Arc<Links>,
}

impl Card {
    /// The maximum number of peers in a group.
    const MOST_PEERS: usize = 8;

    fn new() -> Result<Self> {
        Ok(Self {
            links: Links::new()?,
        })
    }
}

impl Parent for Card {
    type OwnerModule = crate::LocalModule;
    type Type = Kind;
    type Device = Vgpu;

    const NAME: &'static CStr = c"vgpu_p2p";
    const API: DeviceApi = DeviceApi::Pci;
    const TYPES: &'static [Kind] = &[Kind::Double, Kind::Single, Kind::Isolated];

    fn capacity(&self) -> u32 {
        2048
    }

    fn admit(&self, device: &Instance<Vgpu>, members: &Members<'_, Vgpu>) -> Result {
        if !members.are_siblings_of(device) {
            return Err(EXDEV);
        }
        if members.iter().count() >= Self::MOST_PEERS {
            return Err(ENOSPC);
        }
        Ok(())
    }
}

/// The types of device.
#[derive(Clone, Copy)]
enum Kind {
    /// A device that can be a peer, with twice the memory.
    Double,
    /// A device that can be a peer.
    Single,
    /// A device that is never a peer.
    Isolated,
}

impl Type for Kind {
    fn sysfs_name(&self) -> &'static CStr {
        match self {
            Self::Double => c"p2p-2x",
            Self::Single => c"p2p-1x",
            Self::Isolated => c"isolated",
        }
    }

    fn description(&self) -> &'static CStr {
        match self {
            Self::Double => c"128 KiB of memory, copies from its peers",
            Self::Single => c"64 KiB of memory, copies from its peers",
            Self::Isolated => c"64 KiB of memory, has no peers",
        }
    }

    fn cost(&self) -> u32 {
        match self {
            Self::Double => 2,
            Self::Single | Self::Isolated => 1,
        }
    }

    fn peer_to_peer(&self) -> bool {
        !matches!(self, Self::Isolated)
    }
}

/// A device.
#[pin_data]
struct Vgpu {
    memory: DeviceMemory,
    #[pin]
    config: ConfigSpace,
    #[pin]
    engine: Engine,
    /// The link to the peers, while one device of the group is in use.
    #[pin]
    link: Link,
    pasid: Option<Pasid>,
}

impl Vgpu {
    /// The region of the registers.
    const REGISTERS: pci::Region = pci::Region::Bar(0);
    /// The region of the memory.
    const MEMORY: pci::Region = pci::Region::Bar(2);
    /// Bytes of memory per unit of cost.
    const MEMORY_UNIT: usize = 64 << 10;
}

impl Device for Vgpu {
    type Parent = Card;
    type Region = pci::Region;
    type Irq = pci::Irq;

    const MIGRATION: Option<Migration<Self>> = Some(Migration::new());

    fn create(_: &Arc<Card>, kind: &'static Kind, _: Uuid) -> impl PinInit<Self, Error> {
        let size = Self::MEMORY_UNIT * kind.cost() as usize;
        try_pin_init!(Self {
            memory: DeviceMemory::new(size)?,
            config <- ConfigSpace::new(registers::SIZE as u32, size as u32),
            engine <- Engine::new(),
            link <- Link::new(),
            pasid: Pasid::alloc(),
        })
    }

    fn region(&self, region: pci::Region) -> Option<Region<'_>> {
        match region {
            Self::REGISTERS => Some(Region::registers(registers::SIZE)),
            Self::MEMORY => Some(Region::memory(&self.memory)),
            pci::Region::Config => Some(Region::registers(config::SIZE)),
            _ => None,
        }
    }

    fn vectors(&self, irq: pci::Irq) -> u32 {
        (irq == pci::Irq::Msi).into()
    }

    fn read(this: &Instance<Self>, region: pci::Region, at: Access) -> Result<u32> {
        match region {
            pci::Region::Config => Ok(this.config.read(at)),
            _ => registers::read(this, at),
        }
    }

    fn write(this: &Instance<Self>, region: pci::Region, at: Access, value: u32) -> Result {
        match region {
            pci::Region::Config => this.config.write(at, value),
            _ => registers::write(this, at, value)?,
        }
        Ok(())
    }

    fn reset(this: &Instance<Self>) -> Result {
        this.engine.reset();
        this.config.reset();
        this.memory.fill(0, this.memory.len(), 0)
    }

    fn group_opened(this: &Instance<Self>, members: &Members<'_, Self>) -> Result {
        let number = this.parent().links.alloc()?;
        for member in members.iter() {
            member.link.join(number);
        }
        Ok(())
    }

    fn group_closed(this: &Instance<Self>, members: &Members<'_, Self>) {
        if let Some(number) = this.link.number() {
            this.parent().links.free(number);
        }
        for member in members.iter() {
            member.link.leave();
        }
    }
}
