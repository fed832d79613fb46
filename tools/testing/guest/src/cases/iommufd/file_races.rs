// SPDX-License-Identifier: GPL-2.0

//! Threads that bind, attach and close concurrently.

use super::{
    Attached,
    is_free,
    open, //
};
use crate::{
    env::{
        EDU,
        Rebind,
        Setup,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    pin,
    stall::LIMIT,
    threads::{
        self,
        Body,
        Tally, //
    },
};
use anyhow::{
    Result,
    bail, //
};
use std::{
    fs::File,
    sync::atomic::{
        AtomicU32,
        Ordering, //
    },
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Device,
    Errno,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci, //
};

cases! {
    #[rows("V3")] one_bind_of_a_file_works,
    #[rows("V4")] one_of_several_files_is_bound,
    #[rows("V3")] emulated_device_changes_iommufd,
    #[rows("G2", "V3")] #[requires(containers)] group_or_device_file,
    #[rows("V6", "V7")] attach_and_detach,
    #[rows("V10")] close_during_requests,
    bind_while_driver_is_unbound,
    #[rows("V1")] open_while_device_is_registered,
}

/// The time that threads take part in a race.
const TIME: Duration = Duration::from_millis(1500);

/// The number of threads.
const THREADS: usize = 3;

/// Calls `body` repeatedly.
fn repeat(mut body: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < TIME {
        body()?;
    }
    Ok(())
}

/// Calls `body` repeatedly, and longer until it has worked once. The other threads end meanwhile.
fn contend<T>(mut tally: Tally, mut body: impl FnMut() -> Result<T>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < TIME || (!tally.works() && start.elapsed() < LIMIT) {
        tally.note(body())?;
    }
    tally.check()
}

fn one_bind_of_a_file_works() -> Result<()> {
    let iommufd = Iommufd::open()?;
    for _ in 0..50 {
        let device = open(EDU)?;
        let bind = || -> Result<bool> {
            match device.bind(&iommufd) {
                Ok(_) => Ok(true),
                Err(error) if error.errno() == Errno::EINVAL => Ok(false),
                Err(error) => Err(error.into()),
            }
        };
        let bodies = (0..THREADS).map(|_| Box::new(bind) as Body<'_, bool>);
        let worked = threads::run(bodies.collect())?;
        assert_eq!(worked.iter().filter(|worked| **worked).count(), 1);
        device.info()?;
    }
    is_free(EDU)
}

fn one_of_several_files_is_bound() -> Result<()> {
    let bound = AtomicU32::new(0);
    let body = || -> Result<()> {
        let iommufd = Iommufd::open()?;
        contend(Tally::new("bind", &[Errno::EINVAL]), || {
            let device = open(EDU)?;
            let bind = device.bind(&iommufd);
            if bind.is_ok() {
                assert_eq!(
                    bound.fetch_add(1, Ordering::SeqCst),
                    0,
                    "it has another user"
                );
                device.info()?;
                bound.fetch_sub(1, Ordering::SeqCst);
            } else {
                assert!(device.info().is_err());
            }
            Ok(bind?)
        })
    };
    threads::run(
        (0..THREADS)
            .map(|_| Box::new(body) as Body<'_, ()>)
            .collect(),
    )?;
    is_free(EDU)
}

/// Each thread has an iommufd of its own. The device may be open when it is bound, but it is never
/// in another iommufd when it is not open.
fn emulated_device_changes_iommufd() -> Result<()> {
    let body = || -> Result<()> {
        let iommufd = Iommufd::open()?;
        contend(Tally::new("bind", &[Errno::EINVAL]), || {
            Ok(pin::open_file()?.bind(&iommufd)?)
        })
    };
    threads::run(
        (0..THREADS)
            .map(|_| Box::new(body) as Body<'_, ()>)
            .collect(),
    )?;
    pin::open_file()?.bind(&Iommufd::open()?)?;
    Ok(())
}

fn group_or_device_file() -> Result<()> {
    let by_file = || -> Result<()> {
        let iommufd = Iommufd::open()?;
        contend(Tally::new("bind", &[Errno::EINVAL, Errno::EBUSY]), || {
            let device = open(EDU)?;
            let bind = device.bind(&iommufd);
            if bind.is_ok() {
                assert!(group(EDU).is_err(), "the group was opened meanwhile");
                device.info()?;
            }
            Ok(bind?)
        })
    };
    let by_group = || -> Result<()> {
        contend(Tally::new("open of the group", &[Errno::EBUSY]), || {
            Setup::new()?.device.info().map_err(Into::into)
        })
    };
    threads::run(vec![
        Box::new(by_file),
        Box::new(by_file),
        Box::new(by_group),
    ])?;
    is_free(EDU)
}

fn attach_and_detach() -> Result<()> {
    let attached = Attached::new()?;
    let other = attached.iommufd.ioas()?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    attached.map(0, &memory)?;
    let attach = |ioas| {
        let device = &attached.device;
        move || repeat(|| device.attach(ioas).map(drop).map_err(Into::into))
    };
    let detach = || repeat(|| Ok(attached.device.detach()?));
    let map = || {
        repeat(|| {
            let iommufd = &attached.iommufd;
            iommufd.map(other, 0x10_0000, &memory, MapFlags::ReadWrite)?;
            iommufd.unmap(other, 0x10_0000, memory.len() as u64)?;
            Ok(())
        })
    };
    threads::run(vec![
        Box::new(attach(attached.ioas)),
        Box::new(attach(other)),
        Box::new(detach),
        Box::new(map),
    ])?;
    attached.device.detach()?;
    attached.iommufd.destroy(other)?;
    attached.iommufd.destroy(attached.ioas)?;
    Ok(())
}

/// Closes the only descriptor of a file while other threads use it through duplicates, each of
/// which closes its own at any time.
fn close_during_requests() -> Result<()> {
    for _ in 0..30 {
        let attached = Attached::new()?;
        let ioas = attached.ioas;
        let copies = [attached.device.try_clone()?, attached.device.try_clone()?];
        let mut bodies: Vec<Body<'_, ()>> = Vec::new();
        for copy in copies {
            bodies.push(Box::new(move || {
                for _ in 0..3 {
                    copy.attach(ioas)?;
                    copy.detach()?;
                }
                Ok(())
            }));
        }
        let Attached {
            device, iommufd, ..
        } = attached;
        bodies.push(Box::new(move || {
            drop(iommufd);
            Ok(())
        }));
        bodies.push(Box::new(move || {
            drop::<Device>(device);
            Ok(())
        }));
        threads::run(bodies)?;
        is_free(EDU)?;
    }
    Ok(())
}

fn bind_while_driver_is_unbound() -> Result<()> {
    let change = || -> Result<()> {
        for _ in 0..10 {
            pci::unbind(EDU)?;
            pci::bind(EDU, "vfio-pci")?;
        }
        Ok(())
    };
    let use_it = || -> Result<()> {
        let iommufd = Iommufd::open()?;
        let allowed = &[Errno::EINVAL, Errno::ENOENT, Errno::ENODEV, Errno::ENXIO];
        let mut tally = Tally::new("open and bind", allowed);
        repeat(|| {
            let used = open(EDU).and_then(|device| {
                device.bind(&iommufd)?;
                device.info()
            });
            tally.note(used.map_err(Into::into))
        })?;
        Ok(())
    };
    threads::run(vec![Box::new(change), Box::new(use_it), Box::new(use_it)])?;
    is_free(EDU)
}

/// The node exists before the device is registered.
fn open_while_device_is_registered() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let node = Device::file_of(&pci::sysfs(EDU))?;
    for _ in 0..20 {
        pci::unbind(EDU)?;
        let open = || -> Result<()> {
            let start = Instant::now();
            while start.elapsed() < LIMIT {
                let opened = File::open(&node);
                if opened.is_ok() {
                    return Ok(());
                }
                let error = opened.errno();
                assert!([Errno::ENOENT, Errno::ENODEV].contains(&error), "{error}");
            }
            bail!("{} cannot be opened", node.display());
        };
        let bind = || Ok(pci::bind(EDU, "vfio-pci")?);
        threads::run(vec![Box::new(open), Box::new(open), Box::new(bind)])?;
    }
    is_free(EDU)
}
