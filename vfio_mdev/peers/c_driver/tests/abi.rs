// SPDX-License-Identifier: GPL-2.0

//! The functions for drivers in C, without VFIO.

use kernel::prelude::*;

#[kunit_tests(vfio_mdev_peers_in_c)]
mod cases {
    use core::mem::MaybeUninit;

    use kernel::{
        device::Device as BusDevice,
        faux,
        str::CString, //
    };

    use super::super::*;
    use crate::{
        exports,
        peers::Peers,
        uuid::Uuid, //
    };

    type Ops = bindings::mdev_peer_ops;

    /// A device of a driver in C. The fields are in the order in which they must be dropped.
    struct Device {
        peer: Arc<Peer>,
        /// What the field `entry` of `raw` points to.
        _entry: KBox<Arc<Peer>>,
        raw: KBox<bindings::mdev_peer>,
        _dev: faux::Registration,
    }

    impl Device {
        fn as_ptr(&mut self) -> *mut bindings::mdev_peer {
            &raw mut *self.raw
        }

        fn opened(&mut self) -> Result {
            // SAFETY: The field `entry` is set until the device is dropped.
            unsafe { opened(self.as_ptr()) }
        }

        fn closed(&mut self) {
            // SAFETY: As above.
            unsafe { closed(self.as_ptr()) }
        }

        /// Returns how often the driver was notified of a first open and of a last close.
        fn notified(&self) -> (u32, u32) {
            (self.raw.pasid >> 16, self.raw.pasid & 0xffff)
        }
    }

    /// Devices in a registry of their own.
    struct Fixture {
        registry: Peers,
        devices: KVec<Device>,
    }

    impl Fixture {
        /// Creates devices with groups of their own and with these parents.
        fn new(ops: &'static Ops, parents: &[&faux::Registration]) -> Result<Self> {
            let mut this = Self {
                registry: Peers::new(),
                devices: KVec::new(),
            };
            for (index, &parent) in parents.iter().enumerate() {
                let name = CString::try_from_fmt(fmt!("vfio_mdev_peers_in_c.{}", index))?;
                let parent: &BusDevice = parent.as_ref().as_ref();
                let dev = faux::Registration::new(&name, Some(parent))?;
                let mut raw = KBox::new(empty(ops), GFP_KERNEL)?;
                let instance = Erased {
                    device: NonNull::dangling(),
                    owner: NonNull::from(&mut *raw).cast(),
                };
                let peer = Peer::new(dev.as_ref().as_ref(), DriverKey(1), instance, admit, None)?;
                let mut entry = KBox::new(peer.clone(), GFP_KERNEL)?;
                raw.entry = (&raw mut *entry).cast();
                this.registry.add(&peer, || Ok(()))?;
                let device = Device {
                    peer,
                    _entry: entry,
                    raw,
                    _dev: dev,
                };
                this.devices.push(device, GFP_KERNEL)?;
            }
            Ok(this)
        }

        /// Gives all devices one UUID. Returns the number of groups.
        fn join(&mut self) -> Result<usize> {
            let uuid = Uuid::from_bytes([3; 16]);
            for device in &self.devices {
                self.registry.set_uuid(&device.peer, uuid, |_, commit| {
                    commit();
                    Ok(())
                })?;
            }
            Ok(self.registry.groups_of(uuid))
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            while let Some(device) = self.devices.pop() {
                self.registry.remove(&device.peer);
                device.peer.group().remove(&device.peer);
            }
        }
    }

    fn empty(ops: *const Ops) -> bindings::mdev_peer {
        bindings::mdev_peer {
            ops,
            ..pin_init::zeroed()
        }
    }

    fn parent(name: &CStr) -> Result<faux::Registration> {
        faux::Registration::new(name, None)
    }

    static NOTHING: Ops = Ops {
        admit: None,
        first_open: None,
        last_close: None,
    };

    static COUNTS: Ops = Ops {
        admit: Some(admits),
        first_open: Some(counts_first_open),
        last_close: Some(counts_last_close),
    };

    static REFUSES: Ops = Ops {
        admit: None,
        first_open: Some(refuses_first_open),
        last_close: None,
    };

    /// Success is any value that isn't negative.
    ///
    /// # Safety
    ///
    /// None: the arguments are not used.
    unsafe extern "C" fn admits(
        _peer: *mut bindings::mdev_peer,
        _members: *const bindings::mdev_peer_members,
    ) -> c_int {
        1
    }

    /// # Safety
    ///
    /// Called as `first_open` of a driver.
    unsafe extern "C" fn counts_first_open(
        peer: *mut bindings::mdev_peer,
        members: *const bindings::mdev_peer_members,
    ) -> c_int {
        // SAFETY: By this function's contract.
        unsafe {
            (*peer).pasid += 1 << 16;
            assert_eq!(count_open(members), 0);
        }
        1
    }

    /// # Safety
    ///
    /// None: the arguments are not used.
    unsafe extern "C" fn refuses_first_open(
        _peer: *mut bindings::mdev_peer,
        _members: *const bindings::mdev_peer_members,
    ) -> c_int {
        ENOSPC.to_errno()
    }

    /// # Safety
    ///
    /// Called as `last_close` of a driver.
    unsafe extern "C" fn counts_last_close(
        peer: *mut bindings::mdev_peer,
        members: *const bindings::mdev_peer_members,
    ) {
        // SAFETY: By this function's contract.
        unsafe {
            (*peer).pasid += 1;
            assert_eq!(count_open(members), 0);
        }
    }

    /// Returns the number of open members.
    ///
    /// # Safety
    ///
    /// `members` is an argument of a function of the driver.
    unsafe fn count_open(members: *const bindings::mdev_peer_members) -> u32 {
        let mut count = 0_u32;
        let data = (&raw mut count).cast();
        // SAFETY: By this function's contract. The function has a `u32` as its data.
        unsafe { exports::mdev_peer_members_for_each(members, Some(add_open), data) };
        count
    }

    /// # Safety
    ///
    /// Called with a member, and with a `u32`.
    unsafe extern "C" fn add_open(member: *mut bindings::mdev_peer, count: *mut c_void) -> c_int {
        // SAFETY: By this function's contract.
        unsafe { *count.cast::<u32>() += u32::from(exports::mdev_peer_is_open(member)) };
        0
    }

    /// Returns the number of open members of a device's group.
    fn open_members(device: &mut Device) -> u32 {
        let mut count = 0_u32;
        let data = (&raw mut count).cast();
        // SAFETY: The field `entry` of the device is set. The function has a `u32` as its data.
        let result = unsafe { exports::mdev_peer_for_each(device.as_ptr(), Some(add_open), data) };
        assert_eq!(result, 0);
        count
    }

    #[test]
    fn without_a_function_devices_of_one_parent_share() -> Result {
        let parents = [
            parent(c"vfio_mdev_parent.0")?,
            parent(c"vfio_mdev_parent.1")?,
        ];
        let [a, b] = [&parents[0], &parents[1]];
        let mut fixture = Fixture::new(&NOTHING, &[a, b, a])?;
        assert_eq!(fixture.join()?, 2);
        let mut groups = fixture.devices.iter().map(|device| device.peer.group());
        let [Some(first), Some(second), Some(third)] =
            [groups.next(), groups.next(), groups.next()]
        else {
            return Err(EINVAL);
        };
        assert!(Arc::ptr_eq(&first, &third));
        assert!(!Arc::ptr_eq(&first, &second));
        Ok(())
    }

    #[test]
    fn a_driver_needs_no_functions_for_open_and_close() -> Result {
        let parent = parent(c"vfio_mdev_parent.0")?;
        let mut fixture = Fixture::new(&NOTHING, &[&parent])?;
        let device = &mut fixture.devices[0];
        for _ in 0..2 {
            device.opened()?;
            assert_eq!(open_members(device), 1);
            device.closed();
            assert_eq!(open_members(device), 0);
        }
        Ok(())
    }

    #[test]
    fn positive_values_are_no_errors() -> Result {
        let parents = [
            parent(c"vfio_mdev_parent.0")?,
            parent(c"vfio_mdev_parent.1")?,
        ];
        let mut fixture = Fixture::new(&COUNTS, &[&parents[0], &parents[1]])?;
        assert_eq!(fixture.join()?, 1);
        fixture.devices[0].opened()?;
        fixture.devices[1].opened()?;
        assert_eq!(open_members(&mut fixture.devices[0]), 2);
        fixture.devices[0].closed();
        assert_eq!(open_members(&mut fixture.devices[0]), 1);
        fixture.devices[1].closed();
        assert_eq!(fixture.devices[0].notified(), (1, 0));
        assert_eq!(fixture.devices[1].notified(), (0, 1));
        Ok(())
    }

    #[test]
    fn a_device_is_not_counted_if_the_driver_refuses() -> Result {
        let parent = parent(c"vfio_mdev_parent.0")?;
        let mut fixture = Fixture::new(&REFUSES, &[&parent])?;
        let device = &mut fixture.devices[0];
        assert_eq!(device.opened(), Err(ENOSPC));
        assert_eq!(open_members(device), 0);
        Ok(())
    }

    #[test]
    fn unbalanced_calls_have_no_effect() -> Result {
        let parent = parent(c"vfio_mdev_parent.0")?;
        let mut fixture = Fixture::new(&COUNTS, &[&parent, &parent])?;
        fixture.join()?;
        let device = &mut fixture.devices[0];
        device.closed();
        assert_eq!(device.notified(), (0, 0));
        device.opened()?;
        assert_eq!(device.opened(), Err(EINVAL));
        assert_eq!((open_members(device), device.notified()), (1, (1, 0)));
        // Another device is not open.
        fixture.devices[1].closed();
        let device = &mut fixture.devices[0];
        assert_eq!((open_members(device), device.notified()), (1, (1, 0)));
        device.closed();
        device.closed();
        assert_eq!((open_members(device), device.notified()), (0, (1, 1)));
        Ok(())
    }

    #[test]
    fn functions_refuse_a_device_that_is_not_registered() {
        let mut raw = empty(&raw const NOTHING);
        let (peer, data) = (&raw mut raw, core::ptr::null_mut());
        // SAFETY: The structure was zeroed.
        unsafe {
            assert_eq!(exports::mdev_peer_opened(peer), EINVAL.to_errno());
            let walked = exports::mdev_peer_for_each(peer, Some(add_open), data);
            assert_eq!(walked, EINVAL.to_errno());
            assert!(!exports::mdev_peer_is_open(peer));
            exports::mdev_peer_closed(peer);
            exports::mdev_peer_unregister_with(peer, Some(unregister_device));
        }
    }

    #[test]
    fn functions_refuse_null() -> Result {
        let parent = parent(c"vfio_mdev_parent.0")?;
        let mut fixture = Fixture::new(&NOTHING, &[&parent])?;
        let (peer, data) = (fixture.devices[0].as_ptr(), core::ptr::null_mut());
        // SAFETY: The field `entry` of the device is set.
        let walked = unsafe { exports::mdev_peer_for_each(peer, None, data) };
        assert_eq!(walked, EINVAL.to_errno());
        let members = Members(&[]);
        // SAFETY: The members exist during the call.
        let walked = unsafe { exports::mdev_peer_members_for_each(members.as_ptr(), None, data) };
        assert_eq!(walked, EINVAL.to_errno());
        Ok(())
    }

    /// # Safety
    ///
    /// None: it is not called.
    unsafe extern "C" fn register_device(_device: *mut bindings::vfio_device) -> c_int {
        unreachable!("the device was refused")
    }

    /// # Safety
    ///
    /// None: it is not called.
    unsafe extern "C" fn unregister_device(_device: *mut bindings::vfio_device) {
        unreachable!("the device was refused")
    }

    #[test]
    fn register_refuses_devices_of_other_buses() -> Result {
        let other = parent(c"vfio_mdev_parent.0")?;
        let dev: &BusDevice = other.as_ref().as_ref();
        let dev: *const BusDevice = dev;
        let mut without_device = MaybeUninit::<bindings::vfio_device>::zeroed();
        let mut of_other_bus = MaybeUninit::<bindings::vfio_device>::zeroed();
        // SAFETY: The field is part of the structure.
        unsafe { (*of_other_bus.as_mut_ptr()).dev = dev.cast_mut().cast() };
        let devices = [
            core::ptr::null_mut(),
            without_device.as_mut_ptr(),
            of_other_bus.as_mut_ptr(),
        ];
        for device in devices {
            let mut raw = empty(&raw const NOTHING);
            raw.device = device;
            raw.entry = NonNull::<c_void>::dangling().as_ptr();
            // SAFETY: The device is null or valid, and so is its device of a bus.
            let refused = unsafe {
                exports::mdev_peer_register_with(
                    &raw mut raw,
                    Some(register_device),
                    Some(unregister_device),
                )
            };
            assert_eq!(refused, EINVAL.to_errno());
            assert!(raw.entry.is_null());
        }
        Ok(())
    }
}
