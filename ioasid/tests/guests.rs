// SPDX-License-Identifier: GPL-2.0

//! A host with three guests, each of which has a VT-d and two virtio-iommus.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    any,
    space, //
};
use crate::{
    allocator::{
        Allocator,
        Registration, //
    },
    gfp::Gfp,
    id::{
        range::{
            IdRange,
            DEFAULT_CAPACITY, //
        },
        state::Right, //
    },
    set::SetId,
    space::Space,
    tests::guest::Guest,
    vcmd::{
        self,
        VirtualCommand, //
    },
    virtio::{
        self,
        VirtioIommu,
        F_PASID_ALLOC, //
    }, //
};

const QUOTA: u32 = 8;

/// Adds a VT-d of a guest to the space of the guest's kernel.
fn plug_vtd<'s>(kernel: &'s Space, guest: &Arc<Guest>) -> Result<Registration<'s>> {
    let device = vcmd::fake::FakeVtd::new(guest.clone())?;
    kernel.register_allocator(Arc::new(VirtualCommand::new(device)?, GFP_KERNEL)?)
}

/// Adds a virtio-iommu of a guest to the space of the guest's kernel.
fn plug_virtio<'s>(kernel: &'s Space, guest: &Arc<Guest>) -> Result<Registration<'s>> {
    let device = virtio::fake::FakeVirtioIommu::new(guest.clone(), F_PASID_ALLOC, 0)?;
    kernel.register_allocator(Arc::new(VirtioIommu::new(device)?, GFP_KERNEL)?)
}

fn pasid(kernel: &Space) -> Result<u32> {
    let range = IdRange::new(1, DEFAULT_CAPACITY - 1)?;
    let key = kernel.alloc_in(SetId::ROOT, range, 0, Gfp::Kernel, Right::Anyone)?;
    Ok(key.id)
}

#[kunit_tests(ioasid_guests)]
mod tests {
    use super::*;

    #[test]
    fn two_guests_never_have_the_same_id() -> Result {
        let host = space(DEFAULT_CAPACITY)?;
        let guests = [
            Guest::of(&host, QUOTA)?,
            Guest::of(&host, QUOTA)?,
            Guest::of(&host, QUOTA)?,
        ];
        let kernels = [space(1000)?, space(1000)?, space(1000)?];
        let mut devices = KVec::new();
        for (kernel, guest) in kernels.iter().zip(&guests) {
            devices.push(plug_vtd(kernel, guest)?, GFP_KERNEL)?;
            devices.push(plug_virtio(kernel, guest)?, GFP_KERNEL)?;
            devices.push(plug_virtio(kernel, guest)?, GFP_KERNEL)?;
        }
        for round in 0..QUOTA {
            for (kernel, guest) in kernels.iter().zip(&guests) {
                let id = pasid(kernel)?;
                assert!(guest.has(id));
                assert_eq!(guest.used(), round + 1);
                let owners = guests.iter().filter(|guest| guest.has(id));
                assert_eq!(owners.count(), 1);
            }
        }
        // The quota is used up, both in the guests and on the host.
        for kernel in &kernels {
            assert_eq!(pasid(kernel).err(), Some(ENOSPC));
        }
        Ok(())
    }

    #[test]
    fn another_iommu_takes_over_from_an_unplugged_one() -> Result {
        let host = space(DEFAULT_CAPACITY)?;
        let guest = Guest::of(&host, QUOTA)?;
        let kernel = space(1000)?;
        let vtd = plug_vtd(&kernel, &guest)?;
        let first = plug_virtio(&kernel, &guest)?;
        let second = plug_virtio(&kernel, &guest)?;
        let held = [pasid(&kernel)?, pasid(&kernel)?];

        // A VT-d is removed. On the host its ids still belong to the guest. In the guest they are
        // orphans.
        drop(vtd);
        assert_eq!((kernel.orphans(), guest.used()), (2, 2));
        let next = pasid(&kernel)?;
        assert!(!held.contains(&next));
        assert_eq!(guest.used(), 3);

        // One of two virtio-iommus is removed. The other one frees its ids.
        drop(first);
        kernel.free(any(next))?;
        assert_eq!((kernel.orphans(), guest.used()), (2, 2));

        // The guest frees the orphans, of which the host is not notified.
        for id in held {
            assert_eq!(kernel.find(any(id), |_| ()), Ok(()));
            kernel.free(any(id))?;
        }
        assert_eq!((kernel.orphans(), guest.used()), (0, 2));

        // Without an IOMMU the guest allocates ids on its own.
        drop(second);
        assert_eq!(pasid(&kernel), Ok(1));
        assert_eq!(guest.used(), 2);

        // The remaining ids of a guest are freed when the guest ends.
        drop(guest);
        assert_eq!(Guest::of(&host, DEFAULT_CAPACITY - 1)?.used(), 0);
        Ok(())
    }

    #[test]
    fn an_iommu_can_be_unplugged_and_plugged_again() -> Result {
        let guest = Guest::alone(QUOTA)?;
        let kernel = space(1000)?;
        let vtd = plug_vtd(&kernel, &guest)?;
        let held = pasid(&kernel)?;
        drop(vtd);
        let own = pasid(&kernel)?;
        assert_eq!(plug_vtd(&kernel, &guest).err(), Some(EAGAIN));
        kernel.free(any(own))?;
        let _vtd = plug_vtd(&kernel, &guest)?;
        // The host knows that the orphan is in use.
        assert_ne!(pasid(&kernel)?, held);
        kernel.free(any(held))?;
        assert_eq!((kernel.orphans(), guest.used()), (0, 2));
        Ok(())
    }

    #[test]
    fn a_guest_cannot_free_the_id_of_another_guest() -> Result {
        let host = space(DEFAULT_CAPACITY)?;
        let (good, bad) = (Guest::of(&host, QUOTA)?, Guest::of(&host, QUOTA)?);
        let kernel = space(1000)?;
        let _vtd = plug_vtd(&kernel, &good)?;
        let id = pasid(&kernel)?;
        let vtd = VirtualCommand::new(vcmd::fake::FakeVtd::new(bad.clone())?)?;
        let device = virtio::fake::FakeVirtioIommu::new(bad.clone(), F_PASID_ALLOC, 0)?;
        let virtio = VirtioIommu::new(device)?;
        let attackers: [&dyn Allocator; 2] = [&vtd, &virtio];
        for attacker in attackers {
            attacker.free(id);
            assert!(good.has(id));
        }
        assert_eq!((good.used(), bad.used()), (1, 0));
        kernel.free(any(id))?;
        assert_eq!(good.used(), 0);
        Ok(())
    }

    #[test]
    fn a_guest_cannot_use_up_the_ids_of_another_guest() -> Result {
        let host = space(DEFAULT_CAPACITY)?;
        let greedy = Guest::of(&host, DEFAULT_CAPACITY - 1 - QUOTA)?;
        let modest = Guest::of(&host, QUOTA)?;
        assert_eq!(Guest::of(&host, 1).err(), Some(ENOSPC));
        let kernel = space(1000)?;
        let _device = plug_virtio(&kernel, &greedy)?;
        for _ in 0..100 {
            pasid(&kernel)?;
        }
        for _ in 0..QUOTA {
            modest.alloc(None)?;
        }
        assert!(modest.alloc(None).is_err());
        Ok(())
    }
}
