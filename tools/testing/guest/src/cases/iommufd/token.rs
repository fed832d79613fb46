// SPDX-License-Identifier: GPL-2.0

//! Binding the functions of a network controller, which may need a token.

use super::{
    is_free,
    open, //
};
use crate::{
    feature::{
        self,
        PCI_VF_TOKEN,
        SET, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
};
use support::requests::BindIommufd;
use vfio_client::{
    Errno,
    Iommufd,
    pci, //
};

cases! {
    #[rows("V3")] device_without_functions_refuses_token,
    #[rows("V3")] virtual_function_needs_token,
    #[rows("V3")] physical_function_takes_token,
    #[rows("V3")] token_that_cannot_be_read,
}

/// The controller with virtual functions.
pub(super) const WHOLE: &str = "0000:02:00.0";

const TOKEN: [u8; 16] = [0x11; 16];
const OTHER: [u8; 16] = [0x22; 16];

/// A virtual function, which exists until this is dropped.
struct Function(String);

impl Function {
    fn new() -> Result<Self> {
        pci::write_attribute(WHOLE, "sriov_numvfs", "1")?;
        let link = fs::read_link(pci::sysfs(WHOLE).join("virtfn0"))?;
        let name = link.file_name().and_then(|name| name.to_str());
        Ok(Self(name.context("the function has no name")?.to_owned()))
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = pci::write_attribute(WHOLE, "sriov_numvfs", "0");
    }
}

fn device_without_functions_refuses_token() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(crate::env::EDU)?;
    let bind = device.bind_with_token(&iommufd, &TOKEN);
    assert_eq!(bind.errno(), Errno::EINVAL);
    is_free(crate::env::EDU)?;
    device.bind(&iommufd)?;
    Ok(())
}

fn virtual_function_needs_token() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let whole = open(WHOLE)?;
    whole.bind(&iommufd)?;
    feature::send(&whole, SET | PCI_VF_TOKEN, &TOKEN)?;
    let function = Function::new()?;
    let device = open(&function.0)?;
    assert_eq!(device.bind(&iommufd).errno(), Errno::EACCES);
    let wrong = device.bind_with_token(&iommufd, &OTHER);
    assert_eq!(wrong.errno(), Errno::EACCES);
    assert_eq!(device.info().errno(), Errno::EINVAL);
    device.bind_with_token(&iommufd, &TOKEN)?;
    device.info()?;
    drop(device);
    drop(whole);
    Ok(())
}

fn physical_function_takes_token() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let function = Function::new()?;
    // The first bind chooses the token.
    open(WHOLE)?.bind_with_token(&iommufd, &TOKEN)?;
    let device = open(&function.0)?;
    device.bind_with_token(&iommufd, &TOKEN)?;
    // While a function is in use, the physical function needs the token.
    let whole = open(WHOLE)?;
    assert_eq!(whole.bind(&iommufd).errno(), Errno::EACCES);
    let wrong = whole.bind_with_token(&iommufd, &OTHER);
    assert_eq!(wrong.errno(), Errno::EACCES);
    whole.bind_with_token(&iommufd, &TOKEN)?;
    drop((device, whole));
    Ok(())
}

fn token_that_cannot_be_read() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(WHOLE)?;
    for token in [0, 1, 4096, u64::MAX] {
        let bind = BindIommufd {
            flags: BindIommufd::TOKEN,
            iommufd: iommufd.as_fd().as_raw_fd(),
            token,
            ..BindIommufd::default()
        };
        assert_eq!(
            bind.send(&device),
            Err(Errno::EFAULT),
            "token at {token:#x}"
        );
    }
    // A structure without the address has address 0.
    let bind = BindIommufd {
        argsz: BindIommufd::SIZE_WITHOUT_TOKEN,
        flags: BindIommufd::TOKEN,
        iommufd: iommufd.as_fd().as_raw_fd(),
        token: 0,
    };
    assert_eq!(bind.send(&device), Err(Errno::EFAULT));
    is_free(WHOLE)
}
