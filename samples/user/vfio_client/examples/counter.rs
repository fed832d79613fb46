// SPDX-License-Identifier: GPL-2.0

//! Reads the register of a mediated device of `samples/mdev_counter` some times.
//!
//! ```sh
//! counter 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
//! ```

#![deny(unsafe_code)]

use std::env;
use vfio_client::{Errno, Error, Group, Iommu, Register, Result, mdev};

const COUNTER: Register<u32> = Register::at(0);

fn main() -> Result {
    let Some(uuid) = env::args().nth(1) else {
        return Err(Error::new("usage: counter UUID", Errno::EINVAL));
    };
    // A device can be opened when its group has an address space.
    let group = Group::open(Group::number_of(&mdev::sysfs(&uuid))?)?;
    let _container = group.attach(Iommu::Type1v2)?;
    let device = group.device(&uuid)?;
    let registers = device.region(0)?;
    for _ in 0..3 {
        println!("{}", device.get(&registers, COUNTER)?);
    }
    device.set(&registers, COUNTER, 1000)?;
    println!("{}", device.get(&registers, COUNTER)?);
    Ok(())
}
