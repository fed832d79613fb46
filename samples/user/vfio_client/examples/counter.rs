// SPDX-License-Identifier: GPL-2.0

//! Reads the register of a mediated device of `samples/mdev_counter` some times.
//!
//! ```sh
//! counter 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
//! ```

#![deny(unsafe_code)]

use std::env;
use vfio_client::{
    Errno,
    Error,
    Register,
    Result,
    mdev::Mdev, //
};

const COUNTER: Register<u32> = Register::at(0);

fn main() -> Result {
    let Some(uuid) = env::args().nth(1) else {
        return Err(Error::new("usage: counter UUID", Errno::EINVAL));
    };
    let mdev = Mdev::existing(&uuid).map_err(|error| Error::from_io(uuid, &error))?;
    let open = mdev.open()?;
    let registers = open.device.region(0)?;
    for _ in 0..3 {
        println!("{}", open.device.get(&registers, COUNTER)?);
    }
    open.device.set(&registers, COUNTER, 1000)?;
    println!("{}", open.device.get(&registers, COUNTER)?);
    // Dropping the object would remove the device.
    mdev.keep();
    Ok(())
}
