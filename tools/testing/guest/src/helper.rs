// SPDX-License-Identifier: GPL-2.0

//! The commands of helper processes: this program, started again by a case.

use crate::{
    cases,
    env::{
        self,
        Setup, //
    },
    soak,
    stress, //
};
use anyhow::{
    Result,
    bail, //
};
use nix::{
    sys::socket::{
        AddressFamily,
        ControlMessage,
        ControlMessageOwned,
        MsgFlags,
        SockFlag,
        SockType,
        recvmsg,
        sendmsg,
        socketpair, //
    },
    unistd::{
        Gid,
        Uid,
        setgid,
        setuid, //
    },
};
use std::{
    io::{
        BufRead,
        IoSlice,
        IoSliceMut,
        Write, //
    },
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd,
        OwnedFd, //
    },
    process::ExitCode,
    time::Duration, //
};
use support::{
    helper::{
        inherited,
        without_ipc_lock, //
    },
    machine::locked_pages,
    requests::MapDma, //
};
use vfio_client::{
    Container,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
    raw, //
};

/// Prints a line for the case.
pub fn say(line: impl std::fmt::Display) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

/// Prints the result of a call: `OK` or the errno.
fn say_result<T>(result: &vfio_client::Result<T>) {
    match result {
        Ok(_) => say("OK"),
        Err(error) => say(format!("{:?}", error.errno())),
    }
}

/// Waits until the case lets the helper continue.
pub fn pause() {
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

/// Runs a helper command.
pub fn main(words: &[String]) -> ExitCode {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("{error:?}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["nobody"] => nobody(),
        ["owner-of-two-groups"] => owner_of_two_groups(),
        ["unbind", bdf] => {
            say("ready");
            Ok(vfio_client::pci::unbind(bdf)?)
        }
        ["hold", bdf] => hold(bdf),
        ["dma", fd, iova] => dma(fd.parse()?, iova.parse()?),
        ["memlock", limit] => memlock(limit.parse()?),
        ["memlock-bar"] => memlock_bar(),
        ["map", fd, iova] => map(inherited(fd)?, iova.parse()?),
        ["take-over", fd, iova, pages] => take_over(inherited(fd)?, iova.parse()?, pages.parse()?),
        ["receive", fd, iova] => map(receive(&inherited(fd)?)?, iova.parse()?),
        ["stress-use", seed, ms] => {
            let time = milliseconds(ms)?;
            stress::use_devices(stress::DEVICES, seed.parse()?, time, |counts| say(counts))
        }
        ["stress-churn", seed, ms] => {
            let (devices, changes) = (stress::DEVICES, &stress::ALL_CHANGES);
            say(stress::churn(
                devices,
                changes,
                seed.parse()?,
                milliseconds(ms)?,
            )?);
            Ok(())
        }
        ["soak", kind, seed, ms] => soak::work(kind, seed.parse()?, milliseconds(ms)?),
        ["exit"] => Ok(()),
        other => cases::helper(other),
    }
}

fn milliseconds(number: &str) -> Result<Duration> {
    Ok(Duration::from_millis(number.parse()?))
}

/// Opens a container as an unprivileged user.
fn nobody() -> Result<()> {
    setgid(Gid::from_raw(65534))?;
    setuid(Uid::from_raw(65534))?;
    let container = Container::open()?;
    say(container.api_version()?);
    say_result(&env::group(env::EDU).map_err(|error| {
        error
            .downcast::<vfio_client::Error>()
            .unwrap_or_else(|_| vfio_client::Error::new("?", vfio_client::Errno::UnknownErrno))
    }));
    Ok(())
}

/// Uses the devices of two groups as their owner, who has no capability.
fn owner_of_two_groups() -> Result<()> {
    setgid(Gid::from_raw(65534))?;
    setuid(Uid::from_raw(65534))?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    say(capabilities.unwrap_or("unknown").trim());
    let (first, second) = (env::group(env::EDU)?, env::group(env::NVME)?);
    let container = Container::open()?;
    first.set_container(&container)?;
    second.set_container(&container)?;
    container.set_iommu(Iommu::Type1v2)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    memory.write(0, &[0x5a; 64]);
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    let (device, other) = (first.device(env::EDU)?, second.device(env::NVME)?);
    other.info()?;
    other.reset()?;
    let edu = Edu::new(&device)?;
    edu.load(0x10_0000, 64)?;
    edu.store(0x10_0000 + 512, 64)?;
    anyhow::ensure!(memory.to_vec(512, 64) == [0x5a; 64], "DMA did not arrive");
    container.unmap(0x10_0000, PAGE_SIZE as u64)?;
    drop((edu, device, other));
    first.unset_container()?;
    second.unset_container()?;
    say("done");
    Ok(())
}

/// Keeps a device open with a mapping.
fn hold(bdf: &str) -> Result<()> {
    let setup = Setup::with(bdf, Iommu::Type1v2)?;
    let memory = Memory::anonymous(16 * PAGE_SIZE)?;
    setup
        .container
        .map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    say("ready");
    pause();
    Ok(())
}

/// Starts a transfer from the device to shared memory, and waits to be killed.
fn dma(fd: i32, iova: u64) -> Result<()> {
    let memory = Memory::from_file(raw::duplicate(fd)?.as_fd(), 0, PAGE_SIZE, true)?;
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    setup.container.map(iova, &memory, MapFlags::ReadWrite)?;
    // The device will try to write this data later.
    memory.fill(0, PAGE_SIZE, 0xd1);
    edu.load(iova, edu::MEMORY as u64)?;
    edu.start_store(iova, edu::MEMORY as u64);
    say("started");
    pause();
    Ok(())
}

/// Maps memory up to the limit and beyond.
fn memlock(pages: usize) -> Result<()> {
    let setup = Setup::new()?;
    let container = &setup.container;
    let memory = Memory::anonymous((pages + 1) * PAGE_SIZE)?;
    without_ipc_lock((pages * PAGE_SIZE) as u64)?;
    let part = |iova, offset, count| {
        container.map_part(
            iova,
            &memory,
            offset * PAGE_SIZE,
            count * PAGE_SIZE,
            MapFlags::ReadWrite,
        )
    };
    let report = |result: vfio_client::Result<()>| {
        let avail = container.info().map(|info| info.dma_avail());
        say_result(&result);
        say(locked_pages());
        say(format!("{:?}", avail.ok().flatten()));
    };
    report(part(0x10_0000, 0, pages + 1));
    report(part(0x10_0000, 0, pages));
    report(part(0x80_0000, pages, 1));
    container.unmap(0x10_0000, (pages * PAGE_SIZE) as u64)?;
    report(part(0x80_0000, pages, 1));
    Ok(())
}

/// Maps registers of the device without being allowed to lock memory.
fn memlock_bar() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    without_ipc_lock(0)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    say_result(&setup.container.map(0, &memory, MapFlags::ReadWrite));
    let registers = edu.registers();
    say_result(&setup.container.map(0, registers, MapFlags::ReadWrite));
    say(locked_pages());
    Ok(())
}

/// Returns two sockets that are connected to each other.
pub(crate) fn sockets() -> Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Sends a descriptor through a socket.
pub(crate) fn send(socket: &OwnedFd, fd: BorrowedFd<'_>) -> Result<()> {
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&[1])],
        &[ControlMessage::ScmRights(&[fd.as_raw_fd()])],
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}

/// Receives the descriptor of a container from a socket.
pub(crate) fn receive(socket: &OwnedFd) -> Result<OwnedFd> {
    let mut byte = [0];
    let mut io = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(i32);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut io,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            if let Some(fd) = fds.first() {
                let owned = raw::duplicate(*fd)?;
                nix::unistd::close(*fd)?;
                return Ok(owned);
            }
        }
    }
    bail!("the message has no descriptor")
}

/// Updates the vaddr of a mapping to memory of this process, with a limit of `pages` locked pages.
fn take_over(fd: OwnedFd, iova: u64, pages: u64) -> Result<()> {
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    without_ipc_lock(pages * PAGE_SIZE as u64)?;
    let size = memory.len() as u64;
    let update = MapDma {
        flags: MapDma::VADDR,
        vaddr: memory.addr(),
        iova,
        size,
        ..MapDma::default()
    };
    match update.send(&fd) {
        Ok(_) => say("OK"),
        Err(errno) => say(format!("{errno:?}")),
    }
    say(locked_pages());
    pause();
    Ok(())
}

/// Maps memory of this process in a container of another process.
fn map(fd: OwnedFd, iova: u64) -> Result<()> {
    let container = Container::from_fd(fd);
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    memory.fill(0, memory.len(), 0xc5);
    say_result(&container.map(iova, &memory, MapFlags::ReadWrite));
    say(locked_pages());
    pause();
    say(format!("{:#x}", memory.read_u8(0)));
    pause();
    Ok(())
}
